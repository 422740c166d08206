//! Policies in documents.

use std::collections::BTreeMap;

use lbagent_api::state::StateDocument;

use super::*;
use crate::desired::document;

fn exported(fixture: &Fixture) -> StateDocument {
    let gateway = testing::gateway(&[]);
    let keys = document::Secrets::default();
    let state = fixture.desired.current();
    let document = document::export(&state, &gateway, Some(BTreeMap::new()), &keys);
    let text = serde_json::to_string(&document).unwrap();
    document::parse(text.as_bytes()).unwrap()
}

#[test]
fn documents_carry_policies() {
    let fixture = fixture();
    let plain = serde_json::to_string(&exported(&fixture)).unwrap();
    assert!(
        !plain.contains("policy"),
        "defaults go without saying: {plain}"
    );
    fixture
        .set_group(json!({"forwarding_mode": "dsr-ipip", "sources": {"deny": ["0.0.0.0/0"]}}))
        .unwrap();
    fixture
        .set_instance("a", json!({"weight": 3, "quic_server_id": "ff"}))
        .unwrap();
    let read = document::import(&exported(&fixture), &testing::gateway(&[]).vips);
    let read = read.unwrap().state;
    let state = fixture.desired.current();
    assert_eq!(read.service_groups, state.service_groups);
    assert_eq!(read.instances, state.instances);
}

#[test]
fn documents_obey_the_rules_between_policies() {
    let fixture = fixture();
    fixture
        .set_group(json!({"forwarding_mode": "dsr-ipip", "quic": {"server_id_length": 1}}))
        .unwrap();
    fixture
        .set_instance("a", json!({"quic_server_id": "01"}))
        .unwrap();
    fixture
        .set_instance("b", json!({"quic_server_id": "02"}))
        .unwrap();
    let document = exported(&fixture);
    let check = |edit: &dyn Fn(&mut StateDocument), words: &str| {
        let mut document = document.clone();
        edit(&mut document);
        let read = document::import(&document, &testing::gateway(&[]).vips);
        let message = read.unwrap_err().message;
        assert!(message.contains(words), "{message}");
    };
    check(
        &|document| document.service_groups[0].services[0].destination_port = 8080,
        "publishes port 80/tcp as port 8080 of its instances",
    );
    check(
        &|document| document.instances[1].policy = document.instances[0].policy.clone(),
        "QUIC server id 01 belongs to instance 'a'",
    );
    check(
        &|document| document.instances[1].policy = read(json!({"quic_server_id": "0203"})),
        "QUIC server id 0203 of length 2",
    );
}
