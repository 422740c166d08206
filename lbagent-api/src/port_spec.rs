//! The grammar in which people write published ports:
//!
//! ```text
//! EXTERNAL[:INTERNAL][/HANDLER[+HANDLER]…]    HANDLER: tls | http | redirect
//! EXTERNAL[:INTERNAL]/tcp                     raw TCP
//! EXTERNAL[:INTERNAL]/udp                     raw UDP
//! 443[:INTERNAL]                              443 with tls+http, and 80 redirecting to it
//! ```

use std::collections::BTreeSet;
use std::fmt;

use crate::service_group::{Handler, Protocol, Service, check_port_rules};

/// A port specification that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port '{text}': {problem}")]
pub struct PortSpecError {
    text: String,
    problem: String,
}

/// Reads one word of the grammar; it may stand for two services.
pub fn parse(text: &str) -> Result<Vec<Service>, PortSpecError> {
    parse_services(text).map_err(|problem| PortSpecError {
        text: text.to_owned(),
        problem,
    })
}

fn parse_services(text: &str) -> Result<Vec<Service>, String> {
    let (ports, suffix) = match text.split_once('/') {
        Some((ports, suffix)) => (ports, Some(suffix)),
        None => (text, None),
    };
    let (port, destination_port) = match ports.split_once(':') {
        Some((port, destination)) => (
            parse_port(port, "external")?,
            parse_port(destination, "internal")?,
        ),
        None => {
            let port = parse_port(ports, "external")?;
            (port, port)
        }
    };
    let service = |protocol, handlers: BTreeSet<Handler>| {
        let handlers = handlers.into_iter().collect();
        Service {
            port,
            destination_port,
            protocol,
            ip: None,
            handlers,
        }
    };
    match suffix {
        None if port == 443 => Ok(vec![
            service(Protocol::Tcp, BTreeSet::from([Handler::Tls, Handler::Http])),
            Service {
                port: 80,
                destination_port: 443,
                protocol: Protocol::Tcp,
                ip: None,
                handlers: vec![Handler::Http, Handler::Redirect],
            },
        ]),
        None => Err(format!(
            "no protocol and no handlers; write {port}:{destination_port}/tcp for raw TCP, \
             {port}:{destination_port}/udp for raw UDP, {port}:{destination_port}/{} through the \
             terminator",
            if port == 80 { "http" } else { "tls" }
        )),
        Some("tcp") => Ok(vec![service(Protocol::Tcp, BTreeSet::new())]),
        Some("udp") => Ok(vec![service(Protocol::Udp, BTreeSet::new())]),
        Some(suffix) => {
            let handlers = parse_handlers(suffix)?;
            check_port_rules(port, destination_port, &handlers, None)
                .map_err(|error| error.message)?;
            Ok(vec![service(Protocol::Tcp, handlers)])
        }
    }
}

fn parse_port(text: &str, which: &str) -> Result<u16, String> {
    // `parse` alone would take "+80".
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(format!(
            "the {which} port '{text}' is not a number in the range 1 to 65535"
        )),
    }
}

fn parse_handlers(text: &str) -> Result<BTreeSet<Handler>, String> {
    let mut handlers = BTreeSet::new();
    for word in text.split('+') {
        let handler = match word {
            "tls" => Handler::Tls,
            "http" => Handler::Http,
            "redirect" => Handler::Redirect,
            "tcp" | "udp" => return Err(format!("'{word}' stands alone, without handlers")),
            _ => {
                return Err(format!(
                    "'{word}' is neither a handler (tls, http, redirect) nor a protocol (tcp, udp)"
                ));
            }
        };
        if !handlers.insert(handler) {
            return Err(format!("the handler '{word}' is given twice"));
        }
    }
    Ok(handlers)
}

impl fmt::Display for Service {
    /// The word of the grammar; `ip` is not part of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/", self.port, self.destination_port)?;
        if self.is_raw() {
            return write!(f, "{}", self.protocol);
        }
        for (index, handler) in self.handlers.iter().enumerate() {
            let plus = if index == 0 { "" } else { "+" };
            write!(f, "{plus}{handler}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service_group::{ServiceSpec, validate_services};

    #[track_caller]
    fn check(text: &str, expected: Result<&[&str], &str>) {
        match (parse(text), expected) {
            (Ok(services), Ok(words)) => {
                let found: Vec<String> = services.iter().map(ToString::to_string).collect();
                assert_eq!(found, words, "{text}");
            }
            (Err(error), Err(problem)) => {
                assert_eq!(error.to_string(), format!("port '{text}': {problem}"));
            }
            (found, expected) => panic!("{text}: found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn words_of_the_grammar() {
        check("5432:5432/tcp", Ok(&["5432:5432/tcp"]));
        check("5432/tcp", Ok(&["5432:5432/tcp"]));
        check("53:5353/udp", Ok(&["53:5353/udp"]));
        check("443:8080/tls+http", Ok(&["443:8080/tls+http"]));
        check("443:8080/http+tls", Ok(&["443:8080/tls+http"]));
        check(
            "443:8080",
            Ok(&["443:8080/tls+http", "80:443/http+redirect"]),
        );
        check("80:443/redirect+http", Ok(&["80:443/http+redirect"]));
        check("80:8080/http", Ok(&["80:8080/http"]));
        check("6379:6379/tls", Ok(&["6379:6379/tls"]));
    }

    #[test]
    fn mistakes_are_told() {
        check(
            "0/tcp",
            Err("the external port '0' is not a number in the range 1 to 65535"),
        );
        check(
            "+80/tcp",
            Err("the external port '+80' is not a number in the range 1 to 65535"),
        );
        check(
            "",
            Err("the external port '' is not a number in the range 1 to 65535"),
        );
        check(
            "53:65536/udp",
            Err("the internal port '65536' is not a number in the range 1 to 65535"),
        );
        check(
            "53:/udp",
            Err("the internal port '' is not a number in the range 1 to 65535"),
        );
        check("5432/tcp+tls", Err("'tcp' stands alone, without handlers"));
        check("5432/tls+tls", Err("the handler 'tls' is given twice"));
        check(
            "5432/sctp",
            Err("'sctp' is neither a handler (tls, http, redirect) nor a protocol (tcp, udp)"),
        );
        check(
            "5432:5432",
            Err(
                "no protocol and no handlers; write 5432:5432/tcp for raw TCP, \
                 5432:5432/udp for raw UDP, 5432:5432/tls through the terminator",
            ),
        );
        check(
            "8080/http",
            Err("Service port 8080 must not have the handler 'http': only ports 80 and 443 can"),
        );
    }

    fn service() -> impl Strategy<Value = Service> {
        let raw =
            (1..=u16::MAX, 1..=u16::MAX, any::<bool>()).prop_map(|(port, destination, udp)| {
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                Service {
                    port,
                    destination_port: destination,
                    protocol,
                    ip: None,
                    handlers: vec![],
                }
            });
        let tls = |port: u16, destination_port: u16| {
            let handlers = match port {
                80 => vec![Handler::Http],
                443 => vec![Handler::Tls, Handler::Http],
                _ => vec![Handler::Tls],
            };
            Service {
                port,
                destination_port,
                protocol: Protocol::Tcp,
                ip: None,
                handlers,
            }
        };
        let port = prop_oneof![1..=u16::MAX, Just(80), Just(443)];
        prop_oneof![
            raw,
            (port, 1..=u16::MAX).prop_map(move |(port, to)| tls(port, to))
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(service in service()) {
            prop_assert_eq!(parse(&service.to_string()).unwrap(), vec![service]);
        }

        #[test]
        fn what_is_printed_is_accepted_as_a_request(service in service()) {
            let spec = ServiceSpec::from(&service);
            prop_assert_eq!(validate_services(&[spec]).unwrap(), vec![service]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9:/+a-z]{0,24}|.{0,12}") {
            if let Ok(services) = parse(&text) {
                prop_assert!(!services.is_empty());
            }
        }
    }
}
