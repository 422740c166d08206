//! Random histories of requests against a small model of what the contract promises: who may have
//! which port and domain, what is done together, and which groups outlive their instances.

use std::collections::{BTreeMap, BTreeSet};

use lbagent_api::patch::PortMatch;
use lbagent_api::service_group::Handler;

use super::*;

/// A port: whether it is raw, or shared.
type Ports = BTreeMap<u16, bool>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    ports: Ports,
    domains: BTreeSet<String>,
    persistent: bool,
    members: BTreeSet<Uuid>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    groups: BTreeMap<Uuid, Group>,
    running: BTreeMap<Uuid, bool>,
}

#[derive(Clone, Debug)]
enum Request {
    Create(u16, bool, Option<u8>),
    Patch(usize, Vec<Edit>),
    Attach(u8, usize),
    Implicit(u8, u16, bool),
    Stop(usize),
    Start(usize),
    DeleteInstance(usize),
    DeleteGroup(usize),
}

#[derive(Clone, Debug)]
enum Edit {
    Add(u16, bool),
    Del(u16),
    Domains(Vec<u8>),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (0..4u16, any::<bool>()).prop_map(|(port, raw)| Edit::Add(port, raw)),
        (0..4u16).prop_map(Edit::Del),
        proptest::collection::vec(0..3u8, 0..3).prop_map(Edit::Domains),
    ];
    proptest::collection::vec(edit, 1..4)
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = prop_oneof![
        3 => (0..4u16, any::<bool>(), proptest::option::of(0..3u8))
            .prop_map(|(port, raw, domain)| Request::Create(port, raw, domain)),
        4 => (0..4usize, edits()).prop_map(|(group, edits)| Request::Patch(group, edits)),
        3 => (1..250u8, 0..4usize).prop_map(|(host, group)| Request::Attach(host, group)),
        2 => (1..250u8, 0..4u16, any::<bool>())
            .prop_map(|(host, port, raw)| Request::Implicit(host, port, raw)),
        1 => (0..6usize).prop_map(Request::Stop),
        1 => (0..6usize).prop_map(Request::Start),
        3 => (0..6usize).prop_map(Request::DeleteInstance),
        2 => (0..4usize).prop_map(Request::DeleteGroup),
    ];
    proptest::collection::vec(request, 1..40)
}

fn service(port: u16, raw: bool) -> Service {
    Service {
        port: 9_000 + port,
        destination_port: 9_000 + port,
        protocol: Transport::Tcp,
        ip: None,
        handlers: if raw { vec![] } else { vec![Handler::Tls] },
    }
}

fn fqdn(number: u8) -> String {
    format!("d{number}.example.com")
}

fn new_group(port: u16, raw: bool, domain: Option<u8>) -> NewServiceGroup {
    NewServiceGroup {
        name: None,
        services: vec![service(port, raw)],
        domains: domain.map(|number| vec![Domain::from(fqdn(number).as_str())]),
        ..group("unused", 1)
    }
}

impl Model {
    /// Whether no other group is in the way of these ports and domains.
    fn allows(&self, own: Option<Uuid>, ports: &Ports, domains: &BTreeSet<String>) -> bool {
        let mut others = self.groups.iter().filter(|(uuid, _)| Some(**uuid) != own);
        others.all(|(_, other)| {
            let shares = |(port, raw): (&u16, &bool)| match other.ports.get(port) {
                None => true,
                Some(others_raw) => !raw && !others_raw,
            };
            ports.iter().all(shares) && domains.is_disjoint(&other.domains)
        })
    }

    /// What edits make of a group, if it can be.
    fn edited(&self, uuid: Uuid, edits: &[Edit]) -> Option<Group> {
        let mut group = self.groups[&uuid].clone();
        let mut ports: Vec<(u16, bool)> = group.ports.into_iter().collect();
        for edit in edits {
            match edit {
                Edit::Add(port, raw) => ports.push((*port, *raw)),
                Edit::Del(port) => {
                    let before = ports.len();
                    ports.retain(|(other, _)| other != port);
                    if ports.len() == before {
                        return None;
                    }
                }
                Edit::Domains(numbers) => {
                    group.domains = numbers.iter().copied().map(fqdn).collect();
                    if group.domains.len() < numbers.len() {
                        // Twice the same: refused, unless a later edit replaces the list.
                        group.domains.insert("twice".into());
                    }
                }
            }
        }
        group.ports = ports.iter().copied().collect();
        let valid = !ports.is_empty()
            && group.ports.len() == ports.len()
            && !group.domains.contains("twice")
            && self.allows(Some(uuid), &group.ports, &group.domains);
        valid.then_some(group)
    }

    fn leave(&mut self, instance: Uuid) {
        self.running.remove(&instance);
        for group in self.groups.values_mut() {
            if group.members.remove(&instance) && group.members.is_empty() && !group.persistent {
                group.ports.clear();
            }
        }
        self.groups.retain(|_, group| !group.ports.is_empty());
    }
}

/// What the store says, as the model has it.
fn told(state: &DesiredState) -> Model {
    let groups = state.service_groups.values().map(|group| {
        let ports = group.services.iter();
        let told = Group {
            ports: ports.map(|one| (one.port - 9_000, one.is_raw())).collect(),
            domains: group.domains.iter().map(|one| one.fqdn.clone()).collect(),
            persistent: group.persistent,
            members: state.members(group.uuid).map(|one| one.uuid).collect(),
        };
        assert_eq!(group.empty_since.is_some(), told.members.is_empty());
        (group.uuid, told)
    });
    let instances = state.instances.values();
    Model {
        groups: groups.collect(),
        running: instances
            .map(|one| (one.uuid, one.state == InstanceState::Running))
            .collect(),
    }
}

/// Does a request to both; whether they agree is seen afterwards.
fn run(desired: &Desired, model: &mut Model, request: &Request) {
    let at = |place: usize| model.groups.keys().nth(place).copied();
    let instance_at = |place: usize| model.running.keys().nth(place).copied();
    let checks = gateway();
    match request {
        Request::Create(port, raw, domain) => {
            let ports = Ports::from([(*port, *raw)]);
            let domains = domain.iter().copied().map(fqdn).collect();
            let allowed = model.allows(None, &ports, &domains);
            let new = [new_group(*port, *raw, *domain)];
            let made = desired
                .create_service_groups(US, &new, &checks, NOW)
                .unwrap();
            assert_eq!(made.outcome[0].is_ok(), allowed, "{request:?} {model:?}");
            if let Ok(made) = &made.outcome[0] {
                let domains = made.domains.iter().map(|one| one.fqdn.clone()).collect();
                let members = BTreeSet::new();
                let persistent = true;
                let group = Group {
                    ports,
                    domains,
                    persistent,
                    members,
                };
                model.groups.insert(made.uuid, group);
            }
        }
        Request::Patch(place, edits) => {
            let Some(uuid) = at(*place) else { return };
            let edited = model.edited(uuid, edits);
            let operation = |edit: &Edit| PatchOperation {
                selector: Selector::Uuid(uuid),
                change: match edit {
                    Edit::Add(port, raw) => Change::AddServices(vec![service(*port, *raw)]),
                    Edit::Del(port) => Change::DelServices(vec![PortMatch {
                        port: 9_000 + port,
                        protocol: None,
                        ip: None,
                    }]),
                    Edit::Domains(numbers) => {
                        let domains = numbers.iter().map(|one| Domain::from(fqdn(*one).as_str()));
                        Change::SetDomains(domains.collect())
                    }
                },
            };
            let operations: Vec<_> = edits.iter().map(operation).collect();
            let done = desired
                .patch_service_groups(US, &operations, &checks, NOW)
                .unwrap();
            let all_done = done.outcome.iter().all(Result::is_ok);
            assert_eq!(all_done, edited.is_some(), "{request:?} {model:?} {done:?}");
            assert!(all_done || done.outcome.iter().all(Result::is_err));
            model.groups.extend(edited.map(|group| (uuid, group)));
        }
        Request::Attach(host, place) => {
            let Some(uuid) = at(*place) else { return };
            join(desired, model, *host, Some(uuid), None);
        }
        Request::Implicit(host, port, raw) => {
            join(desired, model, *host, None, Some((*port, *raw)));
        }
        Request::Stop(place) | Request::Start(place) => {
            let Some(uuid) = instance_at(*place) else {
                return;
            };
            let selector = Selector::Uuid(uuid);
            let starts = matches!(request, Request::Start(_));
            let done = if starts {
                desired.start_instances(US, &[selector]).unwrap()
            } else {
                let request = StopRequest {
                    selector,
                    drain: Default::default(),
                    only_if: None,
                };
                desired.stop_instances(US, &[request], NOW).unwrap()
            };
            assert!(done.outcome[0].is_ok());
            model.running.insert(uuid, starts);
        }
        Request::DeleteInstance(place) => {
            let Some(uuid) = instance_at(*place) else {
                return;
            };
            let done = desired
                .delete_instances(US, &[Selector::Uuid(uuid)], NOW)
                .unwrap();
            assert!(done.outcome[0].is_ok());
            model.leave(uuid);
        }
        Request::DeleteGroup(place) => {
            let Some(uuid) = at(*place) else { return };
            let done = desired
                .delete_service_groups(US, &[Selector::Uuid(uuid)])
                .unwrap();
            let free = model.groups[&uuid].members.is_empty();
            assert_eq!(done.outcome[0].is_ok(), free, "{model:?}");
            if free {
                model.groups.remove(&uuid);
            }
        }
    }
}

fn join(
    desired: &Desired,
    model: &mut Model,
    host: u8,
    group: Option<Uuid>,
    implicit: Option<(u16, bool)>,
) {
    let ports: Ports = implicit.into_iter().collect();
    let state = desired.current();
    let address = IpAddr::from([10, 0, 0, host]);
    let has_address = |one: &Instance| one.addresses.iter().any(|other| other.ip() == address);
    let allowed = match group {
        Some(uuid) => !state.members(uuid).any(has_address),
        None => model.allows(None, &ports, &BTreeSet::new()),
    };
    let target = match (group, implicit) {
        (None, Some((port, raw))) => NewInstanceGroup::Create(new_group(port, raw, None)),
        (group, _) => NewInstanceGroup::Join(Selector::Uuid(group.unwrap_or_default())),
    };
    let new = NewInstance {
        name: None,
        ..instance("unused", host, target)
    };
    let made = desired
        .create_instances(US, &[new], &gateway(), NOW)
        .unwrap();
    assert_eq!(made.outcome[0].is_ok(), allowed, "{model:?} {made:?}");
    let Ok(made) = &made.outcome[0] else { return };
    model.running.insert(made.uuid, true);
    let uuid = made.service_group.expect("it was asked for");
    let domains = desired.current().service_groups[&uuid].domains.clone();
    let group = model.groups.entry(uuid).or_insert_with(|| Group {
        ports,
        domains: domains.into_iter().map(|one| one.fqdn).collect(),
        persistent: false,
        members: BTreeSet::new(),
    });
    group.members.insert(made.uuid);
    group.persistent |= group.members.len() > 1;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn histories_go_as_the_contract_says(requests in requests()) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let (_, desired) = open(directory.path());
        for request in &requests {
            run(&desired, &mut model, request);
            prop_assert_eq!(&told(&desired.current()), &model, "{:?}", request);
        }
        drop(desired);
        // What the store holds is all of it, its index and its claims included.
        let (_, again) = open(directory.path());
        prop_assert_eq!(&told(&again.current()), &model);
        let ports = |raw: bool| Ports::from([(0, raw)]);
        for raw in [true, false] {
            let made = again
                .create_service_groups(US, &[new_group(0, raw, None)], &gateway(), NOW)
                .unwrap();
            let allowed = model.allows(None, &ports(raw), &BTreeSet::new());
            prop_assert_eq!(made.outcome[0].is_ok(), allowed);
            if let Ok(made) = &made.outcome[0] {
                again.delete_service_groups(US, &[Selector::Uuid(made.uuid)]).unwrap();
            }
        }
    }
}
