//! Random histories of requests to the real daemon against a model of what the contract promises: who may
//! have which port, what is done together, which groups outlive their instances, and that what failed has
//! changed nothing.

use std::collections::{BTreeMap, BTreeSet};

use lbagent_tests::gateway::Gateway;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::random::Random;
use lbagent_tests::require_root;
use lbagent_tests::slowness::scale;
use lbagent_tests::topology::Shape;
use serde_json::{Value, json};

const SEED: &str = "LBAGENT_HISTORY_SEED";
const GROUPS: usize = 4;
const INSTANCES: usize = 6;
const PORTS: usize = 6;
const FIRST_PORT: u16 = 9000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    ports: BTreeSet<u16>,
    persistent: bool,
    members: BTreeSet<String>,
}

/// What there is, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    groups: BTreeMap<String, Group>,
    /// Whether each instance runs.
    instances: BTreeMap<String, bool>,
}

impl Model {
    fn is_free(&self, port: u16, own: &str) -> bool {
        let mut others = self.groups.iter().filter(|(name, _)| *name != own);
        others.all(|(_, group)| !group.ports.contains(&port))
    }

    fn join(&mut self, instance: &str, group: &str) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.insert(instance.to_owned());
            group.persistent |= group.members.len() > 1;
        }
    }

    /// Takes an instance out of its group, which may have been there for it alone.
    fn leave(&mut self, instance: &str) {
        let Some(name) = self.group_of(instance) else {
            return;
        };
        let group = self.groups.get_mut(&name).unwrap();
        group.members.remove(instance);
        if group.members.is_empty() && !group.persistent {
            self.groups.remove(&name);
        }
    }

    fn group_of(&self, instance: &str) -> Option<String> {
        let mut groups = self.groups.iter();
        let found = groups.find(|(_, group)| group.members.contains(instance))?;
        Some(found.0.clone())
    }
}

struct History {
    gateway: Gateway,
    random: Random,
    model: Model,
}

impl History {
    /// Whether a request did all that it asked for, and the answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (bool, Value) {
        let response = self
            .gateway
            .agent
            .request(method, path, Some(body))
            .unwrap();
        let answer = response.json().unwrap();
        let is_done = response.status == 200 && answer["status"] == "success";
        (is_done, answer)
    }

    fn port(&mut self) -> u16 {
        FIRST_PORT + self.random.below(PORTS) as u16
    }

    fn instance(&mut self) -> String {
        format!("i{}", self.random.below(INSTANCES))
    }

    /// The name of a group, mostly of one that is there.
    fn group(&mut self) -> String {
        let names: Vec<String> = self.model.groups.keys().cloned().collect();
        match self.random.below(names.len() + 1) {
            index if index < names.len() => names[index].clone(),
            _ => format!("g{}", self.random.below(GROUPS)),
        }
    }

    fn step(&mut self) -> String {
        match self.random.below(10) {
            0 | 1 => self.create_group(),
            2 => self.delete_group(),
            3 => self.patch(),
            4 | 5 => self.create_instance(),
            6 | 7 => self.attach(),
            8 => self.switch(),
            _ => self.delete_instance(),
        }
    }

    fn create_group(&mut self) -> String {
        let (name, port) = (format!("g{}", self.random.below(GROUPS)), self.port());
        let body = json!({"name": name, "services": [service(port)]});
        let (is_done, answer) = self.ask("POST", "/v1/services", &body);
        let may = !self.model.groups.contains_key(&name) && self.model.is_free(port, &name);
        assert_eq!(is_done, may, "{body} {answer}");
        if may {
            let group = Group {
                ports: [port].into(),
                persistent: true,
                members: BTreeSet::new(),
            };
            self.model.groups.insert(name, group);
        }
        body.to_string()
    }

    fn delete_group(&mut self) -> String {
        let name = self.group();
        let body = json!({ "name": name });
        let (is_done, answer) = self.ask("DELETE", "/v1/services", &body);
        let group = self.model.groups.get(&name);
        let may = group.is_some_and(|group| group.members.is_empty());
        assert_eq!(is_done, may, "delete {body} {answer}");
        if may {
            self.model.groups.remove(&name);
        }
        format!("delete {body}")
    }

    /// One to three edits at once, which are done together or not at all.
    fn patch(&mut self) -> String {
        let name = self.group();
        let group = self.model.groups.get(&name);
        let mut ports: Vec<u16> = group
            .iter()
            .flat_map(|group| &group.ports)
            .copied()
            .collect();
        let (mut body, mut may) = (Vec::new(), group.is_some());
        for _ in 0..=self.random.below(3) {
            let port = self.port();
            let is_add = self.random.below(2) == 0;
            if is_add {
                ports.push(port);
            } else {
                may &= ports.contains(&port);
                ports.retain(|other| *other != port);
            }
            let (op, value) = match is_add {
                true => ("add", service(port)),
                false => ("del", json!({ "port": port })),
            };
            body.push(json!({"name": name, "prop": "services", "op": op, "value": [value]}));
        }
        let body = json!(body);
        let after: BTreeSet<u16> = ports.iter().copied().collect();
        may &= !ports.is_empty() && after.len() == ports.len();
        may &= ports.iter().all(|port| self.model.is_free(*port, &name));
        let (is_done, answer) = self.ask("PATCH", "/v1/services", &body);
        assert_eq!(is_done, may, "{body} {answer}");
        if let Some(group) = self.model.groups.get_mut(&name).filter(|_| may) {
            group.ports = after;
        }
        body.to_string()
    }

    /// In a group that is there, in one of its own, or in none.
    fn create_instance(&mut self) -> String {
        let name = self.instance();
        let address = format!("10.66.0.{}", 100 + name[1..].parse::<u8>().unwrap());
        let mut body = json!({
            "name": name, "autostart": true, "network_interfaces": [{ "ip": address }],
        });
        let mut may = !self.model.instances.contains_key(&name);
        let (mut joined, mut published) = (None, None);
        match self.random.below(3) {
            0 => {}
            1 => {
                let group = self.group();
                body["service_group"] = json!({ "name": group });
                may &= self.model.groups.contains_key(&group);
                joined = Some(group);
            }
            _ => {
                let port = self.port();
                body["service_group"] = json!({ "services": [service(port)] });
                may &= self.model.is_free(port, "");
                published = Some(port);
            }
        }
        let (is_done, answer) = self.ask("POST", "/v1/instances", &body);
        assert_eq!(is_done, may, "{body} {answer}");
        if may {
            self.model.instances.insert(name.clone(), true);
            if let Some(port) = published {
                let made = &answer["data"]["instances"][0]["service_group"]["name"];
                let made = made.as_str().unwrap().to_owned();
                let group = Group {
                    ports: [port].into(),
                    persistent: false,
                    members: BTreeSet::new(),
                };
                self.model.groups.insert(made.clone(), group);
                joined = Some(made);
            }
            if let Some(group) = joined {
                self.model.join(&name, &group);
            }
        }
        body.to_string()
    }

    /// To another group, or to none.
    fn attach(&mut self) -> String {
        let instance = self.instance();
        let group = (self.random.below(3) > 0).then(|| self.group());
        let named = group.as_ref().map(|name| json!({ "name": name }));
        let body = json!({ "service_group": named });
        let path = format!("/v1/x/instances/{instance}/service-group");
        let (is_done, answer) = self.ask("PUT", &path, &body);
        let is_there = |name: &String| self.model.groups.contains_key(name);
        let may =
            self.model.instances.contains_key(&instance) && group.as_ref().is_none_or(is_there);
        assert_eq!(is_done, may, "{path} {body} {answer}");
        if may && self.model.group_of(&instance) != group {
            self.model.leave(&instance);
            if let Some(group) = &group {
                self.model.join(&instance, group);
            }
        }
        format!("{path} {body}")
    }

    fn switch(&mut self) -> String {
        let name = self.instance();
        let starts = self.random.below(2) == 0;
        let action = if starts { "start" } else { "stop" };
        let path = format!("/v1/instances/{action}");
        let (is_done, answer) = self.ask("PUT", &path, &json!({ "name": name }));
        let known = self.model.instances.get_mut(&name);
        assert_eq!(is_done, known.is_some(), "{action} {name} {answer}");
        if let Some(is_running) = known {
            *is_running = starts;
        }
        format!("{action} {name}")
    }

    fn delete_instance(&mut self) -> String {
        let name = self.instance();
        let (is_done, answer) = self.ask("DELETE", "/v1/instances", &json!({ "name": name }));
        let was_there = self.model.instances.remove(&name).is_some();
        assert_eq!(is_done, was_there, "delete {name} {answer}");
        self.model.leave(&name);
        format!("delete {name}")
    }

    /// What the agent says, as the model has it.
    fn told(&self) -> Model {
        let list = |path: &str, member: &str| {
            let data = self.gateway.agent.call("GET", path, None).unwrap();
            data[member].as_array().unwrap().clone()
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let group = |it: &Value| Group {
            ports: (it["services"].as_array().unwrap().iter())
                .map(|service| service["port"].as_u64().unwrap() as u16)
                .collect(),
            persistent: it["persistent"].as_bool().unwrap(),
            members: (it["instances"].as_array().unwrap().iter())
                .map(|instance| text(&instance["name"]))
                .collect(),
        };
        let groups = list("/v1/services", "service_groups");
        let instances = list("/v1/instances", "instances");
        Model {
            groups: groups
                .iter()
                .map(|it| (text(&it["name"]), group(it)))
                .collect(),
            instances: (instances.iter())
                .map(|it| (text(&it["name"]), it["state"] == "running"))
                .collect(),
        }
    }

    /// Ports that the data plane forwards.
    fn forwarded(&self) -> BTreeSet<u16> {
        let data = self.gateway.agent.call("GET", "/v1/x/table", None).unwrap();
        let groups = data["table"]["groups"].as_array().unwrap().iter();
        let vips = groups.flat_map(|group| group["vips"].as_array().unwrap());
        vips.map(|vip| vip["port"].as_u64().unwrap() as u16)
            .collect()
    }
}

fn service(port: u16) -> Value {
    json!({"port": port, "protocol": "tcp", "handlers": []})
}

#[test]
fn random_histories_go_as_the_contract_says() {
    require_root!();
    let seed = std::env::var(SEED).map_or(20_261_122, |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let mut history = History {
        gateway: Gateway::start_with(Shape::Routed, 1, |_| {}).unwrap(),
        random: Random::new(seed),
        model: Model::default(),
    };
    for number in 0..scale(200, 5_000) {
        let step = history.step();
        assert_eq!(history.told(), history.model, "after step {number}: {step}");
    }
    let ports = history.model.groups.values().flat_map(|group| &group.ports);
    let ports: BTreeSet<u16> = ports.copied().collect();
    poll_until("the data plane to have what is asked for", SOON, || {
        history.forwarded() == ports
    })
    .unwrap();
}
