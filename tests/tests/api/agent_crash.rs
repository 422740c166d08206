//! The real daemon, killed at random moments under a load of writes: what it answered is there, what
//! it was asked for when it died is there whole or not at all, and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lbagent_tests::agent::{Agent, Config};
use lbagent_tests::poll::{SOON, keep_pace, poll_until};
use lbagent_tests::random::Random;
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;
use lbagent_tests::topology::{Shape, Topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const CLIENTS: usize = 3;
/// Changes that are answered in one life of the daemon, on the average.
const LOAD: usize = 20;
/// Objects of each kind that a client has at most.
const EACH: usize = 4;

/// Objects as clients know them, by kind and name.
type Objects = BTreeMap<String, Value>;

/// A request, and what there is of its object when it is done.
struct Write {
    request: (&'static str, String, Value),
    object: String,
    after: Option<Value>,
}

/// One client and its part of the objects.
struct Client {
    number: usize,
    chance: Random,
    objects: Objects,
    /// The write that got no answer.
    cut_off: Option<Write>,
    answered: usize,
    /// Chains and keys.
    pairs: Vec<(String, String)>,
}

impl Client {
    fn new(number: usize) -> Self {
        let pair = |_| {
            let names = vec!["a.example.com".to_owned()];
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        Self {
            number,
            chance: Random::new(number as u64 + 1),
            objects: Objects::new(),
            cut_off: None,
            answered: 0,
            pairs: (0..2).map(pair).collect(),
        }
    }

    fn next(&mut self) -> Write {
        let place = self.chance.below(EACH);
        let name = format!("c{}-{place}", self.number);
        let number = 10 * self.number + place;
        match self.chance.below(4) {
            0 => self.group(&name, 2000 + number),
            1 => self.instance(&name, number),
            2 => self.certificate(&name),
            _ => self.token(&name),
        }
    }

    fn group(&mut self, name: &str, port: usize) -> Write {
        let object = format!("group/{name}");
        let limit = 1 + self.chance.below(1000);
        let whole = |limit: usize| Some(json!({"port": port, "soft_limit": limit}));
        let by_name = json!({"name": name});
        let (request, after) = match (self.objects.get(&object), self.chance.below(2)) {
            (None, _) => {
                let service = json!({"port": port, "protocol": "tcp", "handlers": []});
                let body = json!({"name": name, "soft_limit": limit, "services": [service]});
                (("POST", body), whole(limit))
            }
            (Some(_), 0) => {
                let body = json!({"name": name, "prop": "soft_limit", "op": "set", "value": limit});
                (("PATCH", body), whole(limit))
            }
            (Some(_), _) => (("DELETE", by_name), None),
        };
        Write {
            request: (request.0, "/v1/services".into(), request.1),
            object,
            after,
        }
    }

    fn instance(&mut self, name: &str, host: usize) -> Write {
        let object = format!("instance/{name}");
        let by_name = json!({"name": name});
        let path = |rest: &str| format!("/v1/instances{rest}");
        let (method, path, body, after) = match (self.objects.get(&object), self.chance.below(2)) {
            (None, _) => {
                // With a group of its own, which comes and goes with it.
                let service = json!({"port": 3000 + host, "protocol": "tcp", "handlers": []});
                let body = json!({"name": name, "autostart": true,
                    "network_interfaces": [{"ip": format!("10.66.1.{}", 1 + host)}],
                    "service_group": {"services": [service]}});
                ("POST", path(""), body, Some(json!("running")))
            }
            (Some(_), 0) => ("DELETE", path(""), by_name, None),
            (Some(state), _) if state == "running" => {
                ("PUT", path("/stop"), by_name, Some(json!("stopped")))
            }
            (Some(_), _) => ("PUT", path("/start"), by_name, Some(json!("running"))),
        };
        Write {
            request: (method, path, body),
            object,
            after,
        }
    }

    fn certificate(&mut self, name: &str) -> Write {
        let object = format!("certificate/{name}");
        let which = self.chance.below(self.pairs.len());
        let (chain, pkey) = self.pairs[which].clone();
        let (method, body, after) = match (self.objects.get(&object), self.chance.below(2)) {
            (None, _) => {
                let body = json!({"name": name, "common_name": "a.example.com", "chain": chain,
                                  "pkey": pkey});
                ("POST", body, Some(json!(pkey)))
            }
            (Some(_), 0) => ("DELETE", json!({"name": name}), None),
            (Some(_), _) => {
                let body = json!({"name": name, "chain": chain, "pkey": pkey});
                ("PUT", body, Some(json!(pkey)))
            }
        };
        Write {
            request: (method, "/v1/certificates".into(), body),
            object,
            after,
        }
    }

    fn token(&mut self, name: &str) -> Write {
        let object = format!("token/{name}-{}", self.answered);
        Write {
            request: (
                "POST",
                "/v1/x/tokens".into(),
                json!({"role": "reader", "label": object.strip_prefix("token/")}),
            ),
            object,
            after: Some(json!("reader")),
        }
    }

    /// Writes until the daemon is gone.
    fn load(&mut self, agent: &Agent, all_answered: &AtomicUsize) {
        loop {
            let write = self.next();
            let (method, path, body) = &write.request;
            let answer = agent.request(method, path, Some(body));
            let Ok(json) = answer.and_then(|answer| answer.json()) else {
                self.cut_off = Some(write);
                return;
            };
            assert_eq!(json["status"], "success", "{method} {path} {body}: {json}");
            self.answered += 1;
            all_answered.fetch_add(1, Ordering::Relaxed);
            match write.after {
                Some(after) => self.objects.insert(write.object, after),
                None => self.objects.remove(&write.object),
            };
        }
    }

    /// Compares with what the daemon has, and goes on from there.
    fn check(&mut self, found: &Objects) {
        let is_ours = |(object, _): &(&String, &Value)| {
            let ours = format!("/c{}-", self.number);
            object.contains(&ours)
        };
        let found: Objects = found
            .iter()
            .filter(is_ours)
            .map(|(object, value)| (object.clone(), value.clone()))
            .collect();
        if found != self.objects
            && let Some(write) = self.cut_off.take()
        {
            match write.after {
                Some(after) => self.objects.insert(write.object, after),
                None => self.objects.remove(&write.object),
            };
        }
        assert_eq!(found, self.objects, "client {}", self.number);
        self.cut_off = None;
    }
}

/// Everything that a daemon has, from the document that holds everything.
fn found(agent: &Agent) -> Objects {
    let path = "/v1/x/state?private_keys=true";
    let state = agent.call("GET", path, None).unwrap()["state"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |kind: &str| state[kind].as_array().cloned().unwrap_or_default();
    let mut objects = Objects::new();
    let (mut made_groups, mut with_group) = (0, 0);
    for group in list("service_groups") {
        let name = text(&group["name"]);
        if group["persistent"] == false {
            made_groups += 1;
            continue;
        }
        let port = &group["services"][0]["port"];
        let value = json!({"port": port, "soft_limit": group["soft_limit"]});
        objects.insert(format!("group/{name}"), value);
    }
    for instance in list("instances") {
        with_group += usize::from(instance["service_group"].is_string());
        let object = format!("instance/{}", text(&instance["name"]));
        objects.insert(object, instance["state"].clone());
    }
    assert_eq!(
        made_groups, with_group,
        "an instance without its group, or a group alone"
    );
    for certificate in list("certificates") {
        let object = format!("certificate/{}", text(&certificate["name"]));
        objects.insert(object, certificate["private_key"].clone());
    }
    for token in list("tokens") {
        let object = format!("token/{}", text(&token["label"]));
        objects.insert(object, token["role"].clone());
    }
    objects
}

#[test]
fn a_killed_agent_has_every_change_that_it_answered() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let config = Config::new(&topology);
    let mut agent = Agent::start(&topology.gateway, &config).unwrap();
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    let mut chance = Random::new(2);
    let rounds = repetitions(12);
    for _ in 0..rounds {
        // So much of a load however busy the machine is, and any moment of what comes next.
        let least = chance.below(2 * LOAD);
        let moment = Duration::from_millis(chance.below(100) as u64);
        let pid = Pid::from_raw(agent.pid().unwrap() as i32);
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for client in &mut clients {
                let (agent, answered) = (&agent, &answered);
                scope.spawn(move || client.load(agent, answered));
            }
            let is_enough = || answered.load(Ordering::Relaxed) >= least;
            let waited = poll_until("answered changes", SOON, is_enough);
            keep_pace(Instant::now(), moment);
            // Also when nothing was answered, or the clients would go on for ever.
            kill(pid, Signal::SIGKILL).unwrap();
            waited.unwrap();
        });
        agent.kill().unwrap();
        agent.launch().unwrap();
        let found = found(&agent);
        clients.iter_mut().for_each(|client| client.check(&found));
        let generations = || {
            let status = agent.call("GET", "/v1/x/status", None).unwrap();
            let status = &status["status"];
            status["generation_desired"] == status["generation_applied"]
        };
        poll_until("the data plane to follow", SOON, generations).unwrap();
    }
    let answered: usize = clients.iter().map(|client| client.answered).sum();
    println!("{answered} answered changes in {rounds} lives");
    assert!(
        answered > 5 * rounds as usize,
        "the load was no load: {answered}"
    );
}
