//! The real `lbctl` against the real daemon: what operators type, and what they get wrong.

use lbagent_tests::ctl;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::require_root;
use lbagent_tests::topology::Shape;

fn start() -> Gateway {
    Gateway::start(Shape::Bridged, 2).unwrap()
}

#[track_caller]
fn lbctl(gateway: &Gateway, line: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    ctl::succeed(&gateway.topology.gateway, &arguments).unwrap()
}

/// A mistake: a non-zero code and one line with these words.
#[track_caller]
fn check_mistake(gateway: &Gateway, line: &str, words: &[&str]) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let ended = ctl::run(&gateway.topology.gateway, &arguments).unwrap();
    assert_ne!(ended.code, 0, "lbctl {line} succeeded: {}", ended.stdout);
    assert_eq!(
        ended.stderr.trim_end().lines().count(),
        1,
        "lbctl {line}: {}",
        ended.stderr
    );
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "lbctl {line}: no {word:?} in {}",
            ended.stderr
        );
    }
}

#[test]
fn publishing_draining_and_removing() {
    require_root!();
    let gateway = start();
    lbctl(
        &gateway,
        "service create --name web 5432:7000/tcp 5432:7000/udp",
    );
    lbctl(
        &gateway,
        "instance create --name b1 --service web --ip 10.66.0.11 --ip fd66::b",
    );
    lbctl(
        &gateway,
        "instance create --name b2 --service web --ip 10.66.0.12 --ip fd66::c",
    );
    gateway.probe().unwrap();
    assert!(lbctl(&gateway, "service ls").contains("5432:7000/tcp"));
    assert!(lbctl(&gateway, "instance ls").contains("10.66.0.12"));
    for line in ["show -n", "show -n --stats"] {
        let shown = lbctl(&gateway, line);
        for expected in [
            "192.0.2.10:5432",
            "10.66.0.11",
            "[2001:db8:a::10]:5432",
            "fd66::c",
        ] {
            assert!(
                shown.contains(expected),
                "{line}: no {expected} in\n{shown}"
            );
        }
    }
    lbctl(&gateway, "instance stop b1 --drain 60s");
    let spread = gateway.spread(
        lbagent_tests::client::Transport::Tcp,
        lbagent_tests::topology::VIP4,
        40,
    );
    assert_eq!(spread.unwrap()["b2"], 40);
    lbctl(&gateway, "instance start b1");
    lbctl(&gateway, "instance rm b1 b2");
    lbctl(&gateway, "service rm web");
    assert_eq!(gateway.agent.vips().unwrap(), []);
}

#[test]
fn every_output_format_can_be_read_back() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 2).unwrap();
    for line in [
        "service ls",
        "service get web",
        "instance ls",
        "status",
        "show -n",
    ] {
        let json = lbctl(&gateway, &format!("{line} -o json"));
        serde_json::from_str::<serde_json::Value>(&json)
            .unwrap_or_else(|error| panic!("{line}: {error}: {json}"));
        assert!(
            !lbctl(&gateway, &format!("{line} -o yaml")).is_empty(),
            "{line}"
        );
    }
    let state = lbctl(&gateway, "state export");
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["instances"].as_array().unwrap().len(), 2, "{state}");
}

#[test]
fn mistakes_get_one_line_that_helps() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 1).unwrap();
    check_mistake(&gateway, "service get nope", &["nope"]);
    check_mistake(&gateway, "service rm nope", &["nope"]);
    check_mistake(
        &gateway,
        "service create --name thief 5432:1/tcp",
        &["5432", "web"],
    );
    check_mistake(
        &gateway,
        "service create --name site 443:8080/tls",
        &["443"],
    );
    check_mistake(
        &gateway,
        "instance create --name x --service nope --ip 10.66.0.12",
        &["nope"],
    );
    check_mistake(
        &gateway,
        "instance create --name b1 --service web --ip 10.66.0.12",
        &["b1"],
    );
    check_mistake(&gateway, "service rm web", &["web"]);
}

#[test]
fn policies_of_several_objects_are_changed_one_by_one() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 2).unwrap();
    let run = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        ctl::run(&gateway.topology.gateway, &arguments).unwrap()
    };
    let ended = run("instance policy b1 b2 b9 --weight 30");
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert_eq!(
        ended.stdout,
        "name:            b1\nweight:          30\nquic server id:  -\n\n\
         name:            b2\nweight:          30\nquic server id:  -\n"
    );
    assert!(
        ended
            .stderr
            .starts_with("lbctl: No instance with name 'b9'; did you mean")
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let shown = lbctl(&gateway, "instance policy b1 b2 -o json");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[1]["name"], "b2");
    assert_eq!(shown[1]["weight"], 30);
    let one = lbctl(&gateway, "instance policy b1");
    assert_eq!(one, "weight:          30\nquic server id:  -\n");
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    require_root!();
    let mut gateway = start();
    gateway.agent.terminate().unwrap();
    check_mistake(&gateway, "service ls", &["127.0.0.1:7480"]);
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Bridged, 1).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let web = file("web.yaml", &lbctl(&gateway, "service get web -o yaml"));
    let other = file(
        "other.yaml",
        "kind: ServiceGroup\nname: other\nservices: [81/tcp]\n",
    );
    let wrong = file(
        "wrong.yaml",
        "kind: ServiceGroup\nname: other\nservices: [81/tpc]\n",
    );
    let absent = directory.path().join("absent.yaml").display().to_string();
    let check = |gateway: &Gateway, line: &str, code: i32| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let ended = ctl::run(&gateway.topology.gateway, &arguments).unwrap();
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, code, "lbctl {line}: {said}");
        // A failure says why, and a success does not complain.
        let is_told = code != 0 && !line.starts_with("diff");
        assert!(
            !is_told || ended.stderr.starts_with("lbctl: "),
            "lbctl {line}: {said}"
        );
    };
    for (code, line) in [
        (0, "--help"),
        (0, "--version"),
        (0, "service ls"),
        (0, "service ls --filter name==nobody"),
        (0, "status"),
        (0, &format!("check -f {web}")),
        (0, &format!("diff -f {web}")),
        (0, &format!("apply -f {web} --wait")),
        (0, &format!("apply -f {other} --dry-run")),
        (0, "instance wait b1 --until state==running"),
        (1, "service get nobody"),
        (1, "instance stop b1 nobody"),
        (1, "service create -n web 82/tcp"),
        (1, "service wait web --until empty --timeout 100ms"),
        (1, "certificate get nobody"),
        (1, "instance detach nobody"),
        (1, &format!("diff -f {other}")),
        (
            1,
            &format!("save {}/no/such/directory", directory.path().display()),
        ),
        (
            1,
            "--token x --endpoint http://127.0.0.1:7480 service ls --account nobody",
        ),
        (2, "service crate"),
        (2, "service create 70000/tcp"),
        (2, "instance create --ip nowhere"),
        (2, "service ls --filter nmae==x"),
        (2, "service ls -w=0s"),
        (2, "--profile nobody service ls"),
        (2, "--endpoint http:// service ls"),
        (2, &format!("check -f {wrong}")),
        (2, &format!("apply -f {wrong}")),
        (2, &format!("diff -f {absent}")),
        (2, &format!("restore {absent}")),
        (2, "certificate create --chain /absent --pkey /absent"),
        (3, "--endpoint http://127.0.0.1:1 service ls"),
        (3, "--endpoint unix:/absent service ls -w"),
    ] {
        check(&gateway, line, code);
    }
    gateway.agent.terminate().unwrap();
    for line in ["service ls", "status --check", &format!("apply -f {web}")] {
        check(&gateway, line, 3);
    }
    check(&gateway, &format!("check -f {web}"), 0);
    // The manual has them.
    let pages = directory.path().display().to_string();
    check(&gateway, &format!("man {pages}"), 0);
    let manual = std::fs::read_to_string(directory.path().join("lbctl.1")).unwrap();
    for code in [
        "0  done",
        "1  the agent refused",
        "2  the command line",
        "3  no agent answers",
    ] {
        assert!(manual.contains(code), "{manual}");
    }
}
