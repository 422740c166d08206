//! A real browser that is given a bare name.
//!
//! Chromium's headless shell takes the address as somebody's bare `web.lb.internal` becomes by default:
//! `http://web.lb.internal/`, port 80. (It has none of the desktop browser's trials of HTTPS first, which
//! never come to port 80.) Its flags have to do with this test's machine, not with what is asked: it is
//! root and so has no sandbox, its directories are the test's, and the authority is in a database there.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result};
use lbagent_tests::poll::poll_for;
use lbagent_tests::redirect_site::{Site, succeed};
use lbagent_tests::topology::VIPS;
use lbagent_tests::web::PATIENCE;
use lbagent_tests::{require_root, skip};
use tempfile::TempDir;

use crate::redirect::{any, ask};

/// Debian's package of this name has it; `cargo xtask test` installs it where there is one.
const BROWSER: &str = "chromium-headless-shell";
/// Of the package libnss3-tools.
const TRUST: &str = "certutil";

fn is_installed(program: &str) -> bool {
    let tried = Command::new("which").arg(program).output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// A home whose owner trusts the gateway's authority.
fn home(site: &Site) -> Result<TempDir> {
    let home = tempfile::tempdir()?;
    let database = home.path().join(".pki/nssdb");
    std::fs::create_dir_all(&database)?;
    let database = format!("sql:{}", database.display());
    let trust = |options: &[&str]| {
        let mut command = Command::new(TRUST);
        succeed(command.args(["-d", &database]).args(options))
    };
    trust(&["-N", "--empty-password"])?;
    let file = site.browser.authority_path().to_str().context("a path")?;
    trust(&["-A", "-t", "C,,", "-n", "gateway", "-i", file])?;
    Ok(home)
}

/// The page's document once it has loaded.
fn open(site: &Site, home: &TempDir, vip: IpAddr, address: &str) -> Result<String> {
    let mut browser = site.client_command(vip, "timeout")?;
    browser.args(["300", BROWSER, "--no-sandbox", "--dump-dom", address]);
    succeed(browser.env("HOME", home.path()))
}

/// How often lbterm has sent clients to HTTPS. It reports every second: what is told together with the
/// `nth` request without a host was before that one.
fn sent_by_terminator(site: &Site, vip: IpAddr, nth: u64) -> Result<u64> {
    ask(site, vip, &[b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"])?;
    poll_for("lbterm's report", PATIENCE, || {
        let told = site.gateway.agent.call("GET", "/v1/x/terminators", None);
        let counters = &told.ok()?["terminators"]["all"][0]["report"]["counters"];
        let count = |name: &str| counters[name].as_u64().unwrap_or(0);
        (count("host_missing") == nth).then(|| count("redirected"))
    })
}

#[test]
fn a_browser_that_is_given_a_bare_name_comes_to_the_page_by_https() {
    require_root!();
    for program in [BROWSER, TRUST] {
        if !is_installed(program) {
            skip!("lacks {program}: only Debian has it as a package");
        }
    }
    let site = Site::start(any).unwrap();
    let home = home(&site).unwrap();
    let clients = site.gateway.topology.client_addresses;
    for ((vip, client), nth) in VIPS.into_iter().zip(clients).zip([1, 3]) {
        let sent = sent_by_terminator(&site, vip, nth).unwrap();
        let redirects = site.redirects().unwrap();
        let page = open(&site, &home, vip, "http://web.lb.internal/").unwrap();
        // What the instance was told: https, and by whom.
        assert!(
            page.contains(&format!("b1 for {client} by https")),
            "{vip}: {page}"
        );
        assert!(site.redirects().unwrap() > redirects, "{vip}");
        assert_eq!(
            sent_by_terminator(&site, vip, nth + 1).unwrap(),
            sent,
            "{vip}"
        );
    }
}
