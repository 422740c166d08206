//! `cargo xtask lint`: formatting, clippy on host and BPF code, licences, and the rules of
//! tidy.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{self, progress};
use crate::{build, setup, tidy, workspace};

/// What each crate of ours may depend on, of ours. `tests` may use all of them.
const DEPENDENCIES: [(&str, &[&str]); 7] = [
    ("lbagent-common", &[]),
    ("lbagent-ebpf", &["lbagent-common"]),
    ("lbagent-api", &[]),
    ("lbagent", &["lbagent-common", "lbagent-api"]),
    ("lbctl", &["lbagent-api"]),
    ("lbterm", &["lbagent-api"]),
    ("xtask", &[]),
];

/// One kind of check.
type Check = fn() -> Result<()>;

/// Runs every check, and says at the end which ones failed.
pub fn run() -> Result<()> {
    let checks: [(&str, Check); 5] = [
        ("formatting", formatting),
        ("tidy", tidy::run),
        ("licences and dependencies", check_metadata),
        ("clippy on host code", host_clippy),
        ("clippy on BPF code", bpf_clippy),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        progress(name);
        if let Err(error) = check() {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        progress("no findings");
        return Ok(());
    }
    bail!("lint failed: {}", failed.join(", "))
}

fn formatting() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
        .context("run `cargo fmt --all`")
}

fn host_clippy() -> Result<()> {
    let run = |targets: &[&str], lints: &[&str]| {
        let mut clippy = process::cargo();
        clippy.args([
            "clippy",
            "--workspace",
            "--exclude",
            workspace::AGENT_OBJECT,
        ]);
        process::run(clippy.args(targets).args(["--", "-Dwarnings"]).args(lints))
    };
    run(&["--all-targets"], &[])?;
    // A case table may be long, so tests are left out here; clippy.toml has the limit.
    run(&["--lib", "--bins"], &["-Dclippy::too_many_lines"])
}

fn bpf_clippy() -> Result<()> {
    if workspace::prebuilt_object().is_some() {
        progress("left out: a prebuilt object is in use");
        return Ok(());
    }
    setup::run()?;
    process::run(build::bpf_cargo("clippy").args(["--bins", "--", "-Dwarnings"]))
}

/// Checks the licences of all packages and the direction of dependencies among ours.
fn check_metadata() -> Result<()> {
    let text = process::output_of(process::cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
    ]))
    .context("`cargo metadata --locked` failed; is Cargo.lock up to date?")?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata wrote no JSON")?;
    let allowed = allowed_licences()?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let ours: BTreeSet<_> = packages
        .iter()
        .filter(|package| package["source"].is_null())
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            findings.push(format!(
                "{name}: licence `{licence}` is not in deny.toml's list"
            ));
        }
        let Some((_, permitted)) = DEPENDENCIES
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
        else {
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let dependency = dependency["name"].as_str().unwrap_or_default();
            if ours.contains(dependency) && !permitted.contains(&dependency) {
                findings.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.join("\n"))
}

/// The list in deny.toml, which `cargo deny` reads too.
fn allowed_licences() -> Result<BTreeSet<String>> {
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("{}", path.display()))?;
    let list = table
        .get("licenses")
        .and_then(|licences| licences.get("allow"));
    list.and_then(toml::Value::as_array)
        .context("deny.toml: no list `allow` under [licenses]")?
        .iter()
        .map(|licence| {
            licence
                .as_str()
                .map(str::to_owned)
                .context("deny.toml: not a string")
        })
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is the old way to write
/// `OR`. `AND` binds tighter; the parentheses that occur enclose alternatives.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let tokens = expression.replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = tokens.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    alternatives(&mut rest, allowed) && rest.is_empty()
}

fn alternatives(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = conjunction(rest, allowed);
    while let [first, tail @ ..] = rest
        && *first == "OR"
    {
        *rest = tail;
        met |= conjunction(rest, allowed);
    }
    met
}

fn conjunction(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = licence(rest, allowed);
    while let [first, tail @ ..] = rest
        && *first == "AND"
    {
        *rest = tail;
        met &= licence(rest, allowed);
    }
    met
}

fn licence(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let met = alternatives(rest, allowed);
            if let [")", tail @ ..] = *rest {
                *rest = tail;
            }
            met
        }
        [name, "WITH", exception, tail @ ..] => {
            let named = format!("{name} WITH {exception}");
            *rest = tail;
            allowed.contains(&named)
        }
        [name, tail @ ..] => {
            let met = allowed.contains(*name);
            *rest = tail;
            met
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allowed = [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ];
        let allowed = allowed.map(str::to_owned).into();
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn licence_expressions_are_understood() {
        check("MIT", true);
        check("GPL-3.0", false);
        check("", false);
        check("GPL-3.0 OR MIT", true);
        check("Unlicense/MIT", true);
        check("GPL-3.0 AND MIT", false);
        check("(MIT OR GPL-3.0) AND Unicode-3.0", true);
        check("(MIT OR Apache-2.0) AND GPL-3.0", false);
        check("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true);
        check("GPL-3.0 WITH Classpath-exception-2.0", false);
    }
}
