//! Host names: their one spelling, and a table of exact names and wildcards.

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt};

/// The one spelling of a host name: lower case, without the dot at its end.
pub fn canonical_host(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Values by host name or wildcard (`*.example.com`).
#[derive(Debug)]
pub struct HostTable<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows `*.`.
    wildcards: HashMap<Box<str>, T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcards: HashMap::new(),
        }
    }
}

impl<T> HostTable<T> {
    /// The value of a name as it was inserted, wildcard or not, made if it is missing.
    pub fn entry(&mut self, name: &str) -> std::collections::hash_map::Entry<'_, Box<str>, T> {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcards.entry(parent.into()),
            None => self.exact.entry(name.into()),
        }
    }

    /// The value of exactly this name, else of the longest wildcard above it, however many labels
    /// the wildcard stands for.
    pub fn lookup(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            if self.wildcards.is_empty() {
                return None;
            }
            parents(host).find_map(|parent| self.wildcards.get(parent))
        })
    }

    /// As [`Self::lookup`], but a wildcard stands for one label, as clients take it in certificates
    /// (RFC 9525, section 6.3).
    pub fn lookup_one_label(&self, host: &str) -> Option<&T> {
        self.exact
            .get(host)
            .or_else(|| self.wildcards.get(parents(host).next()?))
    }
}

/// `b.c` and `c` of `a.b.c`.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(host), |name| parent(name))
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}
