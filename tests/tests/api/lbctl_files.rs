//! `lbctl` with files, an editor and a terminal, against the real daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use lbagent_tests::ctl;
use lbagent_tests::require_root;

use crate::desk::{Desk, WEB};

#[test]
fn files_are_applied_compared_and_pruned() {
    require_root!();
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    assert_eq!(
        desk.check("check -f web.yaml", 0),
        "3 objects, nothing wrong\n"
    );
    assert!(desk.check("diff -f web.yaml", 1).contains("\n+name: web\n"));
    let created = "service web created\ninstance b1 created\ninstance b2 created\n";
    assert_eq!(desk.check("apply -f web.yaml --dry-run", 0), created);
    assert_eq!(desk.check("service ls --no-headers", 0), "");
    assert_eq!(desk.check("apply -f web.yaml --wait", 0), created);
    desk.gateway.probe().unwrap();
    let unchanged = created.replace("created", "unchanged");
    for line in ["apply -f web.yaml", "apply -f ."] {
        let mut found: Vec<String> = desk.check(line, 0).lines().map(str::to_owned).collect();
        let mut expected: Vec<&str> = unchanged.lines().collect();
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
    assert_eq!(desk.check("diff -f web.yaml", 0), "");

    // What is printed can be applied, and changes nothing.
    let printed =
        desk.check("service ls -o yaml", 0) + "---\n" + &desk.check("instance ls -o yaml", 0);
    desk.write("printed.yaml", &printed);
    assert_eq!(desk.check("diff -f printed.yaml --prune", 0), "");

    // Weight and state change in place, another address makes another instance.
    let uuid = desk.check("instance ls --filter name==b2 -f uuid --no-headers", 0);
    let other = WEB
        .replace("weight: 50", "weight: 70")
        .replace("'fd66::b'", "'fd66::d'");
    desk.write("web.yaml", &(other + "state: stopped\n"));
    let difference = desk.check("diff -f web.yaml", 1);
    for line in [
        "-  weight: 50",
        "+  weight: 70",
        "-- fd66::b",
        "+state: stopped",
    ] {
        assert!(difference.contains(line), "no {line} in {difference}");
    }
    assert_eq!(
        desk.check("apply -f web.yaml", 0),
        "instance b1 replaced\ninstance b2 changed\nservice web unchanged\n"
    );
    assert_eq!(
        desk.check(
            "instance ls --filter state==stopped -f uuid --no-headers",
            0
        ),
        uuid
    );
    assert_eq!(desk.check("diff -f web.yaml", 0), "");

    // Only what no file has goes, and only when that was agreed to.
    desk.check("instance create --name b3 --ip 10.66.0.13", 0);
    assert!(
        desk.check("diff -f web.yaml --prune", 1)
            .contains("\n-name: b3\n")
    );
    desk.check_mistake(
        "apply -f web.yaml --prune",
        2,
        &["lbctl: no file describes instance b3; delete? Say so with --yes"],
    );
    assert!(
        desk.check("apply -f web.yaml --prune --yes", 0)
            .contains("instance b3 pruned\n")
    );
    assert_eq!(desk.check("instance ls -o quiet", 0).lines().count(), 2);
}

#[test]
fn a_wrong_document_changes_nothing() {
    require_root!();
    let desk = Desk::new();
    desk.check("service create -n old 5432:7000/tcp", 0);
    let wrong = WEB.replace("addresses: [10.66.0.12]", "adresses: [10.66.0.12]");
    desk.write("web.yaml", &wrong);
    let unknown = "lbctl: web.yaml:14: unknown field 'adresses', expected one of 'kind', 'name', \
                   'service_group', 'addresses', 'image', 'state', 'policy'";
    for line in ["check -f web.yaml", "diff -f web.yaml", "apply -f web.yaml"] {
        desk.check_mistake(line, 2, &[unknown]);
    }
    // Also what only the agent knows.
    desk.write(
        "web.yaml",
        &WEB.replace(
            "name: b2\nservice_group: web",
            "name: b2\nservice_group: wbe",
        ),
    );
    desk.check_mistake(
        "apply -f web.yaml",
        2,
        &[
            "lbctl: web.yaml:1: web: port 5432/tcp is taken by service group 'old'",
            "lbctl: web.yaml:11: b2: there is no service group 'wbe', here or on the agent",
        ],
    );
    assert_eq!(desk.check("service ls -o quiet", 0), "old\n");
    assert_eq!(desk.check("instance ls -o quiet", 0), "");
    desk.check_mistake(
        "apply -f nothing.yaml",
        2,
        &["lbctl: cannot read 'nothing.yaml': No such file or directory (os error 2)"],
    );
}

/// Makes a script that is an editor.
fn editor(desk: &Desk, script: &str) -> String {
    let path = desk.path("editor");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn an_object_is_edited() {
    require_root!();
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    desk.check("apply -f web.yaml", 0);
    let edit = |script: &str| {
        let editor = editor(&desk, script);
        desk.run_with("instance edit b2", &[("EDITOR", &editor), ("VISUAL", "")])
    };
    let (code, stdout, stderr) = edit("true");
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (0, "", "lbctl: nothing was changed\n")
    );
    let (code, stdout, _) = edit("sed -i s/50/60/ \"$1\"");
    assert_eq!((code, stdout.as_str()), (0, "instance b2 changed\n"));
    // The first draft is refused; the second one has the reason in it, and is corrected.
    let (code, stdout, stderr) = edit(
        "if grep -q '^#! lbctl: draft:1: .*0 to 1000' \"$1\"; then sed -i s/5000/61/ \"$1\"; \
         else sed -i s/60/5000/ \"$1\"; fi",
    );
    assert_eq!(
        (code, stdout.as_str()),
        (0, "instance b2 changed\n"),
        "{stderr}"
    );
    assert!(
        desk.check("instance get b2 -o yaml", 0)
            .contains("weight: 61\n")
    );
    // Nobody corrects this one.
    let (code, _, stderr) = edit("sed -i s/61/5000/ \"$1\"");
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("your text is kept in"), "{stderr}");
    let (code, _, stderr) = edit("exit 3");
    assert_eq!(code, 1, "{stderr}");
    desk.check(
        "instance edit b2 --set policy.weight=7 --set state=stopped",
        0,
    );
    let now = desk.check("instance get b2 -o yaml", 0);
    assert!(
        now.contains("weight: 7\n") && now.contains("state: stopped\n"),
        "{now}"
    );
    desk.check_mistake(
        "instance edit b3",
        1,
        &[
            "lbctl: No instance with name 'b3'; did you mean 'b1' or 'b2'? `lbctl instance ls` \
           lists them all",
        ],
    );
}

#[test]
fn an_object_that_changes_while_it_is_edited_is_left_alone() {
    require_root!();
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    desk.check("apply -f web.yaml", 0);
    let lbctl = ctl::command(&desk.gateway.topology.gateway, &[]);
    let lbctl = lbctl.get_program().to_str().unwrap();
    let check = |command: &str, meanwhile: &str, own: &str, object: &str| {
        let other = if meanwhile.is_empty() {
            "true".to_owned()
        } else {
            format!("{lbctl} {meanwhile}")
        };
        let editor = editor(&desk, &format!("{other} >&2 && sed -i '{own}' \"$1\""));
        let variables = [("EDITOR", editor.as_str()), ("VISUAL", "")];
        let (code, stdout, stderr) = desk.run_with(command, &variables);
        assert_eq!((code, stdout.as_str()), (1, ""), "{command}: {stderr}");
        let told = format!(
            "lbctl: {object} was changed by somebody else meanwhile, so nothing was done; edit it \
             again"
        );
        assert!(stderr.ends_with(&format!("{told}\n")), "{stderr}");
        let kept = stderr
            .lines()
            .find_map(|line| line.strip_prefix("lbctl: your text is kept in "));
        let kept = fs::read_to_string(kept.expect(&stderr)).unwrap();
        let mine = own.rsplit('/').nth(1).unwrap();
        assert!(kept.contains(mine), "{kept}");
        fs::remove_file(&editor).unwrap();
    };
    // Whichever part of the object the other one changed, and whichever is edited.
    check(
        "instance edit b2",
        "instance edit b2 --set policy.weight=9",
        "s/50/60/",
        "instance b2",
    );
    check(
        "instance edit b2",
        "instance stop b2",
        "s/weight: 9/weight: 60/",
        "instance b2",
    );
    check(
        "service edit web",
        "service edit web --set soft_limit=7",
        "s/5432:7000.tcp/99:7000\\/tcp/",
        "service web",
    );
    check(
        "service edit web",
        "service policy web --deny 10.0.0.0/8",
        "s/5432:7000.tcp/99:7000\\/tcp/",
        "service web",
    );
    let now = desk.check("service get web -o yaml", 0) + &desk.check("instance get b2 -o yaml", 0);
    for theirs in [
        "soft_limit: 7\n",
        "- 10.0.0.0/8\n",
        "5432:7000/tcp\n",
        "weight: 9\n",
        "state: stopped\n",
    ] {
        assert!(now.contains(theirs), "no {theirs} in {now}");
    }
    // Both parts of an object at once, with nobody else at it.
    let both = "service edit web --set soft_limit=3 --set policy.sources.deny=10.9.0.0/16";
    assert_eq!(desk.check(both, 0), "service web changed\n");
    let both = "instance edit b2 --set state=running --set policy.weight=8";
    assert_eq!(desk.check(both, 0), "instance b2 changed\n");
    let now = desk.check("service get web -o yaml", 0) + &desk.check("instance get b2 -o yaml", 0);
    for own in [
        "soft_limit: 3\n",
        "- 10.9.0.0/16\n",
        "weight: 8\n",
        "state: running\n",
    ] {
        assert!(now.contains(own), "no {own} in {now}");
    }
}

#[test]
fn a_group_is_changed_in_place_and_in_one_step() {
    require_root!();
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    desk.check("apply -f web.yaml", 0);
    let seen = || {
        let answer = desk.gateway.agent.get("/v1/services?name=web").unwrap();
        let generation: u64 = answer
            .header("lbagent-generation")
            .unwrap()
            .parse()
            .unwrap();
        let group = answer.json().unwrap()["data"]["service_groups"][0].clone();
        (generation, group)
    };
    let (generation, before) = seen();
    let other = WEB
        .replace("5432:7000/udp", "5433:7000/udp, 5434:7000/tcp")
        .replace("[web.example.com]", "[web.example.com, www.example.com]")
        .replacen(
            "services:",
            "soft_limit: 4\nhard_limit: 40\nautokill: 5m\nservices:",
            1,
        );
    desk.write("web.yaml", &other);
    let applied = desk.check("apply -f web.yaml", 0);
    assert!(applied.contains("service web changed\n"), "{applied}");
    let (after, group) = seen();
    assert_eq!(
        after,
        generation + 1,
        "everything that differs is one change"
    );
    for member in ["uuid", "created_at", "instances"] {
        assert_eq!(group[member], before[member], "{group}");
    }
    assert_eq!(
        (&group["soft_limit"], &group["hard_limit"]),
        (&4.into(), &40.into()),
        "{group}"
    );
    assert_eq!(group["services"].as_array().unwrap().len(), 3, "{group}");
    assert_eq!(group["domains"].as_array().unwrap().len(), 2, "{group}");
    assert_eq!(desk.check("diff -f web.yaml", 0), "");
}

#[test]
fn the_state_is_saved_and_restored() {
    require_root!();
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    desk.check("apply -f web.yaml", 0);
    desk.check("save state.json", 0);
    let (code, _, stderr) = desk.run("restore state.json");
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("has this state already"), "{stderr}");
    desk.check("instance rm b1 b2", 0);
    assert!(
        desk.check("restore state.json --dry-run", 0)
            .contains("\n+  name: b1\n")
    );
    let (code, _, stderr) = desk.run("restore state.json");
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(desk.check("instance ls -o quiet", 0), "");
    assert!(
        desk.check("restore state.json --yes", 0)
            .contains("2 instances imported")
    );
    assert_eq!(desk.check("diff -f web.yaml --prune", 0), "");
    desk.gateway.probe().unwrap();
}

#[test]
fn tables_fit_a_terminal() {
    require_root!();
    let desk = Desk::new();
    desk.write("web.yaml", WEB);
    desk.check("apply -f web.yaml", 0);
    desk.check(
        &format!(
            "service create -n {} 1:1/tcp 2:2/tcp 3:3/tcp 4:4/tcp",
            "long-".repeat(9) + "name"
        ),
        0,
    );
    let on_terminal = |line: &str, variables: &[(&str, &str)]| {
        let lbctl = ctl::command(&desk.gateway.topology.gateway, &[]);
        let binary = lbctl.get_program().to_str().unwrap().to_owned();
        let line = format!("stty cols 80 rows 24; {binary} {line}");
        let mut script = desk.gateway.topology.gateway.command("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::null());
        script
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied());
        let output = script.output().unwrap();
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).unwrap().replace('\r', "")
    };
    // Before they are a minute old.
    assert!(on_terminal("service ls", &[("NO_COLOR", "1")]).contains("s ago"));
    let long = "long-".repeat(9) + "name";
    for line in [
        "service ls",
        &format!("service get {long}"),
        "service ls -f name,uuid,services",
        "instance ls",
        "show",
        "show -n --stats",
        "show --rate --interval 50ms",
        "counters --all",
        "account ls",
        "token ls",
        "certificate ls",
        "health",
    ] {
        let plain = on_terminal(line, &[("NO_COLOR", "1")]);
        assert!(!plain.contains('\u{1b}'), "{line}: {plain:?}");
        for row in plain.lines() {
            assert!(row.chars().count() <= 80, "{line}: {row}");
        }
    }
    assert!(on_terminal("instance ls", &[]).contains("\u{1b}["));
    let piped = desk.check("service ls", 0);
    assert_eq!(piped.lines().count(), 3, "{piped}");
    assert!(!piped.contains('\u{1b}'));
}
