//! Answers of the terminator's own: what a client is told when no instance answers it.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode, Version};

use crate::metrics::Counter;

/// Declares the answers: their status, their name among the counters, and what clients read.
macro_rules! answers {
    ($($(#[$doc:meta])* $kind:ident = $status:ident $code:literal $name:literal $text:literal;)+) => {
        /// Why the terminator answers a request itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Answer {
            $($(#[$doc])* $kind,)+
        }

        impl Answer {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// How clients learn the kind of the fault.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$kind => StatusCode::$status,)+
                }
            }

            /// Name of the fault, in snake_case, and of its counter.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            /// What counts it.
            pub fn counter(self) -> Counter {
                match self {
                    $(Self::$kind => Counter::$kind,)+
                }
            }

            fn html(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!(
                        "<!doctype html>\n<title>", $code, "</title>\n<h1>", $code, "</h1>\n<p>", $text, "</p>\n",
                    ),)+
                }
            }

            fn json(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!(
                        "{\"status\":", $code, ",\"error\":\"", $name, "\",\"message\":\"", $text, "\"}\n",
                    ),)+
                }
            }
        }
    };
}

answers! {
    /// HTTP/1.1 needs exactly one `Host` (RFC 9112, section 3.2).
    HostMissing = BAD_REQUEST "400" "host_missing"
        "The request names no host.";
    /// Two readers might choose two different ones (RFC 9112, section 3.2).
    HostDuplicate = BAD_REQUEST "400" "host_duplicate"
        "The request has more than one Host field.";
    /// Neither a host name nor an address (RFC 9112, section 3.2).
    HostInvalid = BAD_REQUEST "400" "host_invalid"
        "The request's host is no host name.";
    /// Whoever reads only one of them is led elsewhere (RFC 9112, section 3.2.2, and RFC 9113,
    /// section 8.3.1).
    TargetDiffers = BAD_REQUEST "400" "target_differs"
        "The request's target and its Host field differ.";
    /// A form that the method does not have (RFC 9112, section 3.2).
    TargetInvalid = BAD_REQUEST "400" "target_invalid"
        "The request's target is not valid.";
    /// The mark of request smuggling (RFC 9112, section 6.3).
    LengthAndCoding = BAD_REQUEST "400" "length_and_coding"
        "The request has both Content-Length and Transfer-Encoding.";
    /// Only the last coding may be `chunked`, and only once (RFC 9112, section 6.1).
    CodingInvalid = BAD_REQUEST "400" "coding_invalid"
        "The request's Transfer-Encoding is not valid.";
    /// Nothing but `chunked` is understood, and what is not understood is not passed on (RFC 9112,
    /// section 6.1).
    CodingUnknown = NOT_IMPLEMENTED "501" "coding_unknown"
        "The request's Transfer-Encoding is not supported.";
    /// The body broke off or its chunks are malformed (RFC 9112, section 7.1).
    BodyInvalid = BAD_REQUEST "400" "body_invalid"
        "The request's body is not valid.";
    /// The terminator is no forward proxy (RFC 9110, section 9.3.6).
    ConnectRefused = METHOD_NOT_ALLOWED "405" "connect_refused"
        "There are no tunnels here.";
    /// The TLS connection was made for another service group (RFC 9110, section 7.4): clients try
    /// again over a connection of its own.
    Misdirected = MISDIRECTED_REQUEST "421" "misdirected"
        "This connection was made for another host.";
    /// Of the protocols that begin with CONNECT there is WebSocket only (RFC 8441).
    ProtocolUnknown = NOT_IMPLEMENTED "501" "protocol_unknown"
        "The requested protocol is not supported.";
    /// Nobody owns the host name.
    NoService = NOT_FOUND "404" "no_service"
        "There is no service on this URL.";
    /// The source is over its share.
    TooManyRequests = TOO_MANY_REQUESTS "429" "too_many_requests"
        "Too many requests.";
    /// No instance takes requests.
    NoInstance = SERVICE_UNAVAILABLE "503" "no_instance"
        "The service has no instance that answers.";
    /// Every instance has as many requests as it may.
    AllBusy = SERVICE_UNAVAILABLE "503" "all_busy"
        "The service is busy.";
    /// An instance did not answer, or not in HTTP.
    UpstreamFault = BAD_GATEWAY "502" "upstream_fault"
        "The service did not answer properly.";
    /// An instance took too long.
    UpstreamLate = GATEWAY_TIMEOUT "504" "upstream_late"
        "The service did not answer in time.";
}

/// In which form a client gets an answer of the terminator's own.
#[derive(Clone, Debug)]
pub struct AnswerForm {
    accept: Option<HeaderValue>,
    version: Version,
}

impl AnswerForm {
    /// What a request asks for. Read only when there is something to answer.
    pub fn of(version: Version, headers: &HeaderMap) -> Self {
        Self {
            accept: headers.get(header::ACCEPT).cloned(),
            version,
        }
    }

    /// Whether the client reads JSON rather than HTML: its `Accept` names it, and HTML not before.
    fn is_json(&self) -> bool {
        let accept = self.accept.as_ref().and_then(|value| value.to_str().ok());
        let mut types = accept.unwrap_or_default().split([',', ';']).map(str::trim);
        let is_html = |media: &str| media.eq_ignore_ascii_case("text/html");
        let is_json = |media: &str| {
            media.eq_ignore_ascii_case("application/json") || media.ends_with("+json")
        };
        types
            .find(|media| is_html(media) || is_json(media))
            .is_some_and(is_json)
    }
}

impl Answer {
    /// Whether the connection ends with the answer: where requests begin and end is in doubt.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::HostMissing
                | Self::HostDuplicate
                | Self::HostInvalid
                | Self::TargetDiffers
                | Self::TargetInvalid
                | Self::LengthAndCoding
                | Self::CodingInvalid
                | Self::CodingUnknown
                | Self::BodyInvalid
                | Self::ConnectRefused
        )
    }

    /// The response in the form that the client reads.
    pub fn response(self, form: &AnswerForm) -> Response<Bytes> {
        let (text, media) = if form.is_json() {
            (self.json(), "application/json")
        } else {
            (self.html(), "text/html; charset=utf-8")
        };
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        set(header::CONTENT_TYPE, media);
        set(header::CACHE_CONTROL, "no-store");
        match self {
            // RFC 9110, section 15.5.6: a 405 lists what is allowed.
            Self::ConnectRefused => {
                set(
                    header::ALLOW,
                    "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
                );
            }
            Self::AllBusy | Self::NoInstance | Self::TooManyRequests => {
                set(header::RETRY_AFTER, "1");
            }
            _ => {}
        }
        // HTTP/2 has no field `Connection` (RFC 9113, section 8.2.2).
        if self.ends_connection() && form.version < Version::HTTP_2 {
            set(header::CONNECTION, "close");
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_accept(accept: Option<&str>, is_json: bool) {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, accept.parse().expect("a field value"));
        }
        let form = AnswerForm::of(Version::HTTP_11, &headers);
        assert_eq!(form.is_json(), is_json, "{accept:?}");
    }

    #[test]
    fn json_for_those_who_ask_for_it() {
        check_accept(None, false);
        check_accept(Some("*/*"), false);
        check_accept(Some("text/html,application/xhtml+xml,*/*;q=0.8"), false);
        check_accept(Some("application/json"), true);
        check_accept(Some("application/json, text/html;q=0.5"), true);
        check_accept(Some("application/problem+json; q=1"), true);
        check_accept(Some("text/html, application/json"), false);
    }

    #[test]
    fn bodies_are_what_their_type_says() {
        for answer in Answer::ALL {
            let value: serde_json::Value =
                serde_json::from_str(answer.json()).expect("each body is JSON");
            assert_eq!(value["status"], answer.status().as_u16());
            assert_eq!(value["error"], answer.name());
            let counter = Counter::ALL
                .iter()
                .find(|(counter, _)| *counter == answer.counter());
            assert_eq!(counter.map(|(_, name)| *name), Some(answer.name()));
            assert!(answer.html().contains(answer.status().as_str()));
            assert_eq!(Answer::ALL[*answer as usize], *answer);
        }
    }

    #[test]
    fn whoever_may_succeed_later_is_told_when_to_try_again() {
        let form = AnswerForm {
            accept: None,
            version: Version::HTTP_11,
        };
        for answer in Answer::ALL {
            let response = answer.response(&form);
            let passes = matches!(
                response.status(),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
            let told = response.headers().get(header::RETRY_AFTER);
            let expected = passes.then(|| HeaderValue::from_static("1"));
            assert_eq!(told, expected.as_ref(), "{answer:?}");
        }
    }

    #[test]
    fn http2_is_not_told_to_close() {
        let form = |version| AnswerForm {
            accept: None,
            version,
        };
        let close = |answer: Answer, version| {
            let response = answer.response(&form(version));
            response.headers().contains_key(header::CONNECTION)
        };
        assert!(close(Answer::HostDuplicate, Version::HTTP_11));
        assert!(!close(Answer::HostDuplicate, Version::HTTP_2));
        assert!(!close(Answer::NoService, Version::HTTP_11));
    }
}
