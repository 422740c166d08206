//! The way from what the agent has to what is asked for, by the contract's calls.
//!
//! What goes is deleted first, so that its ports and addresses are free. What the agent refuses
//! because another object still has it is tried again as long as others get done.

use lbagent_api::envelope::{Instances, Reference, ServiceGroups};
use lbagent_api::instance::{InstanceServiceGroupSpec, InstanceSpec, NetworkInterfaceSpec};
use lbagent_api::lifecycle::{StartSpec, StateChange, StopSpec};
use lbagent_api::policy::PolicyData;
use lbagent_api::request::SelectorSpec;
use lbagent_api::service_group::{Autokill, DomainSpec, ServiceGroupSpec, ServiceSpec};
use lbagent_api::{ErrorCode, paths};
use serde::Serialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{Action, Change};
use crate::client::{Client, all};
use crate::cmd::{Kind, policy};
use crate::error::CtlError;
use crate::manifest::{GroupManifest, InstanceManifest, Manifest, Port, RunState};

/// A change and how it went.
pub type Done<'a> = (&'a Change, Result<(), CtlError>);

/// Makes all changes; one that fails keeps no other from being made.
pub fn execute<'a>(changes: &'a [Change], client: &Client) -> Vec<Done<'a>> {
    let mut done: Vec<Done<'a>> = Vec::new();
    let of = |kind: Kind, actions: &[Action]| -> Vec<&'a Change> {
        let wanted = |change: &&'a Change| {
            let manifest = change.manifest();
            manifest.is_some_and(|manifest| manifest.kind() == kind)
                && actions.contains(&change.action())
        };
        changes.iter().filter(wanted).collect()
    };
    phase(
        of(Kind::Instance, &[Action::Pruned]),
        delete,
        client,
        &mut done,
    );
    // All that are replaced go before the first one comes: they may trade addresses.
    let mut gone = Vec::new();
    for change in of(Kind::Instance, &[Action::Replaced]) {
        match delete(change, client) {
            Ok(()) => gone.push(change),
            Err(error) => done.push((change, Err(error))),
        }
    }
    phase(
        of(Kind::ServiceGroup, &[Action::Pruned]),
        delete,
        client,
        &mut done,
    );
    let to_do = [Action::Changed, Action::Created];
    phase(of(Kind::ServiceGroup, &to_do), make, client, &mut done);
    phase(gone, create, client, &mut done);
    phase(of(Kind::Instance, &to_do), make, client, &mut done);
    for kind in [Kind::ServiceGroup, Kind::Instance] {
        let same = of(kind, &[Action::Unchanged]);
        done.extend(same.into_iter().map(|change| (change, Ok(()))));
    }
    done
}

/// One way to make a change.
type Make = fn(&Change, &Client) -> Result<(), CtlError>;

fn phase<'a>(mut waiting: Vec<&'a Change>, make: Make, client: &Client, done: &mut Vec<Done<'a>>) {
    loop {
        let before = waiting.len();
        let mut blocked = Vec::new();
        for change in waiting {
            match make(change, client) {
                Err(error) if is_taken(&error) => blocked.push((change, error)),
                result => done.push((change, result)),
            }
        }
        if blocked.is_empty() || blocked.len() == before {
            done.extend(
                blocked
                    .into_iter()
                    .map(|(change, error)| (change, Err(error))),
            );
            return;
        }
        waiting = blocked.into_iter().map(|(change, _)| change).collect();
    }
}

/// Whether another object has what this one wants.
fn is_taken(error: &CtlError) -> bool {
    match error {
        CtlError::Items(items) => items
            .iter()
            .any(|item| matches!(item.error, ErrorCode::AlreadyExists | ErrorCode::NoFree)),
        CtlError::Refused { status, .. } => *status == 409,
        _ => false,
    }
}

fn make(change: &Change, client: &Client) -> Result<(), CtlError> {
    match (&change.from, &change.to) {
        (Some(Manifest::ServiceGroup(from)), Some(Manifest::ServiceGroup(to))) => {
            change_group(from, to, client)
        }
        (Some(Manifest::Instance(from)), Some(Manifest::Instance(to))) => {
            change_instance(from, to, client)
        }
        _ => create(change, client),
    }
}

fn delete(change: &Change, client: &Client) -> Result<(), CtlError> {
    let Some(manifest) = &change.from else {
        return Ok(());
    };
    let body = [by_name(manifest.name())];
    match manifest.kind() {
        Kind::ServiceGroup => {
            let answer: ServiceGroups<Reference> =
                client.send(Method::DELETE, paths::SERVICES, &body)?;
            all(answer.service_groups).map(drop)
        }
        Kind::Instance => {
            let answer: Instances<Reference> =
                client.send(Method::DELETE, paths::INSTANCES, &body)?;
            all(answer.instances).map(drop)
        }
    }
}

fn by_name(name: &str) -> SelectorSpec {
    SelectorSpec {
        uuid: None,
        name: Some(name.to_owned()),
    }
}

fn create(change: &Change, client: &Client) -> Result<(), CtlError> {
    match &change.to {
        None => Ok(()),
        Some(Manifest::ServiceGroup(group)) => {
            let spec = group_spec(group);
            let answer: ServiceGroups<Reference> =
                client.send(Method::POST, paths::SERVICES, &spec)?;
            all(answer.service_groups)?;
            if group.policy.is_default() {
                return Ok(());
            }
            put_policy(Kind::ServiceGroup, &group.name, &group.policy, client)
        }
        Some(Manifest::Instance(instance)) => {
            let spec = instance_spec(instance);
            let answer: Instances<Reference> =
                client.send(Method::POST, paths::INSTANCES, &spec)?;
            all(answer.instances)?;
            if instance.policy.is_default() {
                return Ok(());
            }
            put_policy(Kind::Instance, &instance.name, &instance.policy, client)
        }
    }
}

fn group_spec(group: &GroupManifest) -> ServiceGroupSpec {
    ServiceGroupSpec {
        name: Some(group.name.clone()),
        services: Some(service_specs(&group.services)),
        domains: group.domains.as_deref().map(domain_specs),
        soft_limit: Some(group.soft_limit.into()),
        hard_limit: Some(group.hard_limit.into()),
        autokill: group.autokill.map(|time_ms| Autokill { time_ms }),
        ..ServiceGroupSpec::default()
    }
}

fn service_specs(ports: &[Port]) -> Vec<ServiceSpec> {
    ports.iter().map(|Port(service)| service.into()).collect()
}

fn domain_specs(domains: &[String]) -> Vec<DomainSpec> {
    let spec = |name: &String| DomainSpec {
        name: format!("{name}."),
        certificate: None,
    };
    domains.iter().map(spec).collect()
}

fn instance_spec(instance: &InstanceManifest) -> InstanceSpec {
    let interface = |ip: &std::net::IpAddr| NetworkInterfaceSpec {
        ip: Some(ip.to_string()),
        ..NetworkInterfaceSpec::default()
    };
    let group = |name: &String| InstanceServiceGroupSpec {
        name: Some(name.clone()),
        ..InstanceServiceGroupSpec::default()
    };
    InstanceSpec {
        name: Some(instance.name.clone()),
        image: instance.image.clone().map(Into::into),
        service_group: instance.service_group.as_ref().map(group),
        network_interfaces: Some(instance.addresses.iter().map(interface).collect()),
        autostart: Some(instance.state != Some(RunState::Stopped)),
        ..InstanceSpec::default()
    }
}

fn put_policy(
    kind: Kind,
    name: &str,
    policy: &(impl Serialize + Clone),
    client: &Client,
) -> Result<(), CtlError> {
    let body = PolicyData {
        policy: policy.clone(),
    };
    let path = policy::path(kind, name);
    client.send::<Value>(Method::PUT, &path, &body).map(drop)
}

fn change_group(from: &GroupManifest, to: &GroupManifest, client: &Client) -> Result<(), CtlError> {
    let operations = operations(from, to);
    let patch = || -> Result<(), CtlError> {
        if operations.is_empty() {
            return Ok(());
        }
        let answer: ServiceGroups<Reference> =
            client.send(Method::PATCH, paths::SERVICES, &operations)?;
        all(answer.service_groups).map(drop)
    };
    if from.policy == to.policy {
        return patch();
    }
    let put = || put_policy(Kind::ServiceGroup, &to.name, &to.policy, client);
    // A forwarding mode may want the new ports, and new ports may want the forwarding mode.
    if put().is_ok() {
        return patch();
    }
    patch()?;
    put()
}

/// `PATCH` of what differs: one operation for each property, all of them or none.
fn operations(from: &GroupManifest, to: &GroupManifest) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut set = |prop: &str, differs: bool, value: Value| {
        if differs {
            operations.push(json!({"name": to.name, "prop": prop, "op": "set", "value": value}));
        }
    };
    set(
        "services",
        from.services != to.services,
        json!(service_specs(&to.services)),
    );
    let domains = to.domains.as_deref().unwrap_or_default();
    set(
        "domains",
        from.domains != to.domains,
        json!(domain_specs(domains)),
    );
    set(
        "soft_limit",
        from.soft_limit != to.soft_limit,
        to.soft_limit.into(),
    );
    set(
        "hard_limit",
        from.hard_limit != to.hard_limit,
        to.hard_limit.into(),
    );
    let time_ms = to.autokill.unwrap_or(0);
    set(
        "autokill",
        from.autokill != to.autokill,
        json!({ "time_ms": time_ms }),
    );
    operations
}

fn change_instance(
    from: &InstanceManifest,
    to: &InstanceManifest,
    client: &Client,
) -> Result<(), CtlError> {
    if from.policy != to.policy {
        put_policy(Kind::Instance, &to.name, &to.policy, client)?;
    }
    let name = Some(to.name.clone());
    let answer: Instances<StateChange> = match to.state {
        state if state == from.state => return Ok(()),
        Some(RunState::Stopped) => {
            let body = [StopSpec {
                name,
                ..StopSpec::default()
            }];
            client.send(Method::PUT, paths::INSTANCES_STOP, &body)?
        }
        _ => {
            let body = [StartSpec {
                name,
                ..StartSpec::default()
            }];
            client.send(Method::PUT, paths::INSTANCES_START, &body)?
        }
    };
    all(answer.instances).map(drop)
}
