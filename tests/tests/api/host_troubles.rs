//! What the host does to the agent: a disk that is full, a log that nobody reads any more.

use lbagent_tests::agent::{Agent, Config, START, STATE_DIR};
use lbagent_tests::netns::HostNs;
use lbagent_tests::poll::retry;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, Topology};
use serde_json::{Value, json};

fn sh(host: &HostNs, script: &str) {
    let status = host.command("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

fn group(port: u16) -> Value {
    json!({
        "name": format!("g{port}"),
        "services": [{"port": port, "destination_port": port, "protocol": "tcp"}],
    })
}

/// Names of all service groups.
fn names(agent: &Agent) -> Vec<String> {
    let data = agent.call("GET", "/v1/services", None).unwrap();
    let groups = data["service_groups"].as_array().unwrap();
    let name = |group: &Value| group["name"].as_str().unwrap().to_owned();
    groups.iter().map(name).collect()
}

#[test]
fn a_full_disk_changes_nothing_and_room_is_enough_to_go_on() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let host = &topology.gateway;
    sh(
        host,
        &format!("mkdir -p {STATE_DIR} && mount -t tmpfs -o size=3m disk {STATE_DIR}"),
    );
    let mut agent = Agent::start(host, &Config::new(&topology)).unwrap();
    let create = |agent: &Agent, port| {
        let answer = agent.request("POST", "/v1/services", Some(&group(port)));
        answer.unwrap()
    };
    assert_eq!(create(&agent, 1000).status, 200);

    // It fails when there is no room left, which is so at once.
    sh(
        host,
        &format!("! cat /dev/zero > {STATE_DIR}/fill 2> /dev/null"),
    );
    let mut kept = vec!["g1000".to_owned()];
    let mut refused = 0;
    for port in 2000..2010 {
        let answer = create(&agent, port);
        // Opening the file again gives back some room, so that a later change may find a place.
        if answer.status == 200 {
            kept.push(format!("g{port}"));
            continue;
        }
        refused += 1;
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(
            answer.body.contains("Nothing was changed"),
            "{}",
            answer.body
        );
    }
    assert!(refused > 0, "the disk was not full");
    assert_eq!(names(&agent), kept);
    let status = agent.get("/v1/x/status").unwrap();
    assert_eq!(status.status, 200, "{}", status.body);

    sh(host, &format!("rm {STATE_DIR}/fill"));
    let created = create(&agent, 3000);
    assert_eq!(created.status, 200, "{}", created.body);
    kept.push("g3000".to_owned());
    assert_eq!(names(&agent), kept);

    // All of it is in the file.
    agent.kill().unwrap();
    agent.launch().unwrap();
    assert_eq!(names(&agent), kept);
}

#[test]
fn an_agent_whose_log_nobody_reads_goes_on() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let host = &topology.gateway;
    let mut agent = Agent::prepare(host, &Config::new(&topology).to_toml()).unwrap();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    agent.spawn_logging_to(writer).unwrap();
    retry("the agent's API", START, || agent.get("/v1/x/status")).unwrap();
    agent
        .call("POST", "/v1/services", Some(&group(1000)))
        .unwrap();
    assert_eq!(names(&agent), ["g1000"]);
    let end = agent.terminate().unwrap();
    assert_eq!(end.code(), Some(0), "{end}");
}
