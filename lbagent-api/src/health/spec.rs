//! A check as it travels: one flat object, whose kind decides which members it may have.

use serde::{Deserialize, Serialize};

use super::check::{Check, HttpProbe, Probe, StatusRange, TlsProbe};
use super::payload::Payload;
use crate::request::ContractError;

/// A check, made from the gateway to an instance's address. Members that its kind does not know are
/// refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CheckSpec {
    /// `tcp`, `http`, `https` or `udp`; it may not be left out.
    #[cfg_attr(
        feature = "openapi",
        schema(required = true, pattern = "^(tcp|http|https|udp)$")
    )]
    pub kind: String,
    /// Port of the instance; that which the service leads to when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub port: Option<i64>,
    /// Time between the beginnings of two checks, 5000 when absent; each varies by up to a tenth.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 100, maximum = 3_600_000))]
    pub interval_ms: Option<i64>,
    /// A check that takes longer has failed, 2000 or the interval when absent. Not above the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 60_000))]
    pub timeout_ms: Option<i64>,
    /// So many successes in a row make an unhealthy instance healthy; 2 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub rise: Option<i64>,
    /// So many failures in a row make a healthy instance unhealthy; 3 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub fall: Option<i64>,
    /// `tcp`: sent once connected. `udp`: the datagram, which may not be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<Payload>,
    /// `tcp`, `udp`: must be in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Payload>,
    /// `http`, `https`: `GET` when absent, `HEAD` or `OPTIONS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `http`, `https`: path and query; `/` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http`, `https`: the `Host` header; address and port of the instance when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `http`, `https`: statuses that are right; `200-399` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 16))]
    pub statuses: Option<Vec<StatusRange>>,
    /// `http`, `https`: must be in the first 64 KiB of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Payload>,
    /// `https`: whether the certificate must be valid for the server name; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// `https`: name for SNI and for verification; the host's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl TryFrom<CheckSpec> for Check {
    type Error = ContractError;

    fn try_from(received: CheckSpec) -> Result<Self, ContractError> {
        let interval_ms = received.interval_ms.unwrap_or(Self::INTERVAL_MS.into());
        let interval_ms = in_range("interval_ms", interval_ms, 100, 3_600_000)?;
        let default_timeout = i64::from(Self::TIMEOUT_MS.min(interval_ms));
        let timeout_ms = received.timeout_ms.unwrap_or(default_timeout);
        let timeout_ms = in_range("timeout_ms", timeout_ms, 10, 60_000)?;
        if timeout_ms > interval_ms {
            return Err(ContractError::invalid(format!(
                "A health check's 'timeout_ms' of {timeout_ms} must not be above its 'interval_ms' \
                 of {interval_ms}"
            )));
        }
        let port = received.port.map(|port| in_range("port", port, 1, 65_535));
        Ok(Self {
            port: port.transpose()?.map(|port| port as u16),
            interval_ms,
            timeout_ms,
            rise: in_range("rise", received.rise.unwrap_or(Self::RISE.into()), 1, 100)? as u8,
            fall: in_range("fall", received.fall.unwrap_or(Self::FALL.into()), 1, 100)? as u8,
            probe: probe(received)?,
        })
    }
}

impl From<Check> for CheckSpec {
    fn from(check: Check) -> Self {
        let kind = check.probe.kind().to_owned();
        let spec = Self {
            kind,
            port: check.port.map(i64::from),
            interval_ms: Some(check.interval_ms.into()),
            timeout_ms: Some(check.timeout_ms.into()),
            rise: Some(check.rise.into()),
            fall: Some(check.fall.into()),
            ..Self::default()
        };
        match check.probe {
            Probe::Tcp { send, expect } => Self {
                send,
                expect,
                ..spec
            },
            Probe::Udp { send, expect } => Self {
                send: Some(send),
                expect,
                ..spec
            },
            Probe::Http(http) => Self {
                method: Some(http.method),
                path: Some(http.path),
                host: http.host,
                statuses: Some(http.statuses),
                body: http.body,
                verify: http.tls.as_ref().map(|tls| tls.verify),
                server_name: http.tls.and_then(|tls| tls.server_name),
                ..spec
            },
        }
    }
}

fn probe(received: CheckSpec) -> Result<Probe, ContractError> {
    let kind = received.kind.as_str();
    let is_http = matches!(kind, "http" | "https");
    let refused = [
        ("send", received.send.is_some() && is_http),
        ("expect", received.expect.is_some() && is_http),
        ("method", received.method.is_some() && !is_http),
        ("path", received.path.is_some() && !is_http),
        ("host", received.host.is_some() && !is_http),
        ("statuses", received.statuses.is_some() && !is_http),
        ("body", received.body.is_some() && !is_http),
        ("verify", received.verify.is_some() && kind != "https"),
        (
            "server_name",
            received.server_name.is_some() && kind != "https",
        ),
    ];
    if !matches!(kind, "tcp" | "http" | "https" | "udp") {
        return Err(ContractError::invalid(format!(
            "A health check's 'kind' must be tcp, http, https or udp, not '{kind}'"
        )));
    }
    if let Some((member, _)) = refused.into_iter().find(|(_, is_given)| *is_given) {
        return Err(ContractError::invalid(format!(
            "A health check of kind {kind} has no member '{member}'"
        )));
    }
    match kind {
        "tcp" => Ok(Probe::Tcp {
            send: received.send,
            expect: received.expect,
        }),
        "udp" => Ok(Probe::Udp {
            send: received.send.ok_or_else(|| {
                ContractError::invalid(
                    "A health check of kind udp needs 'send', the datagram that the instance is \
                     asked by",
                )
            })?,
            expect: received.expect,
        }),
        _ => http(received).map(Probe::Http),
    }
}

fn http(received: CheckSpec) -> Result<HttpProbe, ContractError> {
    let method = received.method.unwrap_or_else(|| HttpProbe::METHOD.into());
    if !matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS") {
        return Err(ContractError::invalid(format!(
            "A health check's 'method' must be GET, HEAD or OPTIONS, not '{method}'"
        )));
    }
    if method == "HEAD" && received.body.is_some() {
        return Err(ContractError::invalid(
            "An answer to HEAD has no body that a health check could look at; use GET",
        ));
    }
    let path = received.path.unwrap_or_else(|| HttpProbe::PATH.into());
    if !path.starts_with('/') || path.len() > 1024 || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ContractError::invalid(format!(
            "A health check's 'path' must begin with '/' and have at most 1024 visible ASCII \
             characters, not '{path}'"
        )));
    }
    let statuses = received
        .statuses
        .unwrap_or_else(|| vec![HttpProbe::STATUSES]);
    if statuses.is_empty() || statuses.len() > 16 {
        return Err(ContractError::invalid(
            "A health check's 'statuses' must have 1 to 16 statuses or ranges",
        ));
    }
    let (host, server_name) = (received.host, received.server_name);
    check_host("host", host.as_deref(), b".-:[]_")?;
    check_host("server_name", server_name.as_deref(), b".-_")?;
    let tls = (received.kind == "https").then_some(TlsProbe {
        verify: received.verify.unwrap_or(false),
        server_name,
    });
    if let Some(TlsProbe {
        verify: true,
        server_name: None,
    }) = tls
        && host.is_none()
    {
        return Err(ContractError::invalid(
            "A health check that verifies certificates needs the name that they are for: give \
             'server_name' or 'host'",
        ));
    }
    Ok(HttpProbe {
        tls,
        method,
        path,
        host,
        statuses,
        body: received.body,
    })
}

fn check_host(member: &str, value: Option<&str>, also: &[u8]) -> Result<(), ContractError> {
    let is_right = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
        (1..=255).contains(&text.len()) && text.bytes().all(is_part)
    };
    match value.filter(|text| !is_right(text)) {
        None => Ok(()),
        Some(text) => Err(ContractError::invalid(format!(
            "A health check's '{member}' must be a name of letters, digits, dots and hyphens, not \
             '{text}'"
        ))),
    }
}

fn in_range(member: &str, value: i64, least: u32, most: u32) -> Result<u32, ContractError> {
    match u32::try_from(value) {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(ContractError::invalid(format!(
            "Value of '{member}' must be in the range {least} to {most}"
        ))),
    }
}
