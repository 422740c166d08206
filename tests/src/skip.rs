//! Tests that cannot run here say so, and fail in CI unless `tests/skips.txt` lists them.

use std::fs::File;
use std::io::Write;

/// Ends the calling test with a printed reason.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skip::report(&format!($($reason)+));
        return;
    }};
}

/// Ends the calling test unless it may make namespaces and load BPF programs.
#[macro_export]
macro_rules! require_root {
    () => {
        let missing = $crate::capabilities::missing();
        if !missing.is_empty() {
            $crate::skip!("lacks {}: run as root", missing.join(", "));
        }
    };
}

/// Says why the current test is skipped; panics in CI if nobody agreed to that.
pub fn report(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/skips.txt");
    let listed = std::fs::read_to_string(list)
        .unwrap_or_else(|error| panic!("{list}: {error}"))
        .lines()
        .filter_map(|line| line.split('#').next())
        .any(|line| line.trim() == test);
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        listed || !in_ci,
        "{test} was skipped in CI ({reason}) and tests/skips.txt lacks it"
    );
    eprintln!("SKIPPED {test}: {reason}");
    // The test runner hides what a passing test prints, so `cargo xtask test` keeps a list.
    if let Some(path) = std::env::var_os("LBAGENT_SKIP_LOG") {
        let log = File::options().append(true).create(true).open(&path);
        let written = log.and_then(|mut log| writeln!(log, "{test}: {reason}"));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
