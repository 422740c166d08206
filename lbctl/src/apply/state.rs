//! What the agent has.

use std::collections::BTreeMap;

use lbagent_api::instance::Instance;
use lbagent_api::service_group::ServiceGroup;

use crate::client::Client;
use crate::cmd::{Kind, instance, service};
use crate::error::CtlError;
use crate::manifest::{self, Manifest};

/// All groups and instances of the account, by name.
#[derive(Debug, Default)]
pub struct State {
    /// Service groups.
    pub groups: BTreeMap<String, ServiceGroup>,
    /// Instances.
    pub instances: BTreeMap<String, Instance>,
}

impl State {
    /// Asks the agent.
    pub fn fetch(client: &Client) -> Result<Self, CtlError> {
        let groups = service::fetch(&[], client)?.into_iter();
        let instances = instance::fetch(&[], client)?.into_iter();
        Ok(Self {
            groups: groups.map(|group| (group.name.clone(), group)).collect(),
            instances: instances
                .map(|instance| (instance.name.clone(), instance))
                .collect(),
        })
    }

    /// The object as a document; policies are asked for one by one.
    pub fn manifest(
        &self,
        kind: Kind,
        name: &str,
        client: &Client,
    ) -> Result<Option<Manifest>, CtlError> {
        match kind {
            Kind::ServiceGroup => self
                .groups
                .get(name)
                .map(|group| manifest::of_group(group, client))
                .transpose(),
            Kind::Instance => self
                .instances
                .get(name)
                .map(|instance| manifest::of_instance(instance, client))
                .transpose(),
        }
    }
}
