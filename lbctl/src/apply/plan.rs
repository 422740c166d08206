//! What differs between files and agent. Pure but for the policies, which are asked for.

use std::collections::HashSet;

use serde::Serialize;

use super::{Present, State};
use crate::client::Client;
use crate::cmd::Kind;
use crate::error::CtlError;
use crate::manifest::Manifest;
use crate::manifest::read::Object;

/// One object's part of the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What the agent has.
    pub from: Option<Present>,
    /// What is asked for; nothing for an object that goes.
    pub to: Option<Manifest>,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is as asked for.
    Unchanged,
    /// It was not there.
    Created,
    /// It keeps its identity.
    Changed,
    /// It goes, and another of its name comes: what differs cannot be changed.
    Replaced,
    /// No file has it.
    Pruned,
}

impl Action {
    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Replaced => "replaced",
            Self::Pruned => "pruned",
        }
    }
}

impl Change {
    /// What is done.
    pub fn action(&self) -> Action {
        let Some(Present { manifest: from, .. }) = &self.from else {
            return Action::Created;
        };
        match (from, &self.to) {
            (_, None) => Action::Pruned,
            (from, Some(to)) if from == to => Action::Unchanged,
            (from, Some(to)) if is_another(from, to) => Action::Replaced,
            _ => Action::Changed,
        }
    }

    /// The object.
    pub fn manifest(&self) -> Option<&Manifest> {
        let from = self.from.as_ref().map(|present| &present.manifest);
        self.to.as_ref().or(from)
    }
}

/// Whether what differs is part of an object for life.
fn is_another(from: &Manifest, to: &Manifest) -> bool {
    match (from, to) {
        (Manifest::Instance(from), Manifest::Instance(to)) => {
            from.addresses != to.addresses
                || from.service_group != to.service_group
                || from.image != to.image
        }
        (Manifest::Certificate(from), Manifest::Certificate(to)) => {
            from.common_name != to.common_name
        }
        _ => false,
    }
}

/// What is to be done, in the order of the files; `prune` adds the objects, of the kinds that the
/// files have, that no file describes.
pub fn plan(
    objects: &[Object],
    state: &State,
    prune: bool,
    client: &Client,
) -> Result<Vec<Change>, CtlError> {
    let mut changes = Vec::new();
    for Object { manifest, .. } in objects {
        let mut from = state.present(manifest.kind(), manifest.name(), client)?;
        if let Some(from) = &mut from {
            forget_choices(&mut from.manifest, manifest);
        }
        let to = completed(manifest.clone(), from.as_ref().map(|it| &it.manifest));
        changes.push(Change { from, to: Some(to) });
    }
    if prune {
        for (kind, name) in unnamed(objects, state) {
            let from = state.present(kind, &name, client)?;
            changes.push(Change { from, to: None });
        }
    }
    Ok(changes)
}

/// The agent tells the certificate that a domain is served with. Where the file asks for none, it is
/// the agent's to choose, and no difference.
fn forget_choices(from: &mut Manifest, to: &Manifest) {
    let (Manifest::ServiceGroup(from), Manifest::ServiceGroup(to)) = (from, to) else {
        return;
    };
    for domain in from.domains.iter_mut().flatten() {
        let mut wanted = to.domains.iter().flatten();
        let is_asked_for = wanted
            .find(|wanted| wanted.name == domain.name)
            .is_some_and(|wanted| wanted.certificate.is_some());
        if !is_asked_for {
            domain.certificate = None;
        }
    }
}

/// What a file leaves away and does not reset stays as it is.
pub fn completed(mut to: Manifest, from: Option<&Manifest>) -> Manifest {
    match (&mut to, from) {
        (Manifest::ServiceGroup(to), Some(Manifest::ServiceGroup(from)))
            if to.domains.is_none() =>
        {
            to.domains.clone_from(&from.domains);
        }
        (Manifest::Instance(to), Some(Manifest::Instance(from))) => {
            to.state = to.state.or(from.state)
        }
        (Manifest::Certificate(to), Some(Manifest::Certificate(from)))
            if to.common_name.is_none() =>
        {
            to.common_name.clone_from(&from.common_name);
        }
        _ => {}
    }
    to
}

fn unnamed(objects: &[Object], state: &State) -> Vec<(Kind, String)> {
    let named: HashSet<(Kind, &str)> = objects
        .iter()
        .map(|object| (object.manifest.kind(), object.manifest.name()))
        .collect();
    let kinds: HashSet<Kind> = named.iter().map(|(kind, _)| *kind).collect();
    let groups = state.groups.keys().map(|name| (Kind::ServiceGroup, name));
    let instances = state.instances.keys().map(|name| (Kind::Instance, name));
    let certificates = state.certificates.keys();
    let certificates = certificates.map(|name| (Kind::Certificate, name));
    groups
        .chain(instances)
        .chain(certificates)
        .filter(|(kind, name)| kinds.contains(kind) && !named.contains(&(*kind, name.as_str())))
        .map(|(kind, name)| (kind, name.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::read;

    #[test]
    fn of_a_kind_that_no_file_has_nothing_goes() {
        let group = |name: &str| {
            let group = json!({"uuid": "6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001", "name": name,
                               "created_at": "2026-01-02T03:04:05Z", "persistent": true,
                               "soft_limit": 1, "hard_limit": 65535, "services": []});
            (name.to_owned(), serde_json::from_value(group).unwrap())
        };
        let state = State {
            groups: ["old", "web"].map(group).into(),
            ..State::default()
        };
        let check = |text: &str, expected: &[&str]| {
            let objects = read::text("a.yaml", text).unwrap();
            let expected = expected
                .iter()
                .map(|name| (Kind::ServiceGroup, (*name).to_owned()));
            assert_eq!(
                unnamed(&objects, &state),
                expected.collect::<Vec<_>>(),
                "{text}"
            );
        };
        let instance = "kind: Instance\nname: web\naddresses: [10.0.0.11]\n";
        let service = "kind: ServiceGroup\nname: web\nservices: [5432/tcp]\n";
        check(instance, &[]);
        check(service, &["old"]);
        check(&format!("{service}---\n{instance}"), &["old"]);
        let other = service.replace("web", "new");
        check(&other, &["old", "web"]);
    }
}
