//! testssl.sh, which knows what may be wrong with a TLS server.

use std::fs;

use lbagent_tests::agent::Ended;
use lbagent_tests::require_root;
use lbagent_tests::site::{NAME, Site};
use lbagent_tests::slowness::is_long;
use lbagent_tests::topology::VIP4;
use serde_json::Value;

/// What is fine or worth less than a look, in its words.
const HARMLESS: [&str; 4] = ["OK", "INFO", "LOW", "DEBUG"];

/// Findings that stay, and why.
const KNOWN: [(&str, &str); 3] = [
    (
        "cert_revocation",
        "a development gateway's authority has nobody to publish revocations",
    ),
    (
        "security_headers",
        "which fields answers have is up to the instances",
    ),
    (
        "engine_problem",
        "of the client's own OpenSSL, where Debian's is not set up for GOST",
    ),
];

/// What is looked at where there is no time for everything: protocols, kinds of ciphers, forward
/// secrecy, and vulnerabilities that do not take a minute to look for.
const SHORT: [&str; 9] = ["-p", "-s", "-f", "-H", "-I", "-T", "-R", "-C", "-Z"];

#[test]
fn testssl_finds_nothing_that_matters() {
    require_root!();
    let site = Site::start().unwrap();
    site.wait_for(VIP4).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("findings.json");
    // It asks for names that there are not: without a name server that is a matter of no time.
    const WITHOUT_DNS: &str = "mount --bind /dev/null /etc/resolv.conf && exec testssl \"$@\"";
    let mut testssl = site.gateway.topology.client.command("unshare");
    testssl
        .args(["--mount", "sh", "-c", WITHOUT_DNS, "testssl"])
        .args([
            "--quiet",
            "--warnings",
            "off",
            "--color",
            "0",
            "--nodns",
            "none",
        ])
        .args(["--openssl", "/usr/bin/openssl"])
        .args(["--ip", &VIP4.to_string()])
        .arg("--add-ca")
        .arg(site.browser.authority_path())
        .arg("--jsonfile")
        .arg(&json);
    if !is_long() {
        testssl.args(SHORT);
    }
    let ended = Ended::of(testssl.arg(format!("{NAME}:443"))).unwrap();
    let findings = fs::read(&json).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let findings: Vec<Value> = serde_json::from_slice(&findings).unwrap();
    let text = |finding: &Value, member: &str| finding[member].as_str().unwrap().to_owned();
    // It has got through, and to us.
    let tls13 = findings.iter().find(|it| it["id"] == "TLS1_3").unwrap();
    assert_eq!(text(tls13, "severity"), "OK", "{tls13}");
    let bad: Vec<String> = findings
        .iter()
        .filter(|it| !HARMLESS.contains(&&*text(it, "severity")))
        .filter(|it| !KNOWN.iter().any(|(id, _)| *id == text(it, "id")))
        .map(|it| {
            format!(
                "{} {}: {}",
                text(it, "severity"),
                text(it, "id"),
                text(it, "finding")
            )
        })
        .collect();
    assert!(
        bad.is_empty(),
        "{} findings:\n{}\n{}",
        bad.len(),
        bad.join("\n"),
        ended.stdout
    );
    assert!(findings.len() > 20, "{findings:?}");
}
