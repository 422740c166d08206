//! `lbctl … -w` against the real daemon.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use lbagent_tests::agent::API;
use lbagent_tests::ctl;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;

use crate::desk::{Desk, WEB};

/// A running `lbctl … -w`, whose output is kept; ended when dropped.
struct Watch {
    files: PathBuf,
    lbctl: Child,
}

impl Watch {
    fn start(desk: &Desk, option: &str) -> Self {
        let line = format!("instance ls {option} -f name,state --sort name");
        let arguments: Vec<&str> = line.split(' ').collect();
        let file = |name| File::create(desk.path(name)).unwrap();
        let lbctl = ctl::command(&desk.gateway.topology.gateway, &arguments)
            .stdout(file("watched"))
            .stderr(file("told"))
            .stdin(Stdio::null())
            .spawn();
        Self {
            files: desk.path(""),
            lbctl: lbctl.unwrap(),
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.files.join(name)).unwrap()
    }

    /// Waits until the last table shows these states.
    #[track_caller]
    fn shows(&self, states: [&str; 2]) {
        let [b1, b2] = states;
        let table = format!("NAME  STATE\nb1    {b1}\nb2    {b2}\n");
        let what = format!("{states:?} to be shown");
        if poll_until(&what, SOON, || self.read("watched").ends_with(&table)).is_err() {
            panic!("{what}: {}{}", self.read("watched"), self.read("told"));
        }
    }

    fn tables(&self) -> usize {
        self.read("watched").matches("NAME").count()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.lbctl.kill();
        let _ = self.lbctl.wait();
    }
}

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    desk.check("apply -f web.yaml", 0);
    desk
}

#[test]
fn a_listing_follows_what_the_agent_tells() {
    require_root!();
    let mut desk = desk();
    let watch = Watch::start(&desk, "-w");
    watch.shows(["running", "running"]);
    desk.check("instance stop b2", 0);
    watch.shows(["running", "stopped"]);
    // What changes nothing of the listing is not shown again.
    desk.check("instance edit b1 --set policy.weight=7", 0);
    desk.check("instance start b2", 0);
    watch.shows(["running", "running"]);
    assert_eq!(watch.tables(), 3, "{}", watch.read("watched"));
    assert_eq!(watch.read("told"), "");

    // It outlives the agent, and sees at once what its next start brings.
    desk.gateway.agent.terminate().unwrap();
    let told = |text: &str| {
        let is_told = || watch.read("told").contains(text);
        poll_until(text, SOON, is_told).unwrap();
    };
    told("no agent answers");
    desk.gateway.agent.launch().unwrap();
    told("answers again");
    desk.check("instance stop b1", 0);
    watch.shows(["stopped", "running"]);
    assert_eq!(
        watch.read("told").lines().count(),
        3,
        "{}",
        watch.read("told")
    );
}

#[test]
fn an_agent_that_tells_nothing_is_asked() {
    require_root!();
    let desk = desk();
    // All places of event streams are taken.
    let open = || {
        let mut stream = TcpStream::connect(API).unwrap();
        write!(stream, "GET /v1/x/events HTTP/1.1\r\nhost: {API}\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (status == *b"HTTP/1.1 200").then_some(stream)
    };
    let all = || std::iter::from_fn(open).collect::<Vec<_>>();
    let streams = desk.gateway.topology.gateway.run(all);
    assert!(!streams.is_empty());
    let watch = Watch::start(&desk, "-w");
    watch.shows(["running", "running"]);
    let told = watch.read("told");
    assert!(told.contains("asking it every 2s instead"), "{told}");
    desk.check("instance stop b2", 0);
    watch.shows(["running", "stopped"]);
}

#[test]
fn an_interval_is_kept_without_events() {
    require_root!();
    let desk = desk();
    let watch = Watch::start(&desk, "-w=50ms");
    watch.shows(["running", "running"]);
    desk.check("instance stop b2", 0);
    watch.shows(["running", "stopped"]);
    assert_eq!(watch.tables(), 2, "{}", watch.read("watched"));
}

#[test]
fn nothing_is_watched_without_an_agent() {
    require_root!();
    let mut desk = Desk::new();
    desk.gateway.agent.terminate().unwrap();
    desk.check("instance ls -w", 3);
    desk.check("show -w", 3);
}

#[test]
fn events_tell_what_was_changed() {
    require_root!();
    let desk = desk();
    let told = desk.check("events --since 1h --kind instance --count 2", 0);
    let ends = [
        "created instance 'b1' by uid 0",
        "created instance 'b2' by uid 0",
    ];
    assert_eq!(told.lines().count(), 2, "{told}");
    for (line, end) in told.lines().zip(ends) {
        assert!(line.ends_with(end), "{told}");
    }

    // Of an account that is named, its own alone.
    desk.check("account create shop", 0);
    desk.check("--account shop service create -n theirs 9000:80/tcp", 0);
    let told = desk.check(
        "--account shop events --from 1 --kind service_group --count 1 -o json",
        0,
    );
    assert!(told.contains(r#""name":"theirs""#), "{told}");
    let (code, _, told) = desk.run("events --from 999");
    assert!(told.contains("Generation 999 does not exist yet"), "{told}");
    assert_eq!(code, 1, "{told}");
    desk.check("events --kind vm", 2);
}

/// Nothing comes any more that would show it that its reader is gone.
#[test]
fn a_reader_that_has_seen_enough_ends_events() {
    require_root!();
    let desk = desk();
    let lbctl = ctl::command(&desk.gateway.topology.gateway, &[]);
    let mut shell = desk.gateway.topology.gateway.command("sh");
    let script = "{ timeout 30 \"$0\" events --since 1h; echo \"ended with $?\" >&2; } | head -n 1";
    let output = shell
        .args(["-c", script])
        .arg(lbctl.get_program())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stderr), "ended with 0\n");
    let line = text(&output.stdout);
    assert!(line.contains(" created "), "{line}");
}
