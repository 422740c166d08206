mod accounts;
mod export;
mod membership;
mod model;
mod readers;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use lbagent_api::Selector;
use proptest::prelude::*;
use time::macros::datetime;

use super::validate::{Gateway, NewInstance, NewInstanceGroup, NewServiceGroup};
use super::*;
use crate::store::{Op, RedbStore, Store, Transaction};

const US: Caller = Caller::operator(DEFAULT_ACCOUNT);
const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

fn gateway() -> Gateway {
    let vips = ["192.0.2.1", "2001:db8::1"]
        .iter()
        .map(|vip| vip.parse().unwrap())
        .collect();
    Gateway {
        vips,
        metro_domain: "lb.internal".into(),
        reserved_names: Arc::default(),
    }
}

fn open(directory: &Path) -> (Arc<RedbStore>, Desired) {
    let store = Arc::new(RedbStore::open(&directory.join("state.redb")).unwrap());
    let desired = Desired::load(store.clone()).unwrap();
    (store, desired)
}

fn group(name: &str, port: u16) -> NewServiceGroup {
    NewServiceGroup {
        name: Some(name.into()),
        services: vec![Service {
            port,
            destination_port: port,
            protocol: Transport::Tcp,
            ip: None,
            handlers: Vec::new(),
        }],
        domains: None,
        soft_limit: 1,
        hard_limit: 65535,
        autokill_ms: 0,
    }
}

fn instance(name: &str, host: u8, group: NewInstanceGroup) -> NewInstance {
    NewInstance {
        name: Some(name.into()),
        addresses: vec![IpNetwork::from(IpAddr::from([10, 0, 0, host]))],
        group,
        running: true,
        image: None,
        tags: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

#[test]
fn everything_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open(directory.path());
    desired
        .create_service_groups(US, &[group("a", 80)], &gateway(), NOW)
        .unwrap();
    let join = NewInstanceGroup::Join(Selector::Name("a".into()));
    desired
        .create_instances(US, &[instance("i", 1, join)], &gateway(), NOW)
        .unwrap();
    let (before, seed) = (desired.current(), desired.hash_seed());
    assert_ne!(seed, 0);
    drop(desired);
    let (_, desired) = open(directory.path());
    assert_eq!(*desired.current(), *before);
    assert_eq!(desired.hash_seed(), seed);
    let again = desired
        .create_service_groups(US, &[group("b", 80)], &gateway(), NOW)
        .unwrap();
    assert!(matches!(
        again.outcome[0],
        Err(CreateServiceGroupError::Clash(Clash::PortTaken { .. }))
    ));
}

#[test]
fn each_write_is_one_generation_and_is_published() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open(directory.path());
    let mut published = desired.subscribe();
    let before = desired.current().generation;
    let groups: Vec<_> = (1..=50)
        .map(|port| group(&format!("g{port}"), port))
        .collect();
    let written = desired
        .create_service_groups(US, &groups, &gateway(), NOW)
        .unwrap();
    assert_eq!(written.generation, before + 1);
    assert_eq!(published.borrow_and_update().generation, before + 1);
    assert_eq!(published.borrow().service_groups.len(), 50);
    // Nothing to do is no write.
    let written = desired
        .delete_service_groups(US, &[Selector::Name("no".into())])
        .unwrap();
    assert_eq!(written.generation, before + 1);
    assert!(!published.has_changed().unwrap());
}

#[test]
fn what_others_wrote_meanwhile_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (store, desired) = open(directory.path());
    // A second writer of the same store, as another gateway of an etcd would be.
    let other = Desired::load(store.clone()).unwrap();
    other
        .create_service_groups(US, &[group("a", 80)], &gateway(), NOW)
        .unwrap();
    let clash = desired
        .create_service_groups(US, &[group("b", 80)], &gateway(), NOW)
        .unwrap();
    assert!(
        matches!(&clash.outcome[0], Err(CreateServiceGroupError::Clash(Clash::PortTaken { by: Some(by), .. })) if by == "a"),
        "{clash:?}"
    );
    desired
        .create_service_groups(US, &[group("c", 81)], &gateway(), NOW)
        .unwrap();
    assert_eq!(desired.current().service_groups.len(), 2);
    // The other one does not know that `c` got an instance, and must not delete it.
    let selector = Selector::Name("a".into());
    let member = instance("i", 1, NewInstanceGroup::Join(selector.clone()));
    desired
        .create_instances(US, &[member], &gateway(), NOW)
        .unwrap();
    let deleted = other.delete_service_groups(US, &[selector]).unwrap();
    assert!(matches!(
        deleted.outcome[0],
        Err(DeleteServiceGroupError::Attached { .. })
    ));
}

#[test]
fn an_object_of_another_version_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (store, desired) = open(directory.path());
    drop(desired);
    let op = Op::Put {
        key: "/groups/x".into(),
        value: b"{\"colour\":1}".to_vec(),
    };
    store
        .txn(&Transaction {
            ops: vec![op],
            ..Transaction::default()
        })
        .unwrap();
    let error = Desired::load(store).err().unwrap();
    assert!(error.to_string().contains("/groups/x"), "{error}");
}

#[derive(Clone, Debug)]
enum Action {
    CreateGroup(u8),
    DeleteGroup(u8),
    CreateInstance(u8, Option<u8>),
    CreateWithGroup(u8, u8),
    DeleteInstance(u8),
    Move(u8, Option<u8>, bool),
    EndDrains,
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..4_u8).prop_map(Action::CreateGroup),
        (0..4_u8).prop_map(Action::DeleteGroup),
        (0..4_u8, prop::option::of(0..4_u8)).prop_map(|(i, g)| Action::CreateInstance(i, g)),
        (0..4_u8, 4..6_u8).prop_map(|(i, port)| Action::CreateWithGroup(i, port)),
        (0..4_u8).prop_map(Action::DeleteInstance),
        (0..4_u8, prop::option::of(0..4_u8), any::<bool>())
            .prop_map(|(i, g, drains)| Action::Move(i, g, drains)),
        Just(Action::EndDrains),
    ]
}

/// Group `g0` publishes port 1, and so on.
fn act(desired: &Desired, action: &Action) {
    let (gateway, group_name) = (gateway(), |g: u8| format!("g{g}"));
    match action {
        Action::CreateGroup(g) => {
            let new = group(&group_name(*g), u16::from(*g) + 1);
            desired
                .create_service_groups(US, &[new], &gateway, NOW)
                .unwrap();
        }
        Action::DeleteGroup(g) => {
            desired
                .delete_service_groups(US, &[Selector::Name(group_name(*g))])
                .unwrap();
        }
        Action::CreateInstance(i, g) => {
            let join = g.map(|g| NewInstanceGroup::Join(Selector::Name(group_name(g))));
            let new = instance(
                &format!("i{i}"),
                i + 1,
                join.unwrap_or(NewInstanceGroup::None),
            );
            desired.create_instances(US, &[new], &gateway, NOW).unwrap();
        }
        Action::CreateWithGroup(i, port) => {
            let made = NewServiceGroup {
                name: None,
                ..group("x", u16::from(*port) + 1)
            };
            let new = instance(&format!("i{i}"), i + 1, NewInstanceGroup::Create(made));
            desired.create_instances(US, &[new], &gateway, NOW).unwrap();
        }
        Action::DeleteInstance(i) => {
            desired
                .delete_instances(US, &[Selector::Name(format!("i{i}"))], NOW)
                .unwrap();
        }
        Action::Move(i, g, drains) => {
            let (name, group) = (
                Selector::Name(format!("i{i}")),
                g.map(|g| Selector::Name(group_name(g))),
            );
            let drain = std::time::Duration::from_secs(u64::from(*drains));
            let _ = desired
                .set_service_group(US, &name, group.as_ref(), drain, NOW)
                .unwrap();
        }
        Action::EndDrains => {
            desired
                .expire_drains(NOW + time::Duration::minutes(1))
                .unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_history_leads_to_a_clash_or_a_leak(
        actions in prop::collection::vec(any_action(), 1..40),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (store, desired) = open(directory.path());
        for action in &actions {
            act(&desired, action);
        }
        let state = desired.current();
        let groups: Vec<_> = state.service_groups.values().collect();
        let unique = |words: Vec<String>| words.iter().collect::<BTreeSet<_>>().len() == words.len();
        prop_assert!(unique(groups.iter().map(|g| g.name.clone()).collect()));
        prop_assert!(unique(groups.iter().map(|g| g.services[0].port.to_string()).collect()));
        prop_assert!(unique(groups.iter().flat_map(|g| g.domains.iter().map(|d| d.fqdn.clone())).collect()));
        prop_assert!(unique(state.instances.values().map(|i| i.name.clone()).collect()));
        for instance in state.instances.values() {
            let group = instance.service_group;
            prop_assert!(group.is_none_or(|group| state.service_groups.contains_key(&group)));
        }
        for group in &groups {
            prop_assert!(group.persistent || state.members(group.uuid).count() == 1);
        }
        // Three claims and one object for a group, two and one for an instance; seed and schema.
        let keys = store.range("/").unwrap().items.len();
        prop_assert_eq!(keys, 4 * groups.len() + 3 * state.instances.len() + 2);
        // Reading it anew gives the same.
        let read = Desired::load(store).unwrap();
        prop_assert_eq!(&*read.current(), &*state);
    }
}

#[test]
fn made_up_names_are_valid() {
    for _ in 0..200 {
        let name = names::random_name();
        lbagent_api::request::validate_name(&name).unwrap();
        assert_eq!(name.split('-').next_back().unwrap().len(), 8, "{name}");
        let long = names::domain_label(&"x-".repeat(40));
        lbagent_api::request::qualify_domain(&long, "lb.internal").unwrap();
    }
}

#[test]
fn a_document_is_read_bare_and_as_it_was_answered() {
    let document = r#"{"format": 1, "vips": ["192.0.2.1"]}"#;
    let bare = document::parse(document.as_bytes()).unwrap();
    let answered = format!("{{\"state\": {document}}}");
    assert_eq!(document::parse(answered.as_bytes()).unwrap(), bare);
    let error = document::parse(br#"{"format": 1, "vip": []}"#).unwrap_err();
    assert_eq!(error.message, "Unknown member 'vip'");
}
