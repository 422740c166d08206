//! `/v1/x/events` and `/v1/audit` over the wire: who comes back goes on where it was, an account sees
//! its own, and who does not read is cut off.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lbagent_tests::agent::{API, Agent, Config, START};
use lbagent_tests::http::Request;
use lbagent_tests::poll::{poll_until, retry};
use lbagent_tests::topology::{Shape, Topology};
use lbagent_tests::{ctl, require_root};
use serde_json::{Value, json};

/// An open stream of events.
struct Stream {
    lines: BufReader<TcpStream>,
    local: SocketAddr,
}

/// One event: its name, its id, its data.
type Told = (String, Option<u64>, Value);

impl Stream {
    /// HTTP/1.0, whose answers are not cut into chunks: lines are lines.
    fn open(agent: &Agent, path: &str, token: &str, last: Option<u64>) -> Result<Self> {
        let connect = || TcpStream::connect(API);
        let mut stream = agent.on_host(connect)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let last = last.map_or(String::new(), |last| format!("last-event-id: {last}\r\n"));
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nhost: {API}\r\nauthorization: Bearer {token}\r\n{last}\r\n"
        )?;
        let local = stream.local_addr()?;
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "{path}: {line}");
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line)?;
        }
        Ok(Self { lines, local })
    }

    fn next(&mut self) -> Result<Told> {
        let (mut name, mut id, mut data) = (String::new(), None, Value::Null);
        loop {
            let mut line = String::new();
            ensure!(self.lines.read_line(&mut line)? > 0, "the stream ended");
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => name = text.to_owned(),
                Some(("id", text)) => id = Some(text.parse()?),
                Some(("data", text)) => data = serde_json::from_str(text)?,
                None if line == "\n" && !data.is_null() => return Ok((name, id, data)),
                // A comment, and the empty line behind it.
                _ => {}
            }
        }
    }

    /// The next event but those that tell what the data plane has: its id and what it is about.
    fn change(&mut self) -> (Option<u64>, String) {
        loop {
            let (name, id, data) = self.next().unwrap();
            if name != "applied" {
                let object = data["name"].as_str().unwrap_or_default();
                return (id, format!("{name} {object}"));
            }
        }
    }
}

/// A daemon that lets nobody in without a token, and a token of an operator.
fn start(topology: &Topology) -> (Agent, String) {
    let mut config = Config::new(topology);
    config.api.clear();
    let mut agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
    agent.spawn().unwrap();
    let token = retry("the Unix socket", START, || {
        ctl::succeed(
            &topology.gateway,
            &["token", "create", "--role", "operator"],
        )
    });
    (agent, token.unwrap().trim().to_owned())
}

fn ask(agent: &Agent, token: &str, method: &str, path: &str, body: Value) -> Value {
    let request = Request {
        method,
        path,
        token: Some(token),
        body: Some(body.to_string()),
    };
    let answer = agent.send(&request).unwrap();
    let json = answer.json().unwrap();
    assert_eq!(json["status"], "success", "{method} {path}: {json}");
    json["data"].clone()
}

fn group(name: &str, port: u16) -> Value {
    let service = json!({"port": port, "protocol": "tcp", "handlers": []});
    json!({"name": name, "services": [service]})
}

#[test]
fn who_comes_back_goes_on_where_it_was() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let (mut agent, token) = start(&topology);
    let make = |agent: &Agent, name: &str, port| {
        ask(agent, &token, "POST", "/v1/services", group(name, port));
    };
    let path = "/v1/x/events?kind=service_group";
    let mut stream = Stream::open(&agent, path, &token, None).unwrap();
    make(&agent, "a", 1);
    let (last, told) = stream.change();
    assert_eq!(told, "created a");
    drop(stream);
    make(&agent, "b", 2);
    make(&agent, "c", 3);
    let mut stream = Stream::open(&agent, path, &token, last).unwrap();
    let next = last.map(|last| last + 1);
    assert_eq!(stream.change(), (next, "created b".into()));
    let (last, told) = stream.change();
    assert_eq!(told, "created c");
    // The audit's stream in the same way.
    let instance = json!({"name": "i", "network_interfaces": [{"ip": "10.66.0.11/32"}]});
    ask(&agent, &token, "POST", "/v1/instances", instance);
    ask(
        &agent,
        &token,
        "PUT",
        "/v1/instances/start",
        json!({"name": "i"}),
    );
    let mut audit = Stream::open(&agent, "/v1/audit", &token, last).unwrap();
    let (_, id, data) = audit.next().unwrap();
    assert_eq!(
        (id, &data["data"]["new"]),
        (last.map(|last| last + 1), &json!("stopped"))
    );
    drop(audit);
    let mut audit = Stream::open(&agent, "/v1/audit", &token, id).unwrap();
    assert_eq!(audit.next().unwrap().2["data"]["new"], "running");
    // Another life of the agent does not remember: whoever comes back is told to read anew.
    agent.kill().unwrap();
    for ended in [&mut stream, &mut audit] {
        while ended.next().is_ok() {}
    }
    agent.spawn().unwrap();
    let mut stream = retry("the API", START, || {
        Stream::open(&agent, path, &token, last)
    })
    .unwrap();
    let (name, id, gap) = loop {
        let told = stream.next().unwrap();
        if told.0 != "applied" {
            break told;
        }
    };
    assert_eq!(
        (name.as_str(), &gap["from"]),
        ("gap", &json!(last.unwrap() + 1))
    );
    assert_eq!(id, gap["next"].as_u64().map(|next| next - 1));
    make(&agent, "d", 4);
    assert_eq!(stream.change().1, "created d");
}

#[test]
fn an_account_is_told_its_own() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let (agent, operator) = start(&topology);
    let accounts = ["a", "b"].map(|name| {
        let made = ask(
            &agent,
            &operator,
            "POST",
            "/v1/x/accounts",
            json!({"name": name}),
        );
        let new = json!({"role": "member", "account": name, "label": format!("ci-{name}")});
        let token = ask(&agent, &operator, "POST", "/v1/x/tokens", new);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["accounts"][0]["uuid"]), text(&token["secret"]))
    });
    let [(a_uuid, a), (b_uuid, b)] = &accounts;
    let open = |path: &str, token: &str| Stream::open(&agent, path, token, None).unwrap();
    let mut streams = [open("/v1/x/events", a), open("/v1/x/events", b)];
    let mut audits = [open("/v1/audit", a), open("/v1/audit", b)];
    let mut access = open("/v1/x/events?kind=account,token", &operator);
    // By turns, and a change of accounts in between: what one account is not told would come first.
    let quotas = json!({"quotas": {"raw_ports": 9}});
    let path = format!("/v1/x/accounts/{a_uuid}/quotas");
    for (round, (token, name)) in [(b, "of-b"), (a, "of-a"), (b, "b2"), (a, "a2")]
        .iter()
        .enumerate()
    {
        ask(
            &agent,
            &operator,
            "PUT",
            &path,
            json!({"quotas": {"raw_ports": 20 + round}}),
        );
        ask(
            &agent,
            token,
            "POST",
            "/v1/services",
            group(name, 100 + round as u16),
        );
        let address = format!("10.66.0.{}", 50 + round);
        let instance = json!({"name": name, "network_interfaces": [{"ip": address}]});
        ask(&agent, token, "POST", "/v1/instances", instance);
    }
    ask(&agent, &operator, "PUT", &path, quotas);
    let everything = format!("/v1/x/events?kind=instance&account={a_uuid}");
    let mut everything = open(&everything, &operator);
    let start = ["--account", "a", "instance", "start", "a2"];
    ctl::succeed(&topology.gateway, &start).unwrap();
    for (stream, names) in streams.iter_mut().zip([["of-a", "a2"], ["of-b", "b2"]]) {
        for name in names {
            for _ in ["the group", "the instance"] {
                let (name_of_event, _, data) = stream.next().unwrap();
                assert_eq!(
                    (name_of_event.as_str(), &data["name"]),
                    ("created", &json!(name))
                );
                let own = format!("ci-{}", if names[0] == "of-a" { "a" } else { "b" });
                assert_eq!(data["by"]["label"], own, "{data}");
            }
        }
    }
    // Of an operator an account is told that it was one; operators are told which.
    let (_, _, data) = streams[0].next().unwrap();
    assert_eq!(
        (&data["name"], &data["by"]),
        (&json!("a2"), &json!({"kind": "operator"}))
    );
    let user = json!({"kind": "user", "uid": 0});
    let data = loop {
        let (name, _, data) = everything.next().unwrap();
        if name != "applied" {
            break data;
        }
    };
    assert_eq!((&data["name"], &data["by"]), (&json!("a2"), &user));
    for (audit, account) in audits.iter_mut().zip([a_uuid, b_uuid]) {
        for _ in 0..2 {
            let (name, _, data) = audit.next().unwrap();
            assert_eq!(name, "vm.state_change", "{data}");
            assert_eq!(&data["object"]["owner"], account, "{data}");
            assert_eq!(&data["x.by"]["account"], account, "{data}");
        }
    }
    for _ in 0..5 {
        assert_eq!(access.change().1, "changed a");
    }
    // Asked for by name it is refused.
    let foreign = format!("/v1/x/events?account={a_uuid}");
    let refused = Stream::open(&agent, &foreign, b, None).err().unwrap();
    assert!(refused.to_string().contains(" 403 "), "{refused}");
    assert!(Stream::open(&agent, &foreign, &operator, None).is_ok());
}

/// Whether the agent holds a connection with a client's address, by the host's table of sockets.
fn is_held(topology: &Topology, client: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let table = topology
        .gateway
        .run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
    let port = format!(":{:04X}", client.port());
    table.unwrap().lines().any(|line| {
        let mut words = line.split_whitespace().skip(2);
        let remote = words.next().is_some_and(|remote| remote.ends_with(&port));
        remote && words.next() == Some(ESTABLISHED)
    })
}

#[test]
fn who_does_not_read_is_cut_off() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let (agent, token) = start(&topology);
    let open = |path: &str| Stream::open(&agent, path, &token, None).unwrap();
    // Both streams tell of what happens; one client reads, two don't.
    let mut reads = open("/v1/x/events?kind=certificate");
    let idle = [open("/v1/x/events"), open("/v1/audit")];
    let names: Vec<String> = (0..1000).map(|number| format!("i{number}")).collect();
    let instances: Vec<Value> = (names.iter().enumerate())
        .map(|(number, name)| {
            let address = format!("10.67.{}.{}", number / 250, 1 + number % 250);
            json!({"name": name, "network_interfaces": [{"ip": address}]})
        })
        .collect();
    let all: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    ask(&agent, &token, "POST", "/v1/instances", json!(instances));
    // A thousand changes each, more than the sockets of both sides hold.
    poll_until(
        "the idle ones to be cut off",
        Duration::from_secs(90),
        || {
            let held = idle.iter().any(|stream| is_held(&topology, stream.local));
            if held {
                ask(&agent, &token, "PUT", "/v1/instances/start", json!(all));
                ask(&agent, &token, "PUT", "/v1/instances/stop", json!(all));
            }
            !held
        },
    )
    .unwrap();
    assert!(
        is_held(&topology, reads.local),
        "one that waits was cut off too"
    );
    let made = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).unwrap();
    let certificate = json!({"name": "a", "common_name": "a.example.com", "chain": made.cert.pem(),
                             "pkey": made.signing_key.serialize_pem()});
    ask(&agent, &token, "POST", "/v1/certificates", certificate);
    let told = reads.next().context("the certificate").map(|told| told.0);
    assert!(matches!(told.unwrap().as_str(), "created" | "applied"));
}
