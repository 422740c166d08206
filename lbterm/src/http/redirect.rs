//! Sending clients to HTTPS.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode, Uri};

use super::authority;
use super::service::Admitted;

/// The answer of a group's `redirect` port: the same path of the same host by HTTPS. The host is
/// one that the group owns, so nobody is led to where the gateway does not answer.
pub fn response(uri: &Uri, admitted: &Admitted) -> Response<()> {
    let host = admitted.host.to_str().unwrap_or_default();
    let host = authority::split(host).map_or(host, |(host, _)| host);
    let location = location(host, admitted.target.https_port, uri);
    let mut response = Response::new(());
    // Unlike 301, 308 keeps the method (RFC 9110, section 15.4.9).
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn location(host: &str, port: u16, uri: &Uri) -> String {
    let path = match uri.path_and_query().map(|path| path.as_str()) {
        None | Some("*") => "/",
        Some(path) => path,
    };
    // A query without a path needs one in front of it.
    let slash = if path.starts_with('/') { "" } else { "/" };
    match port {
        443 => format!("https://{host}{slash}{path}"),
        port => format!("https://{host}:{port}{slash}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, port: u16, expected: &str) {
        let uri = target.parse().expect("a target");
        assert_eq!(location("a.example", port, &uri), expected, "{target}");
    }

    #[test]
    fn the_same_path_by_https() {
        check("/", 443, "https://a.example/");
        check("/b?c=%0d%0a", 443, "https://a.example/b?c=%0d%0a");
        check("//evil.example/", 443, "https://a.example//evil.example/");
        check("/b", 8443, "https://a.example:8443/b");
        check("*", 443, "https://a.example/");
        check("http://a.example?b", 443, "https://a.example/?b");
        check("http://a.example", 443, "https://a.example/");
    }
}
