//! `kind: Certificate`: its chain and key, in the document or in files beside it.

use std::path::{Path, PathBuf};

use lbagent_api::certificate::{Certificate, Secret};
use serde::{Deserialize, Serialize};

use super::AnyKind;
use super::domain::Fqdn;
use crate::pem::{Leaf, Pair, load};

/// A certificate that a file asks for, or that the agent has.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateManifest {
    /// Unique name.
    pub name: String,
    /// The domain name that it is for: of a new one, by default the first one of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Which certificate it is.
    #[serde(flatten)]
    pub leaf: Leaf,
    /// What files have and the agent does not tell. Never written anywhere but to the agent.
    #[serde(skip)]
    pub pair: Option<Pair>,
}

/// Which certificate it is decides: the agent does not tell the rest.
impl PartialEq for CertificateManifest {
    fn eq(&self, other: &Self) -> bool {
        let comparable = |it: &Self| (it.name.clone(), it.common_name.clone(), it.leaf.clone());
        comparable(self) == comparable(other)
    }
}

impl CertificateManifest {
    /// What asks for this certificate as it is.
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            name: certificate.name.clone(),
            common_name: Some(certificate.common_name.clone()),
            leaf: certificate.into(),
            pair: None,
        }
    }
}

/// A document as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    #[serde(default, rename = "kind")]
    _kind: AnyKind,
    #[serde(deserialize_with = "super::name")]
    name: String,
    common_name: Option<Fqdn>,
    chain: Option<String>,
    chain_file: Option<PathBuf>,
    pkey: Option<Secret>,
    pkey_file: Option<PathBuf>,
}

impl Written {
    /// Reads the files that it names, which are looked for from `directory`.
    pub fn read(self, directory: &Path) -> Result<CertificateManifest, String> {
        let one = |member: &str, text: Option<Secret>, file: Option<PathBuf>| match (text, file) {
            (Some(text), None) => Ok(text),
            (None, Some(file)) => load(&directory.join(file)),
            (None, None) => Err(format!("missing '{member}' or '{member}_file'")),
            (Some(_), Some(_)) => Err(format!("'{member}' and '{member}_file' exclude each other")),
        };
        let chain = one("chain", self.chain.map(Secret::new), self.chain_file)?;
        let pair = Pair {
            chain: chain.reveal().to_owned(),
            pkey: one("pkey", self.pkey, self.pkey_file)?,
        };
        Ok(CertificateManifest {
            name: self.name,
            common_name: self.common_name.map(|Fqdn(name)| name),
            leaf: pair.examine()?.leaf,
            pair: Some(pair),
        })
    }
}
