//! Requests that may be sent a second time.

use http::{HeaderMap, Method, Request, Uri, Version};

use super::body::RequestBody;
use super::forward::is_idempotent;
use crate::heads;

/// A copy of a request that may be sent again, because its method is idempotent and it has no body;
/// nothing for all others.
pub struct Replay(Option<Head>);

struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl Replay {
    /// A copy of a request that has no body, if it may be sent again.
    pub fn of(request: &Request<RequestBody>, has_no_body: bool) -> Self {
        if !has_no_body || !is_idempotent(request.method()) {
            return Self(None);
        }
        let mut headers = heads::fields();
        copy(request.headers(), &mut headers);
        Self(Some(Head {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers,
        }))
    }

    /// The request once more.
    pub fn again(&self) -> Option<Request<RequestBody>> {
        let head = self.0.as_ref()?;
        let mut request = Request::new(RequestBody::default());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = head.version;
        copy(&head.headers, request.headers_mut());
        Some(request)
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        to.append(name, value.clone());
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(head) = self.0.take() {
            heads::give_back(head.headers);
        }
    }
}
