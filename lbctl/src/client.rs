//! The typed client: one request, one envelope, errors told apart.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind};
use std::time::Duration;

use lbagent_api::access::ACCOUNT_HEADER;
use lbagent_api::envelope::{Item, Warning};
use lbagent_api::{Envelope, ItemError, ResponseStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{HeaderValue, Method, Request, Response, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, SendBody, config::Config, http::Uri};

use crate::endpoint::Endpoint;
use crate::error::CtlError;
use crate::output;
use crate::tls;
use crate::unix_socket::UnixConnector;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take altogether: an import of a large state takes a while.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: ten thousand service groups with their backends are some 30 MB.
const MAX_ANSWER: u64 = 512 << 20;

/// A bearer token; never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token as given, without the white space around it.
    pub fn parse(text: &str) -> Result<Self, CtlError> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CtlError::Usage(
                "the token is empty or holds characters that no token has; it is one word".into(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    endpoint: Endpoint,
    token: Option<Token>,
    /// Whether answers are printed as they come.
    pub keeps_answers: bool,
    /// The account that an operator acts for, instead of its own.
    pub account: Option<String>,
    /// How long a request may take altogether.
    pub patience: Duration,
}

impl Client {
    /// A client of the agent at `endpoint`. Connects with the first request.
    pub fn new(endpoint: Endpoint, token: Option<Token>) -> Self {
        Self::with_tls(endpoint, token, TlsConfig::default())
    }

    /// As [`new`](Self::new), for an endpoint that speaks TLS.
    pub fn with_tls(endpoint: Endpoint, token: Option<Token>, tls: TlsConfig) -> Self {
        let config = Config::builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy from the environment would get the token.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("lbctl/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = match &endpoint {
            Endpoint::Http(_) => Agent::new_with_config(config),
            Endpoint::Unix(path) => {
                let connector = UnixConnector { path: path.clone() };
                Agent::with_parts(config, connector, NoResolver)
            }
        };
        Self {
            agent,
            endpoint,
            token,
            keeps_answers: false,
            account: None,
            patience: REQUEST_TIMEOUT,
        }
    }

    /// Sends a request without a body.
    pub fn get<D: DeserializeOwned>(&self, path: &str) -> Result<D, CtlError> {
        Ok(self.get_tagged(path)?.0)
    }

    /// Sends a request without a body; also returns the entity tag of the object that it names.
    pub fn get_tagged<D: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(D, Option<String>), CtlError> {
        self.call(Method::GET, path, None, None)
    }

    /// Deletes the object that a path names, if it has this entity tag.
    pub fn delete<D: DeserializeOwned>(
        &self,
        path: &str,
        tag: Option<&str>,
    ) -> Result<D, CtlError> {
        Ok(self.call(Method::DELETE, path, tag, None)?.0)
    }

    /// Sends a request with a JSON body.
    pub fn send<D: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<D, CtlError> {
        self.send_if(None, method, path, body)
    }

    /// As [`send`](Self::send), if the object that the path names has this entity tag.
    pub fn send_if<D: DeserializeOwned>(
        &self,
        tag: Option<&str>,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<D, CtlError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CtlError::Local(format!("cannot write the request: {error}")))?;
        Ok(self.call(method, path, tag, Some(body))?.0)
    }

    /// Sends a request whose answer is lines without an end. The last of them is the error that it
    /// ended with.
    pub fn stream(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = Result<String, CtlError>>, CtlError> {
        let request = self.request(Method::GET, path, None)?;
        let mut response = self
            .agent
            .run(request)
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if status != 200 {
            let text = self.read(&mut response)?;
            self.open::<serde_json::Value>(status, &text)?;
        }
        let endpoint = self.endpoint.to_string();
        let ended = move |reason: String| CtlError::Unreachable {
            endpoint: endpoint.clone(),
            reason,
        };
        let end = ended("the agent ended the stream".to_owned());
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        let line = move |line: std::io::Result<String>| {
            line.map_err(|error| ended(strip_os_code(&error.to_string())))
        };
        Ok(lines.map(line).chain([Err(end)]))
    }

    fn call<D: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        tag: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<(D, Option<String>), CtlError> {
        let mut request = self.request(method, path, body)?;
        if let Some(tag) = tag {
            let tag = HeaderValue::try_from(tag)
                .map_err(|error| CtlError::Local(format!("the entity tag '{tag}': {error}")))?;
            request.headers_mut().insert(header::IF_MATCH, tag);
        }
        let request = self.agent.configure_request(request);
        let mut response = self
            .agent
            .run(request.timeout_global(Some(self.patience)).build())
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let text = self.read(&mut response)?;
        if self.keeps_answers {
            output::keep_answer(&text);
        }
        let tag = response.headers().get(header::ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok((self.open(status, &text)?, tag))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<SendBody<'static>>, CtlError> {
        let base = match &self.endpoint {
            Endpoint::Http(base) => base,
            Endpoint::Unix(_) => "http://localhost",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("Accept", "application/json");
        if let Some(Token(token)) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(account) = &self.account {
            request = request.header(ACCOUNT_HEADER, account);
        }
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let body = body.map_or_else(SendBody::none, |body| {
            SendBody::from_owned_reader(std::io::Cursor::new(body))
        });
        request
            .body(body)
            .map_err(|error| CtlError::Usage(format!("'{path}' makes no request: {error}")))
    }

    fn read(&self, response: &mut Response<ureq::Body>) -> Result<Vec<u8>, CtlError> {
        response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &ureq::Error) -> CtlError {
        if let Some(reason) = tls::refusal(error) {
            let endpoint = self.endpoint.to_string();
            return CtlError::Foreign { endpoint, reason };
        }
        let reason = match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
                return CtlError::NotPermitted {
                    endpoint: self.endpoint.to_string(),
                };
            }
            ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                format!("{error}{}", self.scheme_hint())
            }
            ureq::Error::Io(error) => strip_os_code(&error.to_string()),
            ureq::Error::HostNotFound => "the host name is unknown".to_owned(),
            ureq::Error::Timeout(_) => "timed out".to_owned(),
            ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
                let reason = format!("{error}{}", self.scheme_hint());
                return CtlError::Foreign {
                    endpoint: self.endpoint.to_string(),
                    reason,
                };
            }
            other => other.to_string(),
        };
        CtlError::Unreachable {
            endpoint: self.endpoint.to_string(),
            reason,
        }
    }

    /// For answers that a server of TLS gives to what is no TLS: an alert, or none.
    fn scheme_hint(&self) -> &'static str {
        match &self.endpoint {
            Endpoint::Http(_) if !self.endpoint.is_tls() => "; if it speaks TLS, say https://",
            Endpoint::Http(_) | Endpoint::Unix(_) => "",
        }
    }

    /// Takes the data out of an answer's envelope, or tells why there is none.
    fn open<D: DeserializeOwned>(&self, status: u16, text: &[u8]) -> Result<D, CtlError> {
        if status == 401 {
            let given = self.token.is_some();
            return Err(CtlError::Token {
                endpoint: self.endpoint.to_string(),
                given,
            });
        }
        let foreign = |reason: String| {
            Err(CtlError::Foreign {
                endpoint: self.endpoint.to_string(),
                reason,
            })
        };
        let envelope: Envelope<serde_json::Value> = match serde_json::from_slice(text) {
            Ok(envelope) => envelope,
            Err(_) if status >= 400 => {
                return foreign(format!("HTTP status {status} without an explanation"));
            }
            Err(error) => return foreign(format!("HTTP status {status}, {error}")),
        };
        for Warning { message } in &envelope.warnings {
            tell!("lbctl: warning: {message}");
        }
        if status >= 400 || (envelope.status == ResponseStatus::Error && envelope.data.is_none()) {
            let message = envelope
                .message
                .unwrap_or_else(|| format!("the agent answered with HTTP status {status}"));
            return Err(CtlError::Refused { status, message });
        }
        let Some(data) = envelope.data else {
            return foreign("the answer has no data".to_owned());
        };
        serde_json::from_value(data).or_else(|error| foreign(error.to_string()))
    }
}

/// `Connection refused (os error 111)` without what operators do not care for.
fn strip_os_code(text: &str) -> String {
    text.split(" (os error").next().unwrap_or(text).to_owned()
}

/// An answer's items, below a member that is named after their kind.
pub type Outcomes<T> = BTreeMap<String, Vec<Item<T>>>;

/// Splits an answer into what was done and what was not.
pub fn split<T>(items: Vec<Item<T>>) -> (Vec<T>, Vec<ItemError>) {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for item in items {
        match item.into_result() {
            Ok(object) => done.push(object),
            Err(error) => failed.push(error),
        }
    }
    (done, failed)
}

/// All items, or the failures: an item that failed in an answer with status 200 is an error here.
pub fn all<T>(items: Vec<Item<T>>) -> Result<Vec<T>, CtlError> {
    let (done, failed) = split(items);
    if failed.is_empty() {
        Ok(done)
    } else {
        Err(CtlError::Items(failed))
    }
}

/// Percent-encodes a value of a query string.
pub fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A Unix socket needs no host, but ureq wants an address before it connects.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(([127, 0, 0, 1], 80).into());
        Ok(addresses)
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
