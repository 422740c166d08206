//! The contract's calls that make one change.

use lbagent_api::envelope::{Instances, Reference, ServiceGroups};
use lbagent_api::instance::{InstanceServiceGroupSpec, InstanceSpec, NetworkInterfaceSpec};
use lbagent_api::lifecycle::StateChange;
use lbagent_api::paths;
use lbagent_api::policy::PolicyData;
use lbagent_api::service_group::{Autokill, DomainSpec, ServiceGroupSpec, ServiceSpec};
use serde_json::{Value, json};
use ureq::http::Method;

use super::Change;
use super::state::Present;
use crate::client::{Client, Outcomes, all};
use crate::cmd::certificate::{send_new, send_rotated};
use crate::cmd::policy::Policy;
use crate::error::CtlError;
use crate::manifest::{
    CertificateManifest, Domain, GroupManifest, InstanceManifest, Manifest, Port, RunState,
};

/// Makes an object as it is asked for, or another of an object that is there.
pub fn make(change: &Change, client: &Client) -> Result<(), CtlError> {
    let (Some(present), Some(to)) = (&change.from, &change.to) else {
        return create(change, client);
    };
    match (&present.manifest, to) {
        (Manifest::ServiceGroup(from), Manifest::ServiceGroup(to)) => {
            change_group(present, from, to, client)
        }
        (Manifest::Instance(from), Manifest::Instance(to)) => {
            change_instance(present, from, to, client)
        }
        (_, Manifest::Certificate(to)) => match &to.pair {
            Some(pair) => send_rotated(&present.uuid.to_string(), pair.clone(), client).map(drop),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Deletes an object that is there.
pub fn delete(change: &Change, client: &Client) -> Result<(), CtlError> {
    let Some(present) = &change.from else {
        return Ok(());
    };
    let path = format!("{}/{}", present.manifest.kind().path(), present.uuid);
    let answer: Outcomes<Reference> = client.delete(&path, present.tag.as_deref())?;
    all(answer.into_values().flatten().collect()).map(drop)
}

/// Makes an object that is not there.
pub fn create(change: &Change, client: &Client) -> Result<(), CtlError> {
    match &change.to {
        None => Ok(()),
        Some(Manifest::ServiceGroup(group)) => {
            let spec = group_spec(group);
            let answer: ServiceGroups<Reference> =
                client.send(Method::POST, paths::SERVICES, &spec)?;
            all(answer.service_groups)?;
            put_new_policy(&group.name, &group.policy, client)
        }
        Some(Manifest::Instance(instance)) => {
            let spec = instance_spec(instance);
            let answer: Instances<Reference> =
                client.send(Method::POST, paths::INSTANCES, &spec)?;
            all(answer.instances)?;
            put_new_policy(&instance.name, &instance.policy, client)
        }
        Some(Manifest::Certificate(certificate)) => create_certificate(certificate, client),
    }
}

fn create_certificate(certificate: &CertificateManifest, client: &Client) -> Result<(), CtlError> {
    // What the agent has and no file is never created.
    let Some(pair) = certificate.pair.clone() else {
        return Ok(());
    };
    let own = pair.examine().map_err(CtlError::Usage)?.domain;
    let common_name = certificate.common_name.clone().or(own);
    let common_name = common_name.ok_or_else(|| {
        CtlError::Usage("the certificate names no domain; give one as 'common_name'".to_owned())
    })?;
    send_new(Some(certificate.name.clone()), common_name, pair, client).map(drop)
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

fn domain_specs(domains: &[Domain]) -> Vec<DomainSpec> {
    domains.iter().map(DomainSpec::from).collect()
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

/// A new object has the default policy.
fn put_new_policy<P: Policy>(name: &str, policy: &P, client: &Client) -> Result<(), CtlError> {
    if *policy == P::default() {
        return Ok(());
    }
    put_policy(name, policy, None, client)
}

fn put_policy<P: Policy>(
    word: &str,
    policy: &P,
    tag: Option<&str>,
    client: &Client,
) -> Result<(), CtlError> {
    let body = PolicyData {
        policy: policy.clone(),
    };
    let path = P::path(word);
    client
        .send_if::<Value>(tag, Method::PUT, &path, &body)
        .map(drop)
}

fn change_group(
    present: &Present,
    from: &GroupManifest,
    to: &GroupManifest,
    client: &Client,
) -> Result<(), CtlError> {
    let operations = operations(from, to);
    let patch = |present: &Present| -> Result<(), CtlError> {
        let (path, tag) = (
            format!("{}/{}", paths::SERVICES, present.uuid),
            &present.tag,
        );
        let answer: ServiceGroups<Reference> =
            client.send_if(tag.as_deref(), Method::PATCH, &path, &operations)?;
        all(answer.service_groups).map(drop)
    };
    let put = |present: &Present| {
        let uuid = present.uuid.to_string();
        put_policy(&uuid, &to.policy, present.tag.as_deref(), client)
    };
    match (from.policy != to.policy, operations.is_empty()) {
        (false, true) => Ok(()),
        (false, false) => patch(present),
        (true, true) => put(present),
        // A forwarding mode may want the new ports, and new ports may want the forwarding mode.
        (true, false) => match put(present) {
            Ok(()) => {
                let mut between = from.clone();
                between.policy = to.policy.clone();
                patch(&present.after(Manifest::ServiceGroup(between), client)?)
            }
            Err(error) if error.is_changed() => Err(error),
            Err(_) => {
                patch(present)?;
                let mut between = to.clone();
                between.policy = from.policy.clone();
                put(&present.after(Manifest::ServiceGroup(between), client)?)
            }
        },
    }
}

/// `PATCH` of what differs: one operation for each property, all of them or none.
fn operations(from: &GroupManifest, to: &GroupManifest) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut set = |prop: &str, differs: bool, value: Value| {
        if differs {
            operations.push(json!({"prop": prop, "op": "set", "value": value}));
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
    present: &Present,
    from: &InstanceManifest,
    to: &InstanceManifest,
    client: &Client,
) -> Result<(), CtlError> {
    let mut present = present.clone();
    if from.policy != to.policy {
        let uuid = present.uuid.to_string();
        put_policy(&uuid, &to.policy, present.tag.as_deref(), client)?;
        if from.state != to.state {
            let mut between = from.clone();
            between.policy = to.policy.clone();
            present = present.after(Manifest::Instance(between), client)?;
        }
    }
    let action = match to.state {
        state if state == from.state => return Ok(()),
        Some(RunState::Stopped) => "stop",
        _ => "start",
    };
    let path = format!("{}/{}/{action}", paths::INSTANCES, present.uuid);
    let answer: Instances<StateChange> =
        client.send_if(present.tag.as_deref(), Method::PUT, &path, &json!({}))?;
    all(answer.instances).map(drop)
}
