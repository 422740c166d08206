//! The typed client: one request, one envelope, errors told apart.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use lbagent_api::access::ACCOUNT_HEADER;
use lbagent_api::envelope::{Item, Warning};
use lbagent_api::{Envelope, ItemError, ResponseStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, SendBody, config::Config, http::Uri};

use crate::error::CtlError;
use crate::output;
use crate::unix_socket::UnixConnector;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take altogether: an import of a large state takes a while.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: ten thousand service groups with their backends are some 30 MB.
const MAX_ANSWER: u64 = 512 << 20;

/// Where the agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://HOST:PORT` or `https://HOST:PORT`, without a path.
    Http(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The agent of this host: its Unix socket, which needs no token, if it is there.
    pub fn local() -> Self {
        let socket = std::path::Path::new(lbagent_api::DEFAULT_SOCKET);
        if socket.exists() {
            Self::Unix(socket.into())
        } else {
            Self::Http(lbagent_api::DEFAULT_ENDPOINT.to_owned())
        }
    }

    /// Whether the agent has to prove who it is.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Http(base) if base.starts_with("https://"))
    }

    /// Reads `http[s]://HOST:PORT[/v1]`, `HOST:PORT`, `unix:PATH` or an absolute path.
    pub fn parse(text: &str) -> Result<Self, CtlError> {
        let wrong = |why: &str| {
            Err(CtlError::Usage(format!(
                "endpoint '{text}' {why}; write http://HOST:PORT, https://HOST:PORT or \
                 unix:/PATH/TO/SOCKET"
            )))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return wrong("names no absolute path");
            }
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let base = text.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let base = if base.contains("://") {
            base.to_owned()
        } else {
            format!("http://{base}")
        };
        match base.parse::<Uri>() {
            Ok(uri)
                if matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && !base.ends_with(':')
                    && matches!(uri.path(), "" | "/")
                    && uri.query().is_none() =>
            {
                Ok(Self::Http(base))
            }
            _ => wrong("is no address of an agent"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(base) => f.write_str(base),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

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
            .timeout_global(Some(REQUEST_TIMEOUT))
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
        }
    }

    /// Sends a request without a body.
    pub fn get<D: DeserializeOwned>(&self, path: &str) -> Result<D, CtlError> {
        self.call(Method::GET, path, None)
    }

    /// Sends a request with a JSON body.
    pub fn send<D: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<D, CtlError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CtlError::Local(format!("cannot write the request: {error}")))?;
        self.call(method, path, Some(body))
    }

    /// Sends a request whose answer is lines without an end. The last of them is the error that it
    /// ended with.
    pub fn stream(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = Result<String, CtlError>>, CtlError> {
        let request = self.request(Method::GET, path, None)?;
        let request = self.agent.configure_request(request);
        let mut response = self
            .agent
            .run(request.timeout_global(None).build())
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
        body: Option<Vec<u8>>,
    ) -> Result<D, CtlError> {
        let request = self.request(method, path, body)?;
        let mut response = self
            .agent
            .run(request)
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let text = self.read(&mut response)?;
        if self.keeps_answers {
            output::keep_answer(&text);
        }
        self.open(status, &text)
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
        let reason = match error {
            ureq::Error::Io(error) => strip_os_code(&error.to_string()),
            ureq::Error::HostNotFound => "the host name is unknown".to_owned(),
            ureq::Error::Timeout(_) => "timed out".to_owned(),
            ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
                let reason = format!("{error}");
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
            eprintln!("lbctl: warning: {message}");
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
