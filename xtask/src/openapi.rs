//! `cargo xtask openapi`: the description of the API, as the code has it.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::process::{self, progress};
use crate::workspace;

/// Writes the file, if it differs.
pub fn write() -> Result<()> {
    let file = workspace::root().join("docs/openapi.json");
    let described = described()?;
    if fs::read_to_string(&file).is_ok_and(|written| written == described) {
        progress("docs/openapi.json is up to date");
        return Ok(());
    }
    fs::write(&file, described).with_context(|| format!("{}", file.display()))?;
    progress("docs/openapi.json is written");
    Ok(())
}

fn described() -> Result<String> {
    let mut agent = process::cargo();
    agent.args(["run", "--quiet", "--bin", "lbagent", "--", "openapi"]);
    // What cargo complains about is shown.
    let output = agent.stderr(Stdio::inherit()).output();
    let output = output.context("can't start cargo")?;
    ensure!(
        output.status.success(),
        "`lbagent openapi` failed ({})",
        output.status
    );
    String::from_utf8(output.stdout).context("`lbagent openapi` wrote no UTF-8")
}
