//! Help, manual pages, exit codes.

use std::fs;

use crate::process::bare_command;

#[test]
fn help_and_manual_pages_name_every_option() {
    let help = bare_command().args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let man = bare_command()
        .arg("man")
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(man.success());
    let page = fs::read_to_string(directory.path().join("lbterm-run.1")).unwrap();
    for option in [
        "access-log",
        "access-log-sample",
        "socket",
        "workers",
        "drain-timeout",
        "allow-root",
        "log-json",
    ] {
        assert!(help.contains(&format!("--{option}")), "{help}");
        assert!(page.contains(&option.replace('-', "\\-")), "{page}");
    }
}

#[test]
fn what_cannot_be_used_is_told_with_its_exit_code() {
    for (arguments, code, text) in [
        (&["run", "--workers", "0"][..], 2, "a number from 1 to 126"),
        (&["run", "--drain-timeout=-1"], 2, "seconds"),
        (&["run", "--access-log-sample=2"], 2, "--access-log <FILE>"),
        (&["walk"], 2, "unrecognized subcommand"),
        (&["man", "/does/not/exist"], 1, "cannot write manual pages"),
    ] {
        let output = bare_command().args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
}

#[test]
fn privileges_are_refused() {
    if !nix::unistd::geteuid().is_root() {
        // An ordinary user has none that could be refused; every other test runs without.
        return;
    }
    let output = bare_command().arg("run").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("(root)"), "{stderr}");
}

#[test]
fn an_access_log_that_cannot_be_written_is_told_at_the_start() {
    let mut command = crate::process::command();
    let output = command
        .args(["--access-log", "/does/not/exist"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("cannot open the access log /does/not/exist: No such file"),
        "{stderr}"
    );
}
