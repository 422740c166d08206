//! What is wrong with objects together, found before anything is changed.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use lbagent_api::service_group::{Service, collide, validate_limits};

use super::State;
use crate::cmd::Kind;
use crate::manifest::read::{Object, Place};
use crate::manifest::{GroupManifest, InstanceManifest, Manifest, Port};

/// One line for each mistake. With what the agent has, also what does not go together with that;
/// `prunes` says which kinds go from there if no file has them.
pub fn check(objects: &[Object], state: Option<&State>, prunes: &HashSet<Kind>) -> Vec<String> {
    let mut checker = Checker::default();
    if let Some(state) = state {
        checker.note_what_stays(objects, state, prunes);
    }
    for object in objects {
        checker.note(object);
    }
    for object in objects {
        match &object.manifest {
            Manifest::ServiceGroup(group) => checker.check_group(&object.place, group),
            Manifest::Instance(instance) => {
                checker.check_instance(&object.place, instance, state.is_some());
            }
            // Its chain and key were checked when they were read.
            Manifest::Certificate(_) => {}
        }
    }
    checker.mistakes
}

/// The kinds that `--prune` is about.
pub fn kinds(objects: &[Object]) -> HashSet<Kind> {
    objects
        .iter()
        .map(|object| object.manifest.kind())
        .collect()
}

#[derive(Debug, Default)]
struct Checker {
    groups: HashSet<String>,
    /// Who publishes a port of this number.
    ports: HashMap<u16, Vec<(String, Service)>>,
    domains: HashMap<String, String>,
    addresses: HashMap<IpAddr, String>,
    mistakes: Vec<String>,
}

impl Checker {
    fn note_what_stays(&mut self, objects: &[Object], state: &State, prunes: &HashSet<Kind>) {
        let described: HashSet<(Kind, &str)> = objects
            .iter()
            .map(|object| (object.manifest.kind(), object.manifest.name()))
            .collect();
        let stays =
            |kind, name: &str| !prunes.contains(&kind) && !described.contains(&(kind, name));
        for (name, group) in &state.groups {
            if stays(Kind::ServiceGroup, name) {
                self.note_group(&GroupManifest::of(group, Default::default()));
            }
        }
        for (name, instance) in &state.instances {
            if stays(Kind::Instance, name) {
                self.note_instance(&InstanceManifest::of(instance, Default::default()));
            }
        }
    }

    fn note(&mut self, object: &Object) {
        match &object.manifest {
            Manifest::ServiceGroup(group) => self.note_group(group),
            Manifest::Instance(instance) => self.note_instance(instance),
            Manifest::Certificate(_) => {}
        }
    }

    fn note_group(&mut self, group: &GroupManifest) {
        self.groups.insert(group.name.clone());
        for Port(service) in &group.services {
            let owners = self.ports.entry(service.port).or_default();
            owners.push((group.name.clone(), service.clone()));
        }
        // The first one has it: the others are wrong.
        for domain in group.domains.iter().flatten() {
            self.domains
                .entry(domain.name.clone())
                .or_insert_with(|| group.name.clone());
        }
    }

    fn note_instance(&mut self, instance: &InstanceManifest) {
        for address in &instance.addresses {
            self.addresses
                .entry(*address)
                .or_insert_with(|| instance.name.clone());
        }
    }

    fn check_group(&mut self, place: &Place, group: &GroupManifest) {
        let (soft, hard) = (group.soft_limit.into(), group.hard_limit.into());
        if let Err(error) = validate_limits(Some(soft), Some(hard)) {
            self.wrong(place, &group.name, &error.message);
        }
        if group.policy.forwarding_mode.rewrites_ports() {
        } else if let Some(Port(service)) = group
            .services
            .iter()
            .find(|Port(service)| service.port != service.destination_port)
        {
            let text = format!(
                "port {service} changes its number, which forwarding mode {} cannot",
                group.policy.forwarding_mode
            );
            self.wrong(place, &group.name, &text);
        }
        for Port(service) in &group.services {
            let clash = self.ports.get(&service.port).and_then(|owners| {
                owners.iter().find(|(owner, other)| {
                    *owner != group.name
                        && collide(service, other)
                        // Ports of the terminator are told apart by domain names.
                        && (service.is_raw() || other.is_raw())
                })
            });
            if let Some((owner, _)) = clash {
                let text = format!(
                    "port {}/{} is taken by service group '{owner}'",
                    service.port, service.protocol
                );
                self.wrong(place, &group.name, &text);
            }
        }
        for domain in group.domains.iter().flatten() {
            if let Some(owner) = self
                .domains
                .get(&domain.name)
                .filter(|owner| **owner != group.name)
            {
                let text = format!(
                    "domain '{}' is taken by service group '{owner}'",
                    domain.name
                );
                self.wrong(place, &group.name, &text);
            }
        }
    }

    fn check_instance(&mut self, place: &Place, instance: &InstanceManifest, knows_all: bool) {
        if let Some(group) = &instance.service_group
            && knows_all
            && !self.groups.contains(group)
        {
            let text = format!("there is no service group '{group}', here or on the agent");
            self.wrong(place, &instance.name, &text);
        }
        for address in &instance.addresses {
            if let Some(owner) = self
                .addresses
                .get(address)
                .filter(|owner| **owner != instance.name)
            {
                let text = format!("address {address} is taken by instance '{owner}'");
                self.wrong(place, &instance.name, &text);
            }
        }
    }

    fn wrong(&mut self, place: &Place, name: &str, text: &str) {
        self.mistakes.push(format!("{place}: {name}: {text}"));
    }
}
