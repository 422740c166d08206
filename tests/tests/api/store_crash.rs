//! The store's file after `kill -9` at any point.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lbagent::store::{RedbStore, Store};
use lbagent_tests::agent::binary;
use lbagent_tests::poll::keep_pace;
use lbagent_tests::random::Random;
use lbagent_tests::slowness::repetitions;
use lbagent_tests::store_load;

fn start_writer(path: &Path) -> Child {
    let mut command = Command::new(binary("LB_STORE_WRITER_BIN", "lb-store-writer"));
    command
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.spawn().expect("lb-store-writer starts")
}

/// Kills a writer after a while; returns the last transaction that it was told to be stored.
fn killed(path: &Path, chance: &mut Random) -> Option<u64> {
    let mut writer = start_writer(path);
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut number = |line: std::io::Result<String>| line.unwrap().parse().unwrap();
    let mut last = None;
    let start = Instant::now();
    // In a third of the rounds even the opening of the file may be cut off.
    if chance.below(3) > 0 {
        last = lines
            .by_ref()
            .take(1 + chance.below(30))
            .map(&mut number)
            .last();
    }
    let moment = start.elapsed() + Duration::from_micros(chance.below(20_000) as u64);
    keep_pace(start, moment);
    writer.kill().unwrap();
    writer.wait().unwrap();
    // What the pipe still holds was acknowledged too.
    lines.map(number).last().or(last)
}

#[test]
fn every_acknowledged_transaction_survives_a_kill_and_none_is_half_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let mut chance = Random::new(1);
    let mut acknowledged = 0;
    let mut beyond = 0;
    for round in 0..repetitions(60) {
        acknowledged = killed(&path, &mut chance).unwrap_or(acknowledged);
        let store = RedbStore::open(&path).unwrap();
        let found = store_load::last(&store).unwrap();
        // The transaction that the kill interrupted may be stored, whole, or not.
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "round {round}: {acknowledged} was acknowledged, {found} is the last"
        );
        beyond += found - acknowledged;
        let range = store.range("").unwrap();
        let content: BTreeMap<_, _> = (range.items.into_iter())
            .map(|item| (item.key, item.value))
            .collect();
        assert_eq!(range.revision, found, "round {round}");
        assert!(
            content == store_load::content(found),
            "round {round}: transaction {found} is not whole; keys: {:?}",
            content.keys()
        );
        acknowledged = found;
    }
    println!("{acknowledged} transactions, {beyond} of them interrupted and yet stored");
    assert!(
        acknowledged > u64::from(repetitions(60)),
        "the load was no load"
    );
}
