//! `lbctl` with profiles, completions and manual pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lbagent_tests::agent::{Agent, Config, Ended, START};
use lbagent_tests::ctl;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::http::Request;
use lbagent_tests::poll::retry;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, Topology};

const TOKEN: &str = "a-token-of-this-test";

#[test]
fn profiles_say_where_the_agent_is_and_who_asks() {
    require_root!();
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    let mode = |mode| fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    let topology = Topology::build(Shape::Bridged, 1).unwrap();
    let mut config = Config::new(&topology);
    config.api = [("token_file", token.display().to_string().into())].into();
    let mut agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
    agent.spawn().unwrap();
    retry("the API", START, || {
        agent.send(&Request {
            method: "GET",
            path: "/",
            token: None,
            body: None,
        })
    })
    .unwrap();
    let lbctl = |line: &str, variables: &[(&str, &str)]| -> Ended {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut command = ctl::command(&topology.gateway, &arguments);
        command.env("XDG_CONFIG_HOME", directory.path());
        command.envs(variables.iter().copied());
        Ended::of(&mut command).unwrap()
    };
    let check = |line: &str, variables: &[(&str, &str)], code: i32, words: &[&str]| {
        let ended = lbctl(line, variables);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, code, "lbctl {line}: {said}");
        for word in words {
            assert!(said.contains(word), "lbctl {line}: no {word:?} in {said}");
        }
        assert!(
            !said.contains(TOKEN),
            "lbctl {line} tells the token: {said}"
        );
    };
    let here = "http://127.0.0.1:7480";
    check(
        &format!("profile set here endpoint={here}"),
        &[],
        0,
        &["profile in use: here"],
    );
    check("service ls", &[], 1, &["wants a token"]);
    check(
        &format!("profile set here token_file={}", token.display()),
        &[],
        0,
        &[],
    );
    check("service ls", &[], 0, &["NAME"]);
    check("profile ls", &[], 0, &["here *", here, "in /"]);
    check("profile ls -o json", &[], 0, &["\"current\": true"]);
    // An endpoint for this once gets no token of another agent.
    check(
        &format!("service ls --endpoint {here}"),
        &[],
        1,
        &["wants a token"],
    );
    check(
        &format!("service ls --endpoint {here} --profile here"),
        &[],
        0,
        &["NAME"],
    );
    check(
        "profile set none endpoint=unix:/nothing",
        &[],
        0,
        &["profile in use: here"],
    );
    check("service ls --profile none", &[], 3, &["unix:/nothing"]);
    check(
        "service ls",
        &[("LBCTL_PROFILE", "none")],
        3,
        &["unix:/nothing"],
    );
    check("profile use none", &[], 0, &["profile in use: none"]);
    check(
        "service ls --profile her",
        &[],
        2,
        &["did you mean 'here'?"],
    );
    check("profile rm none", &[], 0, &["profile in use: none"]);
    let metro = [
        ("UKC_METRO", "http://127.0.0.1:7480/v1"),
        ("UKC_TOKEN", TOKEN),
    ];
    check("service ls", &metro, 0, &["NAME"]);
    check(
        "service ls",
        &[("LBCTL_ENDPOINT", here), metro[1]],
        1,
        &["wants a token"],
    );
    check(
        "service ls",
        &[("UKC_METRO", "fra0")],
        2,
        &["names a metro and no agent"],
    );
    check("profile set here account=nobody", &[], 0, &[]);
    check("service ls --profile here", &[], 1, &["nobody"]);
    check("profile set here account=", &[], 0, &[]);
    check("profile set here token=x", &[], 2, &["--token-stdin"]);
    check(
        "profile set here endpont=x",
        &[],
        2,
        &["unknown key 'endpont'"],
    );
    mode(0o644);
    check(
        "service ls --profile here",
        &[],
        2,
        &["others can read it (mode 644)", "chmod 600"],
    );
    let kept = directory.path().join("lbctl/config.yaml");
    assert_eq!(
        fs::metadata(kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn completions_and_manual_pages_are_written() {
    require_root!();
    let gateway = Gateway::start(Shape::Bridged, 1).unwrap();
    let host = &gateway.topology.gateway;
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().to_str().unwrap();
    ctl::succeed(host, &["man", pages]).unwrap();
    for page in [
        "lbctl.1",
        "lbctl-service-create.1",
        "lbctl-apply.1",
        "lbctl-profile-set.1",
    ] {
        let text = fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = ctl::succeed(host, &["completions", shell]).unwrap();
        assert!(script.contains("LBCTL_COMPLETE"), "{shell}");
    }
}

#[test]
fn names_are_completed() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Bridged, 2).unwrap();
    let host = gateway.topology.gateway.clone();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("lbctl.bash");
    let text = ctl::succeed(&host, &["completions", "bash"]).unwrap();
    fs::write(&script, text).unwrap();
    let lbctl = ctl::command(&host, &[]);
    let programs = Path::new(lbctl.get_program()).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    // What bash does when TAB is pressed at the end of this line.
    let complete = |line: &str| -> Vec<String> {
        let ask = "source \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                   _clap_complete_lbctl lbctl \"${@: -1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut command = host.command("bash");
        command.args(["-c", ask]).arg(&script).args(line.split(' '));
        command.env("PATH", &path);
        command.env("XDG_CONFIG_HOME", directory.path());
        let ended = Ended::of(&mut command).unwrap();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{line}");
        let words = ended.stdout.split_whitespace();
        words.map(str::to_owned).collect()
    };
    assert_eq!(complete("lbctl serv"), ["service"]);
    assert_eq!(complete("lbctl service get w"), ["web"]);
    assert_eq!(complete("lbctl instance rm b"), ["b1", "b2"]);
    assert_eq!(complete("lbctl svc attach web b1 b"), ["b1", "b2"]);
    assert_eq!(complete("lbctl instance create -g w"), ["web"]);
    assert_eq!(complete("lbctl show w"), ["web"]);
    assert_eq!(complete("lbctl token create --for d"), ["default"]);
    // Another agent is asked where the line names one, and silence is the answer of none.
    let elsewhere = "lbctl --endpoint unix:/nothing service get w";
    assert_eq!(complete(elsewhere), [""; 0]);
    gateway.agent.terminate().unwrap();
    assert_eq!(complete("lbctl service get w"), [""; 0]);
    assert_eq!(complete("lbctl service rm --a"), ["--all", "--account"]);
}
