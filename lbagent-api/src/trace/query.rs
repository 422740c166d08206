//! Which flow is asked about.

use std::net::SocketAddr;

use crate::request::ContractError;
use crate::service_group::Protocol;

/// Which flow is asked about: the query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceQuery {
    /// Transport.
    pub protocol: Protocol,
    /// The client.
    pub source: SocketAddr,
    /// The VIP.
    pub destination: SocketAddr,
    /// Whether the packet starts the flow. Otherwise a TCP packet is one of a connection, and of a
    /// UDP packet the data plane tells.
    pub is_new: bool,
    /// Client-facing interface that the packet arrives by; one of them when not named.
    pub interface: Option<String>,
    /// Host name of the request that the packet carries, for ports that redirect.
    pub host: Option<String>,
}

impl TraceQuery {
    /// Reads the pairs of a query string, already percent-decoded.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContractError> {
        let (mut protocol, mut source, mut destination) = (None, None, None);
        let (mut is_new, mut interface, mut host) = (false, None, None);
        for (key, value) in pairs {
            match key {
                "protocol" => protocol = Some(parse_protocol(value)?),
                "source" => source = Some(parse_address(key, value)?),
                "destination" => destination = Some(parse_address(key, value)?),
                "new" => {
                    is_new = value.parse().map_err(|_| {
                        ContractError::invalid(format!(
                            "Invalid value '{value}' of 'new': expected true or false"
                        ))
                    })?;
                }
                "interface" => interface = Some(value.to_owned()),
                "host" => host = Some(value.to_owned()),
                _ => {
                    return Err(ContractError::new(
                        crate::ErrorCode::UnknownMember,
                        format!("Unknown parameter '{key}'"),
                    ));
                }
            }
        }
        let missing = |name: &str| ContractError::invalid(format!("Missing parameter '{name}'"));
        Self {
            protocol: protocol.ok_or_else(|| missing("protocol"))?,
            source: source.ok_or_else(|| missing("source"))?,
            destination: destination.ok_or_else(|| missing("destination"))?,
            is_new,
            interface,
            host,
        }
        .check()
    }

    /// Refuses what no packet can be.
    pub fn check(self) -> Result<Self, ContractError> {
        if self.host.is_some() && self.is_new {
            return Err(ContractError::invalid(
                "A packet that starts a flow carries no request: 'host' and 'new' exclude each other",
            ));
        }
        if self.source.is_ipv4() == self.destination.is_ipv4() {
            return Ok(self);
        }
        Err(ContractError::invalid(format!(
            "No packet goes from {} to {}: one is IPv4, the other IPv6",
            self.source, self.destination
        )))
    }
}

/// Reads `tcp` or `udp`.
pub fn parse_protocol(text: &str) -> Result<Protocol, ContractError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(ContractError::invalid(format!(
            "Invalid protocol '{text}': expected tcp or udp"
        ))),
    }
}

/// Reads `192.0.2.10:443` or `[2001:db8::10]:443`.
pub fn parse_address(what: &str, text: &str) -> Result<SocketAddr, ContractError> {
    text.parse().map_err(|_| {
        ContractError::invalid(format!(
            "Invalid {what} '{text}': expected ADDRESS:PORT, an IPv6 address in brackets"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<TraceQuery, String> {
        TraceQuery::parse(query.iter().copied()).map_err(|error| error.message)
    }

    #[test]
    fn a_flow_is_read() {
        let query = [
            ("protocol", "UDP"),
            ("source", "[2001:db8::7]:40000"),
            ("destination", "[2001:db8:a::10]:53"),
            ("new", "true"),
        ];
        let parsed = parse(&query).unwrap();
        assert_eq!(parsed.protocol, Protocol::Udp);
        assert_eq!(parsed.source.port(), 40_000);
        assert!(parsed.is_new && parsed.destination.is_ipv6());
    }

    #[test]
    fn mistakes_say_what_is_expected() {
        #[track_caller]
        fn check(key: &str, value: &str, words: &str) {
            let mut query = vec![
                ("protocol", "tcp"),
                ("source", "203.0.113.7:40000"),
                ("destination", "192.0.2.10:443"),
            ];
            query.retain(|(known, _)| *known != key);
            query.push((key, value));
            let message = parse(&query).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        check("protocol", "sctp", "expected tcp or udp");
        check("source", "203.0.113.7", "expected ADDRESS:PORT");
        check("source", "[2001:db8::7]:1", "one is IPv4, the other IPv6");
        check("destination", "2001:db8::1:443", "in brackets");
        check("new", "perhaps", "true or false");
        check("colour", "red", "Unknown parameter 'colour'");
        let message = parse(&[
            ("protocol", "tcp"),
            ("source", "203.0.113.7:40000"),
            ("destination", "192.0.2.10:80"),
            ("new", "true"),
            ("host", "shop.example"),
        ])
        .unwrap_err();
        assert!(message.contains("exclude each other"), "{message}");
        let message = parse(&[("protocol", "tcp")]).unwrap_err();
        assert!(message.contains("Missing parameter 'source'"), "{message}");
    }
}
