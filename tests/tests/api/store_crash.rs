//! The store's file after `kill -9` at any point.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lbagent::store::{RedbStore, Store};
use lbagent_tests::agent::{Agent, Config, binary};
use lbagent_tests::poll::keep_pace;
use lbagent_tests::random::Random;
use lbagent_tests::slowness::repetitions;
use lbagent_tests::topology::{Shape, Topology};
use lbagent_tests::{require_root, store_load};
use serde_json::{Value, json};

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

/// The names of a daemon's service groups, each of which publishes the port of its number.
fn groups(agent: &Agent) -> Vec<String> {
    let listed = agent.call("GET", "/v1/services", None).unwrap();
    let listed = listed["service_groups"].as_array().unwrap();
    let whole = |group: &Value| {
        let name = group["name"].as_str().unwrap().to_owned();
        assert_eq!(
            format!("g{}", group["services"][0]["port"]),
            name,
            "{group}"
        );
        name
    };
    listed.iter().map(whole).collect()
}

#[test]
fn a_killed_agent_has_every_change_that_it_answered() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let config = Config::new(&topology);
    let mut agent = Agent::start(&topology.gateway, &config).unwrap();
    let mut chance = Random::new(2);
    let mut next = 1000;
    let mut answered = Vec::new();
    for round in 0..repetitions(6) {
        let deadline = Duration::from_millis(chance.below(150) as u64);
        let pid = nix::unistd::Pid::from_raw(agent.pid().unwrap() as i32);
        let killer = std::thread::spawn(move || {
            keep_pace(Instant::now(), deadline);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        // The first request that gets no answer is the one that the kill cut off.
        loop {
            let services = json!([{"port": next, "protocol": "tcp", "handlers": []}]);
            let body = json!({"name": format!("g{next}"), "services": services});
            let made = agent.call("POST", "/v1/services", Some(&body));
            next += 1;
            match made {
                Ok(_) => answered.push(format!("g{}", next - 1)),
                Err(_) => break,
            }
        }
        killer.join().unwrap();
        agent.kill().unwrap();
        agent.launch().unwrap();
        let mut found = groups(&agent);
        found.sort();
        let cut_off = format!("g{}", next - 1);
        let is_known = |name: &&String| answered.contains(name) || **name == cut_off;
        assert_eq!(
            found.iter().filter(is_known).count(),
            found.len(),
            "{found:?}"
        );
        let missing: Vec<_> = answered
            .iter()
            .filter(|name| !found.contains(name))
            .collect();
        assert_eq!(missing, Vec::<&String>::new(), "round {round}");
        answered = found;
    }
}
