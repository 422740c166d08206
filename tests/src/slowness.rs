//! Tests on machines that are slow on purpose: a virtual machine without hardware support is about
//! ten times slower than its host, and its results are as right.

use std::sync::LazyLock;
use std::time::Duration;

/// How many times slower than a usual machine this one is.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let variable = std::env::var("LBAGENT_TEST_SLOWNESS").ok();
    variable.map_or(1, |text| match text.parse() {
        Ok(number @ 1..) => number,
        _ => panic!("LBAGENT_TEST_SLOWNESS={text} is no number above zero"),
    })
});

/// How long to wait here for what takes at most `usual` elsewhere.
pub fn patience(usual: Duration) -> Duration {
    usual * *SLOWNESS
}

/// How often to repeat here what chance decides: a run that is cut short still tries every kind of
/// case, and the whole number is tried on usual machines.
pub fn repetitions(usual: u32) -> u32 {
    usual.div_ceil(*SLOWNESS)
}

/// Whether tests are to show the whole of what they say, however long it takes: `cargo xtask test
/// --long`.
pub fn is_long() -> bool {
    std::env::var_os("LBAGENT_TEST_LONG").is_some_and(|value| value == "1")
}

/// What a test does usually, or where it may take long.
pub fn scale<T>(usual: T, long: T) -> T {
    if is_long() { long } else { usual }
}
