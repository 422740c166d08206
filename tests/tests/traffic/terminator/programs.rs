//! Clients that others have written.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use lbagent_tests::agent::Ended;
use lbagent_tests::require_root;
use lbagent_tests::site::{NAME, ORIGIN_PORT, Site, https};
use lbagent_tests::topology::{VIP4, VIP6, VIPS};
use serde_json::json;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: web.lb.internal\r\nConnection: close\r\n\r\n";

/// `[2001:db8::10]` or `192.0.2.10`, as URLs have it.
fn in_url(vip: IpAddr) -> String {
    let with_port = SocketAddr::new(vip, 0).to_string();
    with_port.trim_end_matches(":0").to_owned()
}

/// The number before a word, as in `200 succeeded`.
#[track_caller]
fn count(text: &str, word: &str) -> u64 {
    let words: Vec<&str> = text.split([' ', ',', '\n']).collect();
    let pair = words.windows(2).find(|pair| pair[1] == word);
    let number = pair.and_then(|pair| pair[0].parse().ok());
    number.unwrap_or_else(|| panic!("nothing is {word} in {text}"))
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let ended = Ended::of(command).unwrap();
    assert_eq!(ended.code, 0, "{command:?}: {ended:?}");
    ended.stdout
}

#[test]
fn nghttp_h2load_and_wrk_are_served() {
    const REQUESTS: u64 = 300;
    require_root!();
    let site = Site::start().unwrap();
    let client = &site.gateway.topology.client;
    for (vip, address) in VIPS.into_iter().zip(site.gateway.topology.client_addresses) {
        let to = site.wait_for(vip).unwrap();
        let host = in_url(vip);

        let mut nghttp = client.command("nghttp");
        nghttp.args(["--no-dep", "-m", "20"]);
        nghttp.arg(format!("--header=:authority: {NAME}"));
        let text = succeed(nghttp.arg(format!("https://{host}/")));
        let answer = format!(" for {address} by https");
        assert_eq!(text.matches(&answer).count(), 20, "{text}");

        for protocol in [&[][..], &["--h1"]] {
            let mut h2load = client.command("h2load");
            h2load.args(["-n", &REQUESTS.to_string(), "-c", "6", "-m", "10"]);
            h2load.args(protocol);
            h2load.arg(format!("--connect-to={to}"));
            let text = succeed(h2load.arg(format!("https://{NAME}/")));
            assert_eq!(count(&text, "succeeded"), REQUESTS, "{protocol:?}: {text}");
            assert_eq!(count(&text, "2xx"), REQUESTS, "{protocol:?}: {text}");
        }

        for scheme in ["https", "http"] {
            let mut wrk = client.command("wrk");
            wrk.args(["-t", "1", "-c", "8", "-d", "1s"]);
            wrk.args(["-H", &format!("Host: {NAME}")]);
            let text = succeed(wrk.arg(format!("{scheme}://{host}/")));
            assert!(!text.contains("Non-2xx"), "{scheme}: {text}");
            assert!(!text.contains("Socket errors"), "{scheme}: {text}");
            assert!(count(&text, "requests") > 50, "{scheme}: {text}");
        }
    }
}

/// `openssl s_client` on the client, which asks for `/` and waits for the end.
fn openssl(site: &Site, vip: IpAddr, port: u16, options: &[&str]) -> Ended {
    let mut openssl = site.gateway.topology.client.command("openssl");
    openssl
        .args(["s_client", "-ign_eof", "-verify_return_error", "-CAfile"])
        .arg(site.browser.authority_path())
        .args(["-connect", &SocketAddr::new(vip, port).to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = openssl.spawn().unwrap();
    let stdin = child.stdin.take();
    // It may have given up already.
    let _ = stdin.unwrap().write_all(REQUEST.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn openssl_agrees_on_versions_names_and_sessions() {
    require_root!();
    let tls = json!({ "port": 7443, "destination_port": ORIGIN_PORT, "handlers": ["tls"] });
    let site = Site::start_with(2, |_| {}, &[https(443), tls]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let named = ["-servername", NAME];
    for (vip, address) in [VIP4, VIP6]
        .into_iter()
        .zip(site.gateway.topology.client_addresses)
    {
        site.wait_for(vip).unwrap();
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let session = directory.path().join(format!("{version}-{address}"));
            let session = session.to_str().unwrap();
            let first = [option, "-sess_out", session];
            let again = [option, "-sess_in", session];
            for (options, kind) in [(first, "New"), (again, "Reused")] {
                let ended = openssl(&site, vip, 443, &[&named[..], &options].concat());
                let said = &ended.stdout;
                assert!(said.contains(&format!("{kind}, {version}")), "{ended:?}");
                assert!(said.contains("Verify return code: 0 (ok)"), "{ended:?}");
                let answer = format!(" for {address} by https");
                assert!(said.contains(&answer), "{option}: {ended:?}");
            }
        }
        // RFC 8446, section 4.4.2.2: without a name, whatever certificate the server likes.
        let ended = openssl(&site, vip, 443, &["-noservername"]);
        assert!(ended.stdout.contains("by https"), "{ended:?}");
        let refusals = [
            (
                443,
                &["-servername", "nobody.example"][..],
                "alert number 112",
            ),
            (
                7443,
                &["-servername", "nobody.lb.internal"],
                "alert number 112",
            ),
            (
                443,
                &[
                    "-servername",
                    NAME,
                    "-tls1_1",
                    "-cipher",
                    "DEFAULT@SECLEVEL=0",
                ],
                "alert number 40",
            ),
        ];
        for (port, options, alert) in refusals {
            let ended = openssl(&site, vip, port, options);
            assert!(ended.stderr.contains(alert), "{options:?}: {ended:?}");
            assert_ne!(ended.code, 0, "{options:?}");
        }
        // With `tls` alone the instance gets the request as it is, so no header tells of anybody.
        let ended = openssl(&site, vip, 7443, &named);
        assert!(ended.stdout.contains(" for nobody by nobody"), "{ended:?}");
    }
}
