//! Starts that cannot succeed say why, on which object, and what to do; and harm nothing.

use std::fs;
use std::path::{Path, PathBuf};

use lbagent_tests::agent::{Agent, BPFFS_DIR, CONFIG_PATH, Config, Ended, STATE_DIR, binary};
use lbagent_tests::gateway::Gateway;
use lbagent_tests::netns::BpfFs;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, Topology};

/// A run that ended by itself, with this code and all of these words.
#[track_caller]
fn check(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{ended:#?}");
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{word:?} is missing in {ended:#?}"
        );
    }
    assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
}

const RUN: [&str; 3] = ["run", "--config", CONFIG_PATH];

#[test]
fn a_second_agent_is_turned_away() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let pid = gateway.agent.pid().unwrap().to_string();
    check(
        &gateway.agent.run(&RUN).unwrap(),
        3,
        &["already running", &pid],
    );
    gateway.probe().unwrap();
    assert_eq!(gateway.agent.status().unwrap().agent.pid.to_string(), pid);
}

#[test]
fn a_host_without_bpffs_is_told_how_to_mount_it() {
    require_root!();
    let topology = Topology::build_on(Shape::Routed, 1, BpfFs::Absent).unwrap();
    let agent = Agent::prepare(&topology.gateway, &Config::new(&topology).to_toml()).unwrap();
    check(
        &agent.run(&RUN).unwrap(),
        1,
        &["mount -t bpf bpf", "/sys/fs/bpf"],
    );
}

#[test]
fn a_corrupted_store_is_named_and_kept() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    gateway.agent.terminate().unwrap();
    let host = gateway.topology.gateway.clone();
    let store: PathBuf = host.run(|| {
        let files = fs::read_dir(STATE_DIR)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let store = files
            .into_iter()
            .find(|path| path.extension().is_some_and(|it| it == "redb"));
        let store = store.expect("a redb file in the state directory");
        let mut content = fs::read(&store).unwrap();
        content.iter_mut().take(64).for_each(|byte| *byte = !*byte);
        fs::write(&store, content).unwrap();
        store
    });
    let corrupted = host.run(|| fs::read(&store).unwrap());
    check(
        &gateway.agent.run(&RUN).unwrap(),
        1,
        &[store.to_str().unwrap()],
    );
    assert_eq!(
        corrupted,
        host.run(|| fs::read(&store).unwrap()),
        "the file was changed"
    );
    gateway
        .probe()
        .expect("the pinned data plane goes on forwarding");
}

#[test]
fn mistakes_in_the_configuration_are_all_told() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let good = Config::new(&topology).to_toml();
    let case = |config: String, code, words: &[&str]| {
        let agent = Agent::prepare(&topology.gateway, &config).unwrap();
        check(
            &agent.run(&["check", "--config", CONFIG_PATH]).unwrap(),
            code,
            words,
        );
        if code != 0 {
            check(&agent.run(&RUN).unwrap(), code, words);
        }
    };
    case(good.clone(), 0, &[]);
    case(
        format!("colour = \"red\"\n{good}"),
        2,
        &["colour", CONFIG_PATH],
    );
    case(
        good.replace("192.0.2.10", "192.0.2.300"),
        2,
        &["vips", "192.0.2.300"],
    );
    case(format!("{good}[fllow]\nudp_idle_s = 1\n"), 2, &["fllow"]);
    case("client_interfaces = [".into(), 2, &[CONFIG_PATH]);
    assert!(
        !topology.gateway.run(|| Path::new(BPFFS_DIR).exists()),
        "something was attached"
    );
}

#[test]
fn missing_privileges_are_named() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let host = &topology.gateway;
    Agent::prepare(host, &Config::new(&topology).to_toml()).unwrap();
    let mut command = host.command_without_capabilities(binary("LBAGENT_BIN", "lbagent"));
    let ended = Ended::of(command.args(RUN)).unwrap();
    check(&ended, 4, &["CAP_BPF", "CAP_NET_ADMIN"]);
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let agent = Agent::prepare(&topology.gateway, "").unwrap();
    let missing = "/run/nowhere.toml";
    check(
        &agent.run(&["run", "--config", missing]).unwrap(),
        2,
        &[missing],
    );
}
