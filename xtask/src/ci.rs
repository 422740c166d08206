//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::{lint, test};

/// Lints, then tests.
pub fn run() -> Result<()> {
    lint::run()?;
    test::run(&test::Options::default())
}
