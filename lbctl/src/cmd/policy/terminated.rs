//! The options of `lbctl service policy` that are about how a terminator serves ports.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lbagent_api::policy::{TerminatedPort, TerminatedPorts};
use lbagent_api::terminator::{ServicePolicy, UpstreamProtocol};

use super::Row;
use crate::cmd::{duration, parse_duration};
use crate::error::CtlError;

/// Options about ports with handlers.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Ports with handlers (--port says which)")]
#[group(skip)]
pub struct Arguments {
    /// Published port that the options below are about; can be repeated
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// What instances are spoken to with (http1); with the handler http
    #[arg(long, value_name = "PROTOCOL", requires = "ports", value_parser = protocols())]
    upstream: Option<UpstreamProtocol>,
    /// Whether instances are told the client by the PROXY protocol (false); with tls alone
    #[arg(long, value_name = "BOOL", requires = "ports")]
    send_proxy: Option<bool>,
    /// Time to connect to an instance (5s)
    #[arg(long, value_name = "TIME", requires = "ports", value_parser = parse_duration)]
    connect_timeout: Option<Duration>,
    /// Time without a byte that ends a connection of tls alone, or an upgraded one (1h)
    #[arg(long, value_name = "TIME", requires = "ports", value_parser = parse_duration)]
    idle_timeout: Option<Duration>,
    /// Time for the head of an instance's answer (1m)
    #[arg(long, value_name = "TIME", requires = "ports", value_parser = parse_duration)]
    response_timeout: Option<Duration>,
    /// Requests a second from one IPv4 address or IPv6 /64; 0 for no limit
    #[arg(long, value_name = "N", requires = "ports")]
    requests_per_source: Option<u32>,
    /// Give these ports the defaults again, before the options above
    #[arg(long, requires = "ports")]
    port_defaults: bool,
}

fn protocols() -> impl TypedValueParser<Value = UpstreamProtocol> {
    PossibleValuesParser::new(["http1", "h2c"]).map(|word| match word.as_str() {
        "h2c" => UpstreamProtocol::H2c,
        _ => UpstreamProtocol::Http1,
    })
}

impl Arguments {
    /// Whether some option is given.
    pub fn is_change(&self) -> bool {
        !self.ports.is_empty()
    }

    /// What the policy is to be.
    pub fn changed(&self, former: &TerminatedPorts) -> Result<TerminatedPorts, CtlError> {
        if self.is_change() && !self.has_settings() {
            return Err(CtlError::Usage(
                "--port alone changes nothing; say what of it, such as --response-timeout 30s"
                    .to_owned(),
            ));
        }
        let (named, mut kept): (Vec<TerminatedPort>, Vec<TerminatedPort>) =
            Vec::from(former.clone())
                .into_iter()
                .partition(|it| self.ports.contains(&it.port));
        let mut ports = self.ports.clone();
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            let before = named.iter().find(|it| it.port == port);
            let before = before.filter(|_| !self.port_defaults).cloned();
            let mut wanted = before.unwrap_or_else(|| TerminatedPort::new(port));
            self.change(&mut wanted.policy);
            if wanted != TerminatedPort::new(port) {
                kept.push(wanted);
            }
        }
        TerminatedPorts::try_from(kept).map_err(|error| CtlError::Usage(error.to_string()))
    }

    fn has_settings(&self) -> bool {
        self.port_defaults
            || self.upstream.is_some()
            || self.connect_timeout.is_some()
            || self.send_proxy.is_some()
            || self.requests_per_source.is_some()
            || self.idle_timeout.is_some()
            || self.response_timeout.is_some()
    }

    fn change(&self, policy: &mut ServicePolicy) {
        let time = |given: Option<Duration>, former| {
            given.map_or(former, |time| {
                u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
            })
        };
        *policy = ServicePolicy {
            upstream: self.upstream.unwrap_or(policy.upstream),
            send_proxy: self.send_proxy.unwrap_or(policy.send_proxy),
            connect_timeout_ms: time(self.connect_timeout, policy.connect_timeout_ms),
            idle_timeout_ms: time(self.idle_timeout, policy.idle_timeout_ms),
            response_timeout_ms: time(self.response_timeout, policy.response_timeout_ms),
            requests_per_source: self
                .requests_per_source
                .unwrap_or(policy.requests_per_source),
        };
    }
}

/// What a policy says about ports with handlers: one row, if it says something.
pub fn row(ports: &TerminatedPorts) -> Option<Row> {
    let described: Vec<String> = ports
        .iter()
        .map(|it| format!("{}: {}", it.port, described(&it.policy)))
        .collect();
    (!described.is_empty()).then(|| ("ports", described.join("; ")))
}

/// What differs from the defaults.
fn described(policy: &ServicePolicy) -> String {
    let time = |milliseconds: u32| duration(Duration::from_millis(milliseconds.into()));
    let words = |policy: &ServicePolicy| {
        [
            match policy.upstream {
                UpstreamProtocol::Http1 => "upstream http1".to_owned(),
                UpstreamProtocol::H2c => "upstream h2c".to_owned(),
            },
            format!("send proxy {}", policy.send_proxy),
            format!("connect timeout {}", time(policy.connect_timeout_ms)),
            format!("idle timeout {}", time(policy.idle_timeout_ms)),
            format!("response timeout {}", time(policy.response_timeout_ms)),
            format!("requests per source {}", policy.requests_per_source),
        ]
    };
    let defaults = words(&ServicePolicy::default());
    let differing = words(policy).into_iter().zip(defaults);
    let differing: Vec<String> = differing
        .filter(|(word, default)| word != default)
        .map(|(word, _)| word)
        .collect();
    differing.join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[track_caller]
    fn changed(former: &TerminatedPorts, line: &str) -> Result<TerminatedPorts, String> {
        let words = std::iter::once("x").chain(line.split(' '));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        assert!(line.arguments.is_change());
        line.arguments
            .changed(former)
            .map_err(|error| error.lines().join("\n"))
    }

    #[test]
    fn options_change_the_ports_that_they_name() {
        let none = TerminatedPorts::default();
        let first = changed(
            &none,
            "--port 443,8443 --upstream h2c --connect-timeout 250ms",
        );
        let first = first.unwrap();
        let both = "upstream h2c, connect timeout 250ms";
        let row_of = |ports| row(ports).unwrap().1;
        assert_eq!(row_of(&first), format!("443: {both}; 8443: {both}"));
        let second = changed(
            &first,
            "--port 8443 --upstream http1 --requests-per-source 5",
        );
        let second = second.unwrap();
        let other = "connect timeout 250ms, requests per source 5";
        assert_eq!(row_of(&second), format!("443: {both}; 8443: {other}"));
        let third = changed(&second, "--port 443 --port-defaults --idle-timeout 2m").unwrap();
        assert_eq!(
            row_of(&third),
            format!("443: idle timeout 2m; 8443: {other}")
        );
        let last = changed(&third, "--port 443,8443 --port-defaults").unwrap();
        assert_eq!((row(&last), last), (None, none));
    }

    #[test]
    fn mistakes_are_told() {
        let none = TerminatedPorts::default();
        for (line, want) in [
            ("--port 443", "--port alone changes nothing"),
            ("--upstream h2c", "--port"),
            ("--port 443 --upstream h2", "possible values: http1, h2c"),
            ("--port 0 --send-proxy true", "1..=65535"),
            ("--port 443 --idle-timeout x", "expected a duration"),
        ] {
            let error = changed(&none, line).unwrap_err();
            assert!(error.contains(want), "{line}: {error}");
        }
    }
}
