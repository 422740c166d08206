//! A short run of a fuzz target without a fuzzer, for ordinary tests: every seed, and changes of seeds.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

/// Changed inputs of each target.
const CASES: u32 = 2_000;

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    /// Other bytes in the place of some.
    Replace(Index, u8, Vec<u8>),
    /// Some bytes again.
    Repeat(Index, u8, u8),
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>) {
        let (Self::Replace(place, length, _) | Self::Repeat(place, length, _)) = self;
        let start = place.index(input.len() + 1);
        let end = input.len().min(start + usize::from(*length));
        match self {
            Self::Replace(_, _, bytes) => drop(input.splice(start..end, bytes.iter().copied())),
            Self::Repeat(_, _, times) => {
                let again = input[start..end].repeat(usize::from(*times));
                input.splice(start..start, again);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    // Bytes that mean something to one parser or another.
    let words = [
        "\r\n", "\n", ":", " ", "0", ",", "\"", "{", "}", "[", "]", "null", "-1", "chunked",
    ];
    let word = select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let bytes = prop_oneof![3 => proptest::collection::vec(any::<u8>(), 0..4), 2 => word];
    prop_oneof![
        (any::<Index>(), 0..8_u8, bytes)
            .prop_map(|(at, length, bytes)| Change::Replace(at, length, bytes)),
        (any::<Index>(), 1..40_u8, 1..100_u8)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
    ]
}

/// Runs a target over its seeds below `tests/fuzz/seeds` and over changes of them.
pub fn drive(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fuzz/seeds")
        .join(name);
    let files =
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).expect("a seed"))
        .collect();
    assert!(!seeds.is_empty(), "{}: no seeds", directory.display());
    seeds.iter().for_each(|seed| target(seed));
    let strategy = (select(seeds), proptest::collection::vec(change(), 1..6));
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&strategy, |(mut input, changes)| {
        changes.iter().for_each(|change| change.apply(&mut input));
        target(&input);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{name}: {error}"));
}
