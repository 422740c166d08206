//! Tests that cannot run here say so, and fail in CI unless `tests/skips.txt` lists them.

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
        if !nix_is_root() {
            $crate::skip!("needs root: namespaces and BPF take CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF");
        }
        fn nix_is_root() -> bool {
            $crate::skip::is_root()
        }
    };
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Prints why the current test is skipped; panics in CI if nobody agreed to that.
pub fn report(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    let listed = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/skips.txt"))
        .lines()
        .filter_map(|line| line.split('#').next())
        .any(|line| line.trim() == test);
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(listed || !in_ci, "{test} was skipped in CI ({reason}) and tests/skips.txt lacks it");
    eprintln!("SKIPPED {test}: {reason}");
}
