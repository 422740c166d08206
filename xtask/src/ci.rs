//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::{lint, test, vm};

/// Lints, then tests, here and on other kernels.
pub fn run() -> Result<()> {
    lint::run()?;
    test::run(&test::Options::default())?;
    vm::run(&vm::Options::default())
}
