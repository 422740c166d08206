//! A domain name of a service group: a word, or with the certificate that it asks for.

use std::fmt;

use lbagent_api::Selector;
use lbagent_api::request::qualify_domain;
use lbagent_api::service_group::{self, DomainSpec};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::text::from_text;

/// A whole domain name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Written")]
pub struct Domain {
    /// Without the trailing dot.
    pub name: String,
    /// Name or UUID of the certificate that was asked for; by default the one that fits.
    pub certificate: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Whole { name: String, certificate: String },
}

impl From<Domain> for Written {
    fn from(Domain { name, certificate }: Domain) -> Self {
        match certificate {
            None => Self::Name(name),
            Some(certificate) => Self::Whole { name, certificate },
        }
    }
}

impl From<&service_group::Domain> for Domain {
    fn from(domain: &service_group::Domain) -> Self {
        let certificate = domain.certificate.as_ref();
        Self {
            name: domain.fqdn.clone(),
            certificate: certificate.map(|certificate| certificate.name.clone()),
        }
    }
}

impl From<&Domain> for DomainSpec {
    fn from(domain: &Domain) -> Self {
        let certificate = domain.certificate.as_deref();
        Self {
            name: format!("{}.", domain.name),
            certificate: certificate.map(|word| (&Selector::from_word(word)).into()),
        }
    }
}

/// A name that is whole.
#[derive(Debug)]
pub struct Fqdn(pub String);

impl<'de> Deserialize<'de> for Fqdn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, fqdn).map(Self)
    }
}

fn fqdn(text: &str) -> Result<String, String> {
    if !text.contains('.') {
        return Err(format!(
            "domain '{text}' is not whole; files have whole names, such as {text}.example.com"
        ));
    }
    let whole = format!("{}.", text.trim_end_matches('.'));
    qualify_domain(&whole, "").map_err(|error| error.message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    name: Fqdn,
    certificate: String,
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Domain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a domain name, or its 'name' and 'certificate'")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Domain, E> {
                let name = fqdn(text).map_err(E::custom)?;
                Ok(Domain {
                    name,
                    certificate: None,
                })
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Domain, M::Error> {
                let Whole { name, certificate } =
                    Whole::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Domain {
                    name: name.0,
                    certificate: Some(certificate),
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}
