//! Redirects that are answered before the kernel has seen the client, those that are left to the
//! terminator, and the way from one to the other: real clients, with the real lbterm behind.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use lbagent_api::status::SynShieldMode;
use lbagent_tests::agent::{CONFIG_PATH, Config};
use lbagent_tests::kernel::retransmitted;
use lbagent_tests::lossy_wire::{Faults, LossyWire};
use lbagent_tests::poll::poll_until;
use lbagent_tests::redirect_site::{Site, succeed};
use lbagent_tests::require_root;
use lbagent_tests::slowness::{patience, repetitions, scale};
use lbagent_tests::topology::{Shape, VIP4, VIPS};
use lbagent_tests::web::{PATIENCE, terminator};

const LOCATION: &str = "location: https://web.lb.internal";

/// As long as a browser's: a frame on a veth has little room behind it, so an answer that is longer than
/// its request may have to be the terminator's, whose connection curl then keeps.
const AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0";

pub(crate) fn any(_: &mut Config) {}

/// What the redirects of a number of paths end at, by one curl.
pub(crate) fn follow(
    site: &Site,
    vip: IpAddr,
    paths: u32,
    options: &[&str],
) -> BTreeSet<(String, String)> {
    let url = format!("http://web.lb.internal/echo/[1-{paths}]?a=b%20c&d=[1-1]");
    let told = "\n%{num_redirects} %{url_effective}\n";
    let ours = [
        "--location",
        "--fail",
        "--user-agent",
        AGENT,
        "--write-out",
        told,
    ];
    let options = [&ours[..], options].concat();
    let (is_content, text) = site.browser.get(vip, &url, &options).unwrap();
    assert!(is_content, "{vip}: {text}");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let pairs = lines.chunks(2);
    pairs
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
        .collect()
}

pub(crate) fn pages(paths: u32) -> BTreeSet<(String, String)> {
    let page = |number| format!("/echo/{number}?a=b%20c&d=1");
    (1..=paths)
        .map(|number| {
            (
                page(number),
                format!("1 https://web.lb.internal{}", page(number)),
            )
        })
        .collect()
}

/// Everything that the VIP's port 80 answers to what is written piece by piece, each in a segment of
/// its own.
pub(crate) fn ask(site: &Site, vip: IpAddr, pieces: &[&[u8]]) -> Result<String> {
    site.gateway.topology.client.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(vip, 80), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for piece in pieces {
            stream.write_all(piece)?;
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("the answer")?;
        Ok(String::from_utf8(answer)?.to_lowercase())
    })
}

#[track_caller]
pub(crate) fn assert_redirected(answer: &str, target: &str) {
    assert!(answer.starts_with("http/1.1 308 "), "{answer}");
    assert!(
        answer.contains(&format!("{LOCATION}{target}\r\n")),
        "{answer}"
    );
}

#[test]
fn a_thousand_of_a_thousand_clients_come_to_the_right_page() {
    const PATHS: u32 = 1_000;
    require_root!();
    let site = Site::start(any).unwrap();
    for vip in VIPS {
        let paths = repetitions(PATHS);
        let client = &site.gateway.topology.client;
        let before = (site.redirects().unwrap(), site.passed("segmented").unwrap());
        let sent_again = retransmitted(client);
        assert_eq!(follow(&site, vip, paths, &[]), pages(paths), "{vip}");
        // A request that was answered late is sent again, and answered again.
        let least = u64::from(paths);
        let most = least + retransmitted(client) - sent_again;
        let redirects = site.redirects().unwrap() - before.0;
        assert!((least..=most).contains(&redirects), "{vip}: {redirects}");
        assert_eq!(site.passed("segmented").unwrap(), before.1);
    }
}

#[test]
fn other_clients_come_there_too() {
    require_root!();
    let site = Site::start(any).unwrap();
    let authority = site.browser.authority_file().to_str().unwrap();
    let url = "http://web.lb.internal/echo/x?y=z";
    // As a browser: the answer's connection is left alone, and the target is asked on a new one.
    let python = "import http.client, ssl, sys, urllib.parse\n\
        first = http.client.HTTPConnection('web.lb.internal', timeout=20)\n\
        first.request('GET', '/echo/x?y=z')\n\
        answer = first.getresponse()\n\
        assert answer.status == 308 and answer.read() == b'', answer.status\n\
        to = urllib.parse.urlsplit(answer.getheader('Location'))\n\
        context = ssl.create_default_context(cafile=sys.argv[1])\n\
        second = http.client.HTTPSConnection(to.hostname, timeout=20, context=context)\n\
        second.request('GET', to.path + '?' + to.query)\n\
        print(second.getresponse().read().decode(), end='')";
    for vip in VIPS {
        let before = site.redirects().unwrap();
        let mut wget = site.client_command(vip, "wget").unwrap();
        let authority_option = format!("--ca-certificate={authority}");
        wget.args([
            "-q",
            "-O",
            "-",
            "--tries=1",
            "--timeout=20",
            &authority_option,
            url,
        ]);
        assert_eq!(succeed(&mut wget).unwrap(), "/echo/x?y=z", "wget by {vip}");
        let mut client = site.client_command(vip, "python3").unwrap();
        let client = client.args(["-c", python, authority]);
        assert_eq!(succeed(client).unwrap(), "/echo/x?y=z", "Python by {vip}");
        // Python's request is short.
        assert!(site.redirects().unwrap() > before, "{vip}");
    }
}

#[test]
fn what_is_unusual_gets_the_same_answer_from_the_terminator() {
    require_root!();
    let site = Site::start(any).unwrap();
    let request = b"GET /a?b=c HTTP/1.1\r\nHost: web.lb.internal\r\nConnection: close\r\n\r\n";
    for vip in VIPS {
        let before = site.redirects().unwrap();
        // Byte by byte; and in two, within the name of the host.
        let bytes: Vec<&[u8]> = request.chunks(1).collect();
        assert_redirected(&ask(&site, vip, &bytes).unwrap(), "/a?b=c");
        let (first, second) = request.split_at(29);
        assert_redirected(&ask(&site, vip, &[first, second]).unwrap(), "/a?b=c");
        let post = b"POST /a HTTP/1.1\r\nHost: web.lb.internal\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
        assert_redirected(&ask(&site, vip, &[post]).unwrap(), "/a");
        let other = b"GET / HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n";
        let answer = ask(&site, vip, &[other]).unwrap();
        assert!(!answer.contains("location:"), "{answer}");
        let answer = ask(
            &site,
            vip,
            &[b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"],
        )
        .unwrap();
        assert!(answer.starts_with("http/1.1 400 "), "{answer}");
        assert_eq!(site.redirects().unwrap(), before, "{vip}");
        // Answered by close, as HTTP/1.1 allows: the second request is nobody's.
        let pipelined = [
            &request[..],
            b"GET /second HTTP/1.1\r\nHost: web.lb.internal\r\n\r\n",
        ];
        let answer = ask(&site, vip, &[&pipelined.concat()]).unwrap();
        assert_redirected(&answer, "/a?b=c");
        let answer = ask(&site, vip, &pipelined).unwrap();
        assert_redirected(&answer, "/a?b=c");
    }
    for reason in ["segmented", "other_method", "unknown_host", "odd_host"] {
        assert!(site.passed(reason).unwrap() >= 2, "{reason}");
    }
}

#[test]
fn loss_and_reordering_cost_time_and_nothing_else() {
    require_root!();
    // Now and then a segment is lost seven times in a row, and its sender waits for minutes.
    let (lost, paths) = scale((10, 12_u32), (20, 100));
    // Redirects are answered there before the wire is a bad one.
    let site = Site::start_on(Shape::OneArmed, any).unwrap();
    site.wait_for_cookies().unwrap();
    let faults = Faults { lost, held: 20 };
    let wire = LossyWire::insert(&site.gateway.topology, faults).unwrap();
    for vip in VIPS {
        let before = site.redirects().unwrap();
        let out = tempfile::tempdir().unwrap();
        let file = format!("{}/#1", out.path().display());
        let url = format!("http://web.lb.internal/echo/[1-{paths}]");
        let options = [
            &["--location", "--fail", "--parallel", "--parallel-max", "40"][..],
            &[
                "--user-agent",
                AGENT,
                "--no-progress-meter",
                "--max-time",
                "300",
                "--output",
                &file,
            ],
        ];
        let (is_content, text) = site.browser.get(vip, &url, &options.concat()).unwrap();
        assert!(is_content, "{vip}: {text}");
        for number in 1..=paths {
            let page = std::fs::read_to_string(out.path().join(number.to_string())).unwrap();
            assert_eq!(page, format!("/echo/{number}"), "{vip}");
        }
        let redirects = site.redirects().unwrap() - before;
        assert!(
            redirects * 4 > u64::from(paths),
            "{redirects} at the NIC by {vip}"
        );
    }
    let [segments, dropped, overtaken] = [
        &wire.counts.segments,
        &wire.counts.lost,
        &wire.counts.overtaken,
    ]
    .map(|count| count.load(Ordering::Relaxed));
    assert!(
        dropped * 20 > segments && overtaken > 0,
        "{:?}",
        wire.counts
    );
    println!("of {segments} segments {dropped} were lost and {overtaken} overtaken");
}

#[test]
fn cookies_are_good_from_the_start_and_across_restarts_of_the_terminator() {
    require_root!();
    let mut site = Site::start(any).unwrap();
    let request: [&[u8]; 2] = [
        b"GET /a HT",
        b"TP/1.1\r\nHost: web.lb.internal\r\nConnection: close\r\n\r\n",
    ];
    assert_eq!(site.sysctl("net/ipv4/tcp_syncookies").unwrap(), "2");
    // What passes up is what the kernel has to complete from a cookie.
    for round in 0..3 {
        for vip in VIPS {
            let before = site.gateway.agent.outcome("answer_cookie").unwrap();
            assert_redirected(&ask(&site, vip, &request).unwrap(), "/a");
            let answered = site.gateway.agent.outcome("answer_cookie").unwrap() - before;
            assert!(answered > 0, "round {round}, {vip}");
        }
        // First with its sockets kept for the successor, then with new ones.
        site.terminator = None;
        if round == 1 {
            let is_gone = || {
                let reasons = site.gateway.agent.condition_reasons().unwrap();
                reasons.iter().any(|reason| reason == "no_terminator")
            };
            poll_until("the sockets' end", PATIENCE, is_gone).unwrap();
            let refused = ask(&site, VIP4, &request).unwrap_err();
            assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
        }
        site.terminator = Some(terminator(&site.gateway.topology.gateway).unwrap());
        site.wait_for_cookies().unwrap();
    }
}

#[test]
fn the_kernels_setting_is_kept_and_given_back() {
    const NAME: &str = "net/ipv4/tcp_syncookies";
    require_root!();
    let mut site = Site::start(any).unwrap();
    let set = |site: &Site, value: &str| {
        let gateway = &site.gateway.topology.gateway;
        gateway
            .run(|| lbagent_tests::netns::set_sysctl(NAME, value))
            .unwrap();
    };
    set(&site, "1");
    let is_kept = || site.sysctl(NAME).unwrap() == "2";
    poll_until("the setting", patience(Duration::from_secs(40)), is_kept).unwrap();
    site.gateway.agent.terminate().unwrap();
    let detached = site
        .gateway
        .agent
        .run(&["detach", "--config", CONFIG_PATH])
        .unwrap();
    assert_eq!(detached.code, 0, "{detached:?}");
    assert_eq!(site.sysctl(NAME).unwrap(), "1", "{detached:?}");
}

#[test]
fn what_is_switched_off_is_left_to_the_terminator() {
    require_root!();
    let site = Site::start_on(Shape::Routed, |config| {
        config.redirect.insert("at_nic", "off");
        config.syn_shield.insert("mode", "off".into());
    })
    .unwrap();
    for vip in VIPS {
        assert_eq!(follow(&site, vip, 20, &[]), pages(20), "{vip}");
    }
    assert_eq!(site.redirects().unwrap(), 0);
    assert_eq!(site.gateway.agent.outcome("answer_cookie").unwrap(), 0);
    assert_eq!(site.sysctl("net/ipv4/tcp_syncookies").unwrap(), "1");
}

#[test]
fn a_link_that_may_swallow_answers_is_left_to_the_kernel_and_told() {
    require_root!();
    let site = Site::start_on(Shape::Routed, |config| {
        config.redirect.clear();
    })
    .unwrap();
    for vip in VIPS {
        assert_eq!(follow(&site, vip, 5, &[]), pages(5), "{vip}");
    }
    assert_eq!(site.gateway.agent.outcome("answer_cookie").unwrap(), 0);
    let is_told = || {
        let reasons = site.gateway.agent.condition_reasons().unwrap();
        reasons.iter().any(|it| it == "no_syn_cookies")
    };
    poll_until("the status to say why", PATIENCE, is_told).unwrap();
    let shield = site.gateway.agent.status().unwrap().syn_shield;
    assert_eq!(shield.mode, SynShieldMode::Off);
    let reason = shield.reason.expect("the shield's reason");
    assert!(reason.contains("is a veth"), "{reason}");
}
