//! Health checks that go with no service.

use lbagent_api::service_group::Protocol;

use crate::desired::ServiceGroup;

/// Checks that have no effect.
pub fn remarks(group: &ServiceGroup) -> impl Iterator<Item = String> {
    let (health, name) = (&group.policy.health, &group.name);
    let own = health.services.iter().filter_map(move |wanted| {
        let is_published = group.services.iter().any(|service| {
            service.port == wanted.port && Protocol::from(service.protocol) == wanted.protocol
        });
        (!is_published).then(|| {
            format!(
                "The health check of port {}/{} has no effect: service group '{name}' does not \
                 publish it",
                wanted.port, wanted.protocol
            )
        })
    });
    let general = health.check.iter().filter_map(move |check| {
        let protocol = check.protocol();
        let mut services = group.services.iter();
        let has_target = check.port.is_some()
            || services.any(|service| Protocol::from(service.protocol) == protocol);
        (!has_target).then(|| {
            format!(
                "The health check has no effect: it uses {protocol}, and service group '{name}' \
                 publishes no port of that; give the check a port of the instances"
            )
        })
    });
    own.chain(general)
}
