//! The API against its own descriptions: every answer is described, and nothing that the description
//! excludes is taken. Operations are tried with objects that are there, too.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lbagent_tests::agent::{API, Agent, Config, Ended, START};
use lbagent_tests::http::Request;
use lbagent_tests::pki::Authority;
use lbagent_tests::poll::retry;
use lbagent_tests::topology::{Shape, Topology};
use lbagent_tests::{require_root, skip};
use serde_json::{Value, json};

use crate::clients;

/// The tool, and what decides about the data that it makes.
const PACKAGES: &[&str] = &[
    "schemathesis==4.32.5",
    "hypothesis==6.170.15",
    "jsonschema_rs==0.60.3",
];
/// Runs with one seed make the same requests.
const SEED: &str = "LBAGENT_SCHEMATHESIS_SEED";
/// So many requests for each operation, and each phase, instead of the few that a gate takes.
const EXAMPLES: &str = "LBAGENT_SCHEMATHESIS_EXAMPLES";
const TOKEN_FILE: &str = "/run/token";
const TOKEN: &str = "correct-horse-battery-staple";
const LISTEN_2024: &str = "127.0.0.1:7481";

/// An agent with objects.
struct World {
    topology: Topology,
    agent: Agent,
    /// For the paths that begin so: the UUID of an object that stays, and of one to be deleted.
    objects: Vec<(&'static str, [String; 2])>,
}

impl World {
    fn new() -> Self {
        let topology = Topology::build(Shape::Routed, 1).unwrap();
        topology.gateway.run(|| {
            fs::write(TOKEN_FILE, TOKEN).unwrap();
            fs::set_permissions(TOKEN_FILE, fs::Permissions::from_mode(0o600)).unwrap();
        });
        let mut config = Config::new(&topology);
        config.api = [
            ("token_file", TOKEN_FILE.into()),
            ("listen_2024", LISTEN_2024.into()),
        ]
        .into();
        let mut agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
        agent.spawn().unwrap();
        retry("the API", START, || agent.get("/v1/healthz")).unwrap();
        let mut world = Self {
            topology,
            agent,
            objects: Vec::new(),
        };
        world.fill();
        world
    }

    fn fill(&mut self) {
        let authority = Authority::new();
        let group = |name: &str, port: u16| json!({"name": name, "services": [{"port": port, "protocol": "tcp"}]});
        let instance =
            |name: &str, ip: &str| json!({"name": name, "network_interfaces": [{"ip": ip}]});
        let certificate = |name: &str| {
            let issued = authority.issue(&[name]);
            json!({"common_name": name, "chain": issued.chain, "pkey": issued.key})
        };
        let groups = [group("stays", 5001), group("goes", 5002)];
        let instances = [
            instance("stays", "10.66.0.11"),
            instance("goes", "10.66.0.12"),
        ];
        let certificates = ["stays.example.com", "goes.example.com"].map(certificate);
        let accounts = ["stays", "goes"].map(|name| json!({ "name": name }));
        let tokens = ["stays", "goes"].map(|label| json!({"role": "reader", "label": label}));
        for (path, bodies, place, bases) in [
            (
                "/v1/services",
                groups,
                "/service_groups/0/uuid",
                ["/v1/services/", "/v1/x/service-groups/"],
            ),
            (
                "/v1/instances",
                instances,
                "/instances/0/uuid",
                ["/v1/instances/", "/v1/x/instances/"],
            ),
            (
                "/v1/certificates",
                certificates,
                "/certificates/0/uuid",
                ["/v1/certificates/"; 2],
            ),
            (
                "/v1/x/accounts",
                accounts,
                "/accounts/0/uuid",
                ["/v1/x/accounts/"; 2],
            ),
            ("/v1/x/tokens", tokens, "/token/uuid", ["/v1/x/tokens/"; 2]),
        ] {
            let made = bodies.map(|body| {
                let data = self.ask("POST", path, Some(&body))["data"].clone();
                let uuid = data.pointer(place).and_then(Value::as_str);
                uuid.unwrap_or_else(|| panic!("{path}: {data}")).to_owned()
            });
            self.objects.extend(
                BTreeSet::from(bases)
                    .into_iter()
                    .map(|base| (base, made.clone())),
            );
        }
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let request = Request {
            method,
            path,
            token: Some(TOKEN),
            body: body.map(Value::to_string),
        };
        let response = self.agent.send(&request).unwrap();
        assert_eq!(response.status, 200, "{method} {path}: {}", response.body);
        response.json().unwrap()
    }

    /// The object for an operation.
    fn object(&self, method: &str, path: &str) -> Option<&str> {
        let (_, [stays, goes]) = self
            .objects
            .iter()
            .find(|(base, _)| path.starts_with(base))?;
        Some(if method == "delete" { goes } else { stays })
    }

    /// A listener's description, with the objects as examples of what its paths name.
    fn description(&self, listener: &str) -> Value {
        let listener: SocketAddr = listener.parse().unwrap();
        let request = Request {
            method: "GET",
            path: "/v1/openapi.json",
            token: None,
            body: None,
        };
        let served = self.agent.on_host(|| request.send(listener));
        let mut document = served.unwrap().json().unwrap();
        for (path, item) in document["paths"].as_object_mut().unwrap() {
            for (method, operation) in item.as_object_mut().unwrap() {
                let parameters = operation
                    .get_mut("parameters")
                    .and_then(Value::as_array_mut);
                let named = parameters
                    .into_iter()
                    .flatten()
                    .find(|it| it["name"] == "uuid");
                if let (Some(named), Some(uuid)) = (named, self.object(method, path)) {
                    named["example"] = uuid.into();
                }
            }
        }
        document
    }

    /// Tries operations of a listener. Returns those that found their object and did what they are for.
    fn try_all(&self, programs: &Path, listener: &str, options: &[&str]) -> BTreeSet<String> {
        let seed = std::env::var(SEED).unwrap_or_else(|_| "20261121".to_owned());
        let examples = std::env::var(EXAMPLES).unwrap_or_else(|_| "6".to_owned());
        println!("{SEED}={seed} {EXAMPLES}={examples}");
        // What was generated by an earlier run would change this one.
        let directory = tempfile::tempdir().unwrap();
        let document = self.description(listener);
        let file = |name| directory.path().join(name);
        fs::write(file("openapi.json"), document.to_string()).unwrap();
        let mut command = self.topology.gateway.command(programs.join("st"));
        command
            .current_dir(directory.path())
            .arg("--config-file")
            .arg(clients::script("schemathesis.toml"))
            .args(["--no-color", "run"])
            .arg(file("openapi.json"))
            .args(["--url", &format!("http://{listener}")])
            .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
            .args(["--seed", &seed, "--max-examples", &examples])
            .args(["--generation-database", "none"])
            .args(["--report", "har", "--report-har-path"])
            .arg(file("har.json"))
            .arg("--continue-on-failure")
            .args(options);
        let ended = Ended::of(&mut command).unwrap();
        // It ends with each failure and the curl command that shows it again.
        assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
        println!("{}", ended.stdout);
        let log = fs::read(file("har.json")).unwrap();
        self.reached(&document, &serde_json::from_slice(&log).unwrap())
    }

    /// Operations of a log of requests that found their object.
    fn reached(&self, document: &Value, log: &Value) -> BTreeSet<String> {
        let mut requests = BTreeSet::new();
        for entry in log["log"]["entries"].as_array().unwrap() {
            let (request, response) = (&entry["request"], &entry["response"]);
            let text = response["content"]["text"].as_str().unwrap_or_default();
            let is_done = serde_json::from_str::<Value>(text)
                .is_ok_and(|answer| answer["status"] == "success");
            if response["status"] == 200 && is_done {
                let url = request["url"].as_str().unwrap();
                let url = url.split('?').next().unwrap();
                let method = request["method"].as_str().unwrap().to_lowercase();
                requests.insert((method, url.to_owned()));
            }
        }
        let mut reached = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let Some(object) = self
                    .object(method, path)
                    .filter(|_| path.contains("{uuid}"))
                else {
                    continue;
                };
                let end = path.replace("{uuid}", object);
                if requests
                    .iter()
                    .any(|(did, url)| did == method && url.ends_with(&end))
                {
                    reached.insert(format!("{method} {path}"));
                }
            }
        }
        reached
    }
}

fn programs() -> Result<PathBuf, String> {
    clients::python("schemathesis", PACKAGES)
}

/// Which ones follows from the seed; without examples there would be none.
#[track_caller]
fn check_reached(reached: &BTreeSet<String>, least: usize) {
    println!("with objects that are there: {reached:#?}");
    assert!(reached.len() >= least, "{reached:#?}");
}

#[test]
fn answers_are_as_described() {
    require_root!();
    let programs = match programs() {
        Ok(programs) => programs,
        Err(reason) => skip!("{reason}"),
    };
    let world = World::new();
    let reached = world.try_all(&programs, API, &[]);
    check_reached(&reached, 10);
    world.ask("GET", "/v1/x/status", None);
}

#[test]
fn answers_of_the_dialect_of_2024_are_as_described() {
    require_root!();
    let programs = match programs() {
        Ok(programs) => programs,
        Err(reason) => skip!("{reason}"),
    };
    let world = World::new();
    let only = ["--include-path-regex", "^/v1/services"];
    let reached = world.try_all(&programs, LISTEN_2024, &only);
    check_reached(&reached, 2);
    world.ask("GET", "/v1/x/status", None);
}
