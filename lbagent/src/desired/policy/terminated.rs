//! Whether what a group's policy says of its ports goes with their handlers.

use lbagent_api::policy::TerminatedPort;
use lbagent_api::service_group::Handler;
use lbagent_api::terminator::UpstreamProtocol;

use crate::desired::{Service, ServiceGroup, Transport};

/// A setting is for ports with other handlers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Service group '{group}' cannot have '{setting}' for port {port}, which has {}: {remedy}",
    if handlers.is_empty() { "no handlers".to_owned() } else { format!("the handlers {handlers}") }
)]
pub struct HandlerConflict {
    /// Name of the group.
    pub group: String,
    /// Published port.
    pub port: u16,
    /// The setting.
    pub setting: &'static str,
    /// What the port has, as `tls+http`.
    pub handlers: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Whether a group's settings of ports go with what it publishes. A port that it does not publish is
/// none to check.
pub fn check(group: &ServiceGroup) -> Result<(), HandlerConflict> {
    for wanted in group.policy.terminated.iter() {
        let published = group
            .services
            .iter()
            .find(|service| is_meant(wanted, service));
        let Some(service) = published else { continue };
        let has = |handler| service.handlers.contains(&handler);
        let is_http = has(Handler::Http) && !has(Handler::Redirect);
        let is_stream = has(Handler::Tls) && !has(Handler::Http);
        let policy = &wanted.policy;
        let refusal = if policy.upstream != UpstreamProtocol::Http1 && !is_http {
            let remedy = "the gateway speaks HTTP to instances of ports with the handler http only; \
                          use http1, or publish the port with http";
            Some(("upstream", remedy))
        } else if policy.send_proxy && !is_stream {
            let remedy = "the PROXY protocol is for ports with the handler tls alone; with http, \
                          instances read X-Forwarded-For";
            Some(("send_proxy", remedy))
        } else if policy.requests_per_source > 0 && !has(Handler::Http) {
            let remedy = "requests are seen at ports with the handler http only; use 0, or publish \
                          the port with http";
            Some(("requests_per_source", remedy))
        } else {
            None
        };
        if let Some((setting, remedy)) = refusal {
            let handlers: Vec<&str> = service.handlers.iter().map(|it| it.as_str()).collect();
            return Err(HandlerConflict {
                group: group.name.clone(),
                port: wanted.port,
                setting,
                handlers: handlers.join("+"),
                remedy,
            });
        }
    }
    Ok(())
}

/// Settings that have no effect.
pub fn remarks(group: &ServiceGroup) -> impl Iterator<Item = String> {
    let is_idle = |wanted: &&TerminatedPort| {
        let mut services = group.services.iter();
        !services.any(|service| is_meant(wanted, service) && !service.handlers.is_empty())
    };
    let idle = group.policy.terminated.iter().filter(is_idle);
    idle.map(|wanted| {
        format!(
            "The settings of port {} have no effect: service group '{}' does not publish it with \
             handlers",
            wanted.port, group.name
        )
    })
}

fn is_meant(wanted: &TerminatedPort, service: &Service) -> bool {
    service.port == wanted.port && service.protocol == Transport::Tcp
}
