//! The options of `lbctl service policy` that are about health checks.

use clap::Args;
use lbagent_api::health::{
    Check, CheckSpec, HealthPolicy, InitialHealth, OnFailure, Payload, ServiceCheck, StatusRange,
    WhenAllUnhealthy,
};
use lbagent_api::service_group::Protocol;
use std::time::Duration;

use super::Row;
use super::payload::parse_bytes;
use crate::cmd::parse_duration;
use crate::error::CtlError;

/// Options about health checks.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health checks")]
pub struct Arguments {
    /// Check the instances: tcp, http, https or udp; none for no check
    #[arg(long, value_name = "KIND", value_parser = ["tcp", "http", "https", "udp", "none"])]
    check: Option<String>,
    /// The other --check-… options are about this published port alone
    #[arg(long, value_name = "PORT[/udp]", value_parser = parse_service)]
    check_service: Option<(u16, Protocol)>,
    /// Port of the instances to ask; that which the service leads to unless given
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    check_port: Option<u16>,
    /// Time between two checks (5s)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    check_interval: Option<Duration>,
    /// A check that takes longer has failed (2s)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    check_timeout: Option<Duration>,
    /// Successes in a row that make an instance healthy (2)
    #[arg(long, value_name = "N")]
    check_rise: Option<u8>,
    /// Failures in a row that make an instance unhealthy (3)
    #[arg(long, value_name = "N")]
    check_fall: Option<u8>,
    /// Bytes to send: text with \r, \n, \t, \\ and \xHH
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    check_send: Option<Payload>,
    /// Bytes that must come back, written the same way
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    check_expect: Option<Payload>,
    /// Method of the request (GET)
    #[arg(long, value_name = "METHOD")]
    check_method: Option<String>,
    /// Path of the request (/)
    #[arg(long, value_name = "PATH")]
    check_path: Option<String>,
    /// Host header; the instance's address unless given
    #[arg(long, value_name = "HOST")]
    check_host: Option<String>,
    /// Statuses that are right, as 200 or 200-299 (200-399); can be repeated
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    check_status: Vec<StatusRange>,
    /// Bytes that the body must hold
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    check_body: Option<Payload>,
    /// Whether the certificate must be valid (false)
    #[arg(long, value_name = "BOOL")]
    check_verify: Option<bool>,
    /// Server name for TLS
    #[arg(long, value_name = "NAME")]
    check_server_name: Option<String>,
    /// New connections while all are unhealthy: fail_open (to all), fail_closed (to nobody)
    #[arg(long, value_name = "POLICY")]
    when_all_unhealthy: Option<WhenAllUnhealthy>,
    /// Connections of an instance that becomes unhealthy: keep or cut
    #[arg(long, value_name = "POLICY")]
    on_failure: Option<OnFailure>,
    /// What an instance counts as before the first result: healthy or unhealthy
    #[arg(long, value_name = "HEALTH")]
    initial_health: Option<InitialHealth>,
    /// So long a recovered instance takes to get back to its weight; 0 for at once
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    slow_start: Option<Duration>,
}

impl Arguments {
    /// Whether some option is given.
    pub fn is_change(&self) -> bool {
        self.check.is_some()
            || self.check_service.is_some()
            || self.has_details()
            || self.when_all_unhealthy.is_some()
            || self.on_failure.is_some()
            || self.initial_health.is_some()
            || self.slow_start.is_some()
    }

    fn has_details(&self) -> bool {
        let spec = self.spec();
        spec.is_ok_and(|spec| {
            serde_json::to_value(&spec).ok() != serde_json::to_value(CheckSpec::default()).ok()
        })
    }

    /// What the policy is to be.
    pub fn changed(&self, former: &HealthPolicy) -> Result<HealthPolicy, CtlError> {
        let mut policy = former.clone();
        if self.check.is_some() || self.has_details() || self.check_service.is_some() {
            self.change_check(&mut policy)?;
        }
        if let Some(slow_start) = self.slow_start {
            policy.slow_start_ms = milliseconds(slow_start);
        }
        let HealthPolicy {
            when_all_unhealthy,
            on_failure,
            initial,
            ..
        } = &mut policy;
        *when_all_unhealthy = self.when_all_unhealthy.unwrap_or(*when_all_unhealthy);
        *on_failure = self.on_failure.unwrap_or(*on_failure);
        *initial = self.initial_health.unwrap_or(*initial);
        policy
            .validate()
            .map_err(|error| CtlError::Usage(error.to_string()))?;
        Ok(policy)
    }

    fn change_check(&self, policy: &mut HealthPolicy) -> Result<(), CtlError> {
        let former = match self.check_service {
            None => policy.check.as_ref(),
            Some((port, protocol)) => policy
                .of_service(port, protocol)
                .and_then(|service| service.check.as_ref()),
        };
        let check = match (self.check.as_deref(), former) {
            (Some("none"), _) if self.has_details() => {
                return Err(CtlError::Usage(
                    "--check none goes with no other --check-… option but --check-service".into(),
                ));
            }
            (Some("none"), _) => None,
            (None, None) => {
                return Err(CtlError::Usage(
                    "there is no health check to change; give its kind with --check".into(),
                ));
            }
            // Another kind has other members: nothing is kept of it.
            (Some(kind), former) => {
                let former = former.filter(|former| former.probe.kind() == kind);
                Some(self.check(kind, former)?)
            }
            (None, Some(former)) => Some(self.check(former.probe.kind(), Some(former))?),
        };
        match self.check_service {
            None => policy.check = check,
            Some((port, protocol)) => {
                let is_other =
                    |service: &ServiceCheck| (service.port, service.protocol) != (port, protocol);
                policy.services.retain(is_other);
                policy.services.push(ServiceCheck {
                    port,
                    protocol,
                    check,
                });
            }
        }
        Ok(())
    }

    /// A check of a kind, with the options over what it was.
    fn check(&self, kind: &str, former: Option<&Check>) -> Result<Check, CtlError> {
        let spec = self.spec()?;
        let former = former.cloned().map(CheckSpec::from).unwrap_or_default();
        let merged = CheckSpec {
            kind: kind.to_owned(),
            port: spec.port.or(former.port),
            interval_ms: spec.interval_ms.or(former.interval_ms),
            timeout_ms: spec.timeout_ms.or(former.timeout_ms),
            rise: spec.rise.or(former.rise),
            fall: spec.fall.or(former.fall),
            send: spec.send.or(former.send),
            expect: spec.expect.or(former.expect),
            method: spec.method.or(former.method),
            path: spec.path.or(former.path),
            host: spec.host.or(former.host),
            statuses: spec.statuses.or(former.statuses),
            body: spec.body.or(former.body),
            verify: spec.verify.or(former.verify),
            server_name: spec.server_name.or(former.server_name),
        };
        Check::try_from(merged).map_err(|error| CtlError::Usage(error.to_string()))
    }

    fn spec(&self) -> Result<CheckSpec, CtlError> {
        let time = |time: Option<Duration>| time.map(|time| milliseconds(time).into());
        let statuses = Some(self.check_status.clone());
        Ok(CheckSpec {
            kind: String::new(),
            port: self.check_port.map(i64::from),
            interval_ms: time(self.check_interval),
            timeout_ms: time(self.check_timeout),
            rise: self.check_rise.map(i64::from),
            fall: self.check_fall.map(i64::from),
            send: self.check_send.clone(),
            expect: self.check_expect.clone(),
            method: self.check_method.clone(),
            path: self.check_path.clone(),
            host: self.check_host.clone(),
            statuses: statuses.filter(|statuses| !statuses.is_empty()),
            body: self.check_body.clone(),
            verify: self.check_verify,
            server_name: self.check_server_name.clone(),
        })
    }
}

/// What a policy says about health, one row each.
pub fn rows(policy: &HealthPolicy) -> Vec<Row> {
    let HealthPolicy {
        check,
        services,
        when_all_unhealthy,
        on_failure,
        initial,
        slow_start_ms,
    } = policy;
    let services: Vec<String> = services
        .iter()
        .map(|service| {
            let ServiceCheck {
                port,
                protocol,
                check,
            } = service;
            format!("{port}/{protocol}: {}", described(check.as_ref()))
        })
        .collect();
    vec![
        ("health check", described(check.as_ref())),
        ("checks of ports", crate::output::list(&services)),
        ("all unhealthy", when_all_unhealthy.to_string()),
        ("on failure", on_failure.to_string()),
        ("initial health", initial.to_string()),
        ("slow start", format!("{slow_start_ms} ms")),
    ]
}

fn described(check: Option<&Check>) -> String {
    let Some(check) = check else {
        return "none".into();
    };
    let spec = CheckSpec::from(check.clone());
    let mut words = vec![spec.kind.clone()];
    let text = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let statuses = spec.statuses.iter().flatten();
    let statuses: Vec<String> = statuses.map(StatusRange::to_string).collect();
    words.extend(spec.method);
    words.extend(spec.path);
    words.extend(
        [
            text("host", spec.host),
            text(
                "status",
                Some(statuses.join(",")).filter(|text| !text.is_empty()),
            ),
            text("body", spec.body.map(|bytes| bytes.to_string())),
            text("server name", spec.server_name),
            spec.verify
                .filter(|verify| *verify)
                .map(|_| "verified".into()),
            text("send", spec.send.map(|bytes| bytes.to_string())),
            text("expect", spec.expect.map(|bytes| bytes.to_string())),
            text("port", spec.port.map(|port| port.to_string())),
        ]
        .into_iter()
        .flatten(),
    );
    let Check {
        interval_ms,
        timeout_ms,
        rise,
        fall,
        ..
    } = check;
    words.push(format!(
        "every {interval_ms} ms, timeout {timeout_ms} ms, rise {rise}, fall {fall}"
    ));
    words.join(" ")
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn parse_service(text: &str) -> Result<(u16, Protocol), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    };
    let port = port.parse().ok().filter(|port| *port > 0);
    port.zip(protocol)
        .ok_or_else(|| "expected a published port such as 443 or 53/udp".to_owned())
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
    fn changed(former: &HealthPolicy, line: &str) -> Result<HealthPolicy, String> {
        let words = std::iter::once("x").chain(line.split(' ').filter(|word| !word.is_empty()));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        assert!(line.arguments.is_change());
        line.arguments
            .changed(former)
            .map_err(|error| error.lines().join("\n"))
    }

    #[test]
    fn options_change_what_they_name() {
        let none = HealthPolicy::default();
        let first = changed(&none, "--check http --check-path /up --check-rise 1").unwrap();
        let second = changed(&first, "--check-interval 500ms --check-timeout 100ms").unwrap();
        assert_eq!(
            rows(&second)[0].1,
            "http GET /up status 200-399 every 500 ms, timeout 100 ms, rise 1, fall 3"
        );
        let third = changed(
            &second,
            "--check-service 53/udp --check udp --check-send a\\x00\\r\\n",
        );
        let third = third.unwrap();
        assert_eq!(third.check, second.check);
        assert!(
            rows(&third)[1]
                .1
                .contains("53/udp: udp send \"a\\x00\\r\\n\"")
        );
        let last = changed(&third, "--check none --slow-start 30s --on-failure cut").unwrap();
        assert_eq!((last.check, last.slow_start_ms), (None, 30_000));
        assert_eq!(last.on_failure, OnFailure::Cut);
    }

    #[test]
    fn mistakes_are_told() {
        let none = HealthPolicy::default();
        for (line, want) in [
            ("--check-rise 3", "give its kind with --check"),
            (
                "--check none --check-rise 3",
                "--check none goes with no other",
            ),
            ("--check tcp --check-path /", "has no member 'path'"),
            (
                "--check tcp --check-interval 1s --check-timeout 2s",
                "must not be above",
            ),
            ("--check icmp", "possible values"),
            ("--check udp --check-send \\q", "expected text with"),
            ("--check tcp --check-service x", "expected a published port"),
            (
                "--slow-start 1ms",
                "'slow_start_ms' must be 0 or in the range",
            ),
        ] {
            let error = changed(&none, line).unwrap_err();
            assert!(error.contains(want), "{line}: {error}");
        }
    }
}
