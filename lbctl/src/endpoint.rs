//! Where an agent is, and how people write that.

use std::fmt;
use std::path::PathBuf;

use ureq::http::Uri;

use crate::error::CtlError;

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
