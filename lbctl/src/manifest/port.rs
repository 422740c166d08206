//! A published port as a word: `443:8080/tls+http`, `53:5353/udp@192.0.2.1`.

use std::fmt;

use lbagent_api::port_spec;
use lbagent_api::service_group::{Service, ServiceSpec, validate_services};
use serde::{Deserialize, Deserializer, Serialize};

use super::text::from_text;

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Port(pub Service);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip {
            Some(ip) => write!(f, "{}@{ip}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

/// A word, which may stand for two ports.
struct Word(Vec<Port>);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, word).map(Self)
    }
}

fn word(text: &str) -> Result<Vec<Port>, String> {
    let (ports, ip) = match text.split_once('@') {
        Some((ports, ip)) => {
            let ip = ip.parse();
            let ip = ip.map_err(|_| format!("port '{text}': no IP address after the @"))?;
            (ports, Some(ip))
        }
        None => (text, None),
    };
    let services = port_spec::parse(ports).map_err(|error| error.to_string())?;
    let port = |service| Port(Service { ip, ..service });
    Ok(services.into_iter().map(port).collect())
}

/// Reads all ports of a group, in one order whatever the file's.
pub fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Port>, D::Error> {
    let words = Vec::<Word>::deserialize(deserializer)?;
    let mut ports: Vec<Port> = words.into_iter().flat_map(|Word(ports)| ports).collect();
    ports.sort_unstable();
    let specs: Vec<ServiceSpec> = ports.iter().map(|Port(port)| port.into()).collect();
    validate_services(&specs).map_err(serde::de::Error::custom)?;
    Ok(ports)
}
