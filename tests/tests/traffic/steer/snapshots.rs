//! What terminators are told to serve, and what becomes of the objects that they refuse.

use super::*;

#[test]
fn snapshots_follow_the_groups_and_faults_are_told() {
    require_root!();
    let gateway = gateway(|config| {
        config.terminator.insert("development_ca", true.into());
    });
    let host = &gateway.topology.gateway;
    let terminator = FakeTerminator::start(host, "one").unwrap();
    let signed = |it: &lbagent_api::terminator::Snapshot| {
        it.default_certificate.is_some() && !it.groups.is_empty()
    };
    let snapshot = terminator
        .snapshot_where("the certificate and the group", signed)
        .unwrap();
    assert_eq!(
        snapshot.certificates[0].names,
        ["*.lb.internal", "lb.internal"]
    );
    assert_eq!(
        snapshot.groups[0].domains[0].certificate,
        snapshot.default_certificate
    );
    let ca = ctl::succeed(host, &["terminator", "ca"]).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"), "{ca}");
    assert!(
        snapshot.certificates[0].chain.ends_with(&ca),
        "signed by {ca}"
    );
    assert_eq!(snapshot.ticket_keys.len(), 1);

    let backend = &gateway.topology.backends[0];
    gateway.attach("b1", "web", &backend.addresses).unwrap();
    let attached = |it: &lbagent_api::terminator::Snapshot| !it.groups[0].instances.is_empty();
    let snapshot = terminator.snapshot_where("the instance", attached).unwrap();
    let instance = snapshot.groups[0].instances[0].clone();
    assert_eq!(instance.addresses, backend.addresses);
    let report = || {
        let data = gateway
            .agent
            .call("GET", "/v1/x/terminators", None)
            .unwrap();
        let first = &data["terminators"]["all"][0];
        (first["report"]["connections"] == 7
            && first["generation"].as_u64() >= Some(snapshot.generation))
        .then(|| first.clone())
    };
    let row = poll_for("the report", SOON, report).unwrap();
    assert_eq!(
        (&row["state"], &row["sockets"]),
        (&json!("active"), &json!(2))
    );

    terminator.refuse(vec![Fault {
        object: FaultyObject::Instance(instance.uuid),
        reason: "it has six toes; wash them".into(),
    }]);
    gateway.stop("b1", Duration::from_secs(60)).unwrap();
    let told = || {
        let status = gateway.agent.status().unwrap();
        let mut conditions = status.conditions.into_iter();
        conditions.any(|it| it.reason == "refused_by_terminator" && it.name == "b1")
    };
    poll_until("the condition", SOON, told).unwrap();
    assert_eq!(
        dial(&gateway, VIP4, 443).unwrap().name,
        "one",
        "the former snapshot holds"
    );
    terminator.refuse(Vec::new());
    gateway.delete_instance("b1").unwrap();
    poll_until("the end of the condition", SOON, || !told()).unwrap();

    // One that refuses its first snapshot gets no connections, and leaves those to who is there.
    let faults = vec![Fault {
        object: FaultyObject::Gateway,
        reason: "not today".into(),
    }];
    let refusing = FakeTerminator::start_refusing(host, "two", faults).unwrap();
    refusing.snapshot_where("a snapshot", |_| true).unwrap();
    poll_until("its condition", SOON, || {
        has_condition(&gateway, "refused_by_terminator")
    })
    .unwrap();
    assert!(!terminator.was_drained());
}

#[test]
fn one_faulty_object_keeps_no_other_from_being_served() {
    require_root!();
    let gateway = gateway(|_| {});
    gateway.create_service("bad", &json!([tls(8443)])).unwrap();
    let host = &gateway.topology.gateway;
    let bad = gateway
        .agent
        .call("GET", "/v1/services?name=bad", None)
        .unwrap();
    let uuid = bad["service_groups"][0]["uuid"].as_str().unwrap();
    let faults = vec![Fault {
        object: FaultyObject::ServiceGroup(uuid.parse().unwrap()),
        reason: "it smells".into(),
    }];
    // Its first snapshot has it.
    let terminator = FakeTerminator::start_refusing(host, "one", faults).unwrap();
    wait_for(&gateway, "one");
    let names = |it: &lbagent_api::terminator::Snapshot| -> Vec<String> {
        it.groups.iter().map(|group| group.name.clone()).collect()
    };
    let is_without = |it: &lbagent_api::terminator::Snapshot| names(it) == ["web"];
    terminator
        .snapshot_where("a snapshot without it", is_without)
        .unwrap();
    let told = || {
        let status = gateway.agent.status().unwrap();
        let mut conditions = status.conditions.into_iter();
        conditions.any(|it| {
            it.name == "bad"
                && it.reason == "refused_by_terminator"
                && it.message.contains("it smells")
        })
    };
    poll_until("its condition", SOON, told).unwrap();
    let listed = ctl::succeed(host, &["terminator", "ls"]).unwrap();
    assert!(listed.contains("it smells"), "{listed}");

    // Other changes do not bring it back, its own do.
    let backend = &gateway.topology.backends[0];
    gateway.attach("b1", "web", &backend.addresses).unwrap();
    let has_instance = |it: &lbagent_api::terminator::Snapshot| !it.groups[0].instances.is_empty();
    let snapshot = terminator.snapshot_where("the change", has_instance);
    assert!(is_without(&snapshot.unwrap()));
    assert!(told());
    terminator.refuse(Vec::new());
    let line = ["service", "edit", "bad", "--set", "hard_limit=7"];
    ctl::succeed(host, &line).unwrap();
    let is_whole = |it: &lbagent_api::terminator::Snapshot| names(it).len() == 2;
    terminator.snapshot_where("both", is_whole).unwrap();
    poll_until("the end of the condition", SOON, || !told()).unwrap();
}
