//! Which host a request is for, and requests that leave it, or their own extent, in doubt.

use http::header::{self, HeaderMap};
use http::uri::Authority;
use http::{Method, Version, request};
use hyper::ext::Protocol;

use super::answer::Answer;

/// The authority that a request is for, as it was sent: host and perhaps a port. Every request
/// that two readers might take for two different ones is refused.
///
/// # Errors
///
/// The answer that the client gets instead.
pub fn check(request: &request::Parts) -> Result<&str, Answer> {
    if request.method == Method::CONNECT {
        match request.extensions.get::<Protocol>() {
            None => return Err(Answer::ConnectRefused),
            Some(protocol) if protocol.as_str() == "websocket" => {}
            Some(_) => return Err(Answer::ProtocolUnknown),
        }
    }
    if request.version < Version::HTTP_2 {
        check_coding(&request.headers)?;
    }
    let target = check_target(request)?;
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        // RFC 9112, section 3.2, and RFC 9110, section 7.2.
        (Some(_), Some(_)) => return Err(Answer::HostDuplicate),
        (Some(host), None) => Some(host.to_str().map_err(|_| Answer::HostInvalid)?),
        (None, _) => None,
    };
    let authority = match (target, host) {
        (Some(target), Some(host)) => {
            // RFC 9112, section 3.2.2, would have a proxy believe the target and replace `Host`;
            // RFC 9113, section 8.3.1, forbids clients to send two that differ.
            if !is_same(target.as_str(), host, request.uri.scheme_str()) {
                return Err(Answer::TargetDiffers);
            }
            host
        }
        // RFC 9112, section 3.2: also beside an absolute target.
        (_, None) if request.version == Version::HTTP_11 => return Err(Answer::HostMissing),
        (Some(target), None) => target.as_str(),
        (None, Some(host)) => host,
        // RFC 9113, section 8.3.1, allows it, but there is nobody to ask.
        (None, None) if request.version == Version::HTTP_2 => return Err(Answer::HostMissing),
        // HTTP/1.0 knows no hosts.
        (None, None) => return Err(Answer::NoService),
    };
    if split(authority).is_none() {
        return Err(Answer::HostInvalid);
    }
    Ok(authority)
}

/// The authority in the target, if there is one. RFC 9112, section 3.2: `*` is for OPTIONS, an
/// authority alone for CONNECT.
fn check_target(request: &request::Parts) -> Result<Option<&Authority>, Answer> {
    let (uri, method) = (&request.uri, &request.method);
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err(Answer::TargetInvalid);
    }
    let Some(authority) = uri.authority() else {
        return Ok(None);
    };
    match uri.scheme_str() {
        Some("http" | "https") => Ok(Some(authority)),
        _ => Err(Answer::TargetInvalid),
    }
}

/// What hyper lets through of codings: it looks at the last one only.
fn check_coding(headers: &HeaderMap) -> Result<(), Answer> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Answer::LengthAndCoding);
    }
    if codings.next().is_some() {
        return Err(Answer::CodingInvalid);
    }
    let coding = coding.as_bytes();
    if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_chunked = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let count = coding.split(|b| *b == b',').filter(|part| is_chunked(part));
    Err(match count.count() {
        1 => Answer::CodingUnknown,
        _ => Answer::CodingInvalid,
    })
}

/// Whether two authorities name the same host and port.
fn is_same(one: &str, other: &str, scheme: Option<&str>) -> bool {
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    let default = if scheme == Some("http") { 80 } else { 443 };
    match (split(one), split(other)) {
        (Some((host, port)), Some((other_host, other_port))) => {
            host.eq_ignore_ascii_case(other_host)
                && port.unwrap_or(default) == other_port.unwrap_or(default)
        }
        _ => false,
    }
}

/// Host and port of an authority; none where it is not valid. Narrower than RFC 3986, section
/// 3.2.2: only what names and addresses are made of, no user information (RFC 9110, section
/// 4.2.4), nothing that would end an URL or a quoted string.
pub fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_valid = match host.strip_prefix('[') {
        Some(address) => {
            let address = address.strip_suffix(']')?;
            address.parse::<std::net::Ipv6Addr>().is_ok()
        }
        None => {
            !host.is_empty()
                && host.len() <= 253 + 1
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    };
    let port = match port {
        // RFC 3986, section 3.2.3: an empty port is the scheme's.
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    is_valid.then_some((host, port))
}
