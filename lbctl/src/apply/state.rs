//! What the agent has.

use std::collections::{BTreeMap, HashSet};

use lbagent_api::certificate::Certificate;
use lbagent_api::instance::Instance;
use lbagent_api::service_group::ServiceGroup;
use uuid::Uuid;

use crate::client::Client;
use crate::cmd::{Kind, certificate, instance, service};
use crate::error::CtlError;
use crate::manifest::{self, CertificateManifest, Manifest};

/// All groups and instances of the account, by name, and its certificates if they matter.
#[derive(Debug, Default)]
pub struct State {
    /// Service groups.
    pub groups: BTreeMap<String, ServiceGroup>,
    /// Instances.
    pub instances: BTreeMap<String, Instance>,
    /// Certificates.
    pub certificates: BTreeMap<String, Certificate>,
}

/// An object that the agent has.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    /// What it is like.
    pub manifest: Manifest,
    /// Its identity.
    pub uuid: Uuid,
    /// The entity tag that it must have when it is changed; none where any will do.
    pub tag: Option<String>,
}

impl State {
    /// Asks the agent for what has to do with objects of these kinds.
    pub fn fetch(kinds: &HashSet<Kind>, client: &Client) -> Result<Self, CtlError> {
        let groups = service::fetch(&[], client)?.into_iter();
        let instances = instance::fetch(&[], client)?.into_iter();
        let certificates = match kinds.contains(&Kind::Certificate) {
            true => certificate::fetch(&[], client)?,
            false => Vec::new(),
        };
        let certificates = certificates.into_iter();
        Ok(Self {
            groups: groups.map(|it| (it.name.clone(), it)).collect(),
            instances: instances.map(|it| (it.name.clone(), it)).collect(),
            certificates: certificates.map(|it| (it.name.clone(), it)).collect(),
        })
    }

    /// The object as a document; policies are asked for one by one.
    pub fn present(
        &self,
        kind: Kind,
        name: &str,
        client: &Client,
    ) -> Result<Option<Present>, CtlError> {
        let found = match kind {
            Kind::ServiceGroup => self
                .groups
                .get(name)
                .map(|group| (group.uuid, manifest::of_group(group, client))),
            Kind::Instance => self
                .instances
                .get(name)
                .map(|instance| (instance.uuid, manifest::of_instance(instance, client))),
            Kind::Certificate => self.certificates.get(name).map(|certificate| {
                let manifest = CertificateManifest::of(certificate);
                (certificate.uuid, Ok(Manifest::Certificate(manifest)))
            }),
        };
        let present = |(uuid, manifest): (Uuid, Result<Manifest, CtlError>)| {
            Ok(Present {
                manifest: manifest?,
                uuid,
                tag: None,
            })
        };
        found.map(present).transpose()
    }
}

impl Present {
    /// Asks the agent for one object and the tag that it has. The tag is not newer than the rest, so
    /// a change meanwhile is found when the tag is used.
    pub fn fetch(kind: Kind, word: &str, client: &Client) -> Result<Option<Self>, CtlError> {
        let words = [word.to_owned()];
        let found = match kind {
            Kind::ServiceGroup => {
                let (policy, tag) = manifest::tagged_policy(client, word)?;
                let group = service::fetch(&words, client)?.pop();
                group.map(|it| (it.uuid, tag, manifest::group(&it, policy)))
            }
            Kind::Instance => {
                let (policy, tag) = manifest::tagged_policy(client, word)?;
                let instance = instance::fetch(&words, client)?.pop();
                instance.map(|it| (it.uuid, tag, manifest::instance(&it, policy)))
            }
            // Nothing waits for a person between reading and writing one.
            Kind::Certificate => certificate::fetch(&words, client)?.pop().map(|it| {
                let manifest = CertificateManifest::of(&it);
                (it.uuid, None, Manifest::Certificate(manifest))
            }),
        };
        Ok(found.map(|(uuid, tag, manifest)| Self {
            manifest,
            uuid,
            tag,
        }))
    }

    /// The object after a change of ours that made it `expected`: nobody else may have changed it,
    /// if that matters at all.
    pub fn after(&self, expected: Manifest, client: &Client) -> Result<Self, CtlError> {
        if self.tag.is_none() {
            return Ok(self.clone());
        }
        let now = Self::fetch(expected.kind(), &self.uuid.to_string(), client)?;
        match now.filter(|now| now.manifest == expected) {
            Some(now) => Ok(now),
            None => Err(CtlError::changed()),
        }
    }
}
