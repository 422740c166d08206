//! `cargo xtask openapi`: the description of the API, as the code has it.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::process::{self, progress};
use crate::workspace;

/// Writes the files that differ: one for each dialect.
pub fn write() -> Result<()> {
    for (name, options) in [
        ("docs/openapi.json", &[][..]),
        ("docs/openapi-2024.json", &["--dialect-2024"]),
    ] {
        let file = workspace::root().join(name);
        let described = described(options)?;
        if fs::read_to_string(&file).is_ok_and(|written| written == described) {
            progress(format!("{name} is up to date"));
            continue;
        }
        fs::write(&file, described).with_context(|| format!("{}", file.display()))?;
        progress(format!("{name} is written"));
    }
    Ok(())
}

fn described(options: &[&str]) -> Result<String> {
    let mut agent = process::cargo();
    agent.args(["run", "--quiet", "--bin", "lbagent", "--", "openapi"]);
    agent.args(options);
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
