//! Certificates: storing, rotating and deleting them. A private key is a key of the store of its own
//! and never a part of the published state, so that nothing that shows the state can show it.

mod error;
mod examine;
mod matching;
#[cfg(test)]
mod tests;

use lbagent_api::certificate::Secret;
use lbagent_api::envelope::Reference;
use lbagent_api::{ContractError, Selector};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::draft::Draft;
use super::{Caller, Desired, DesiredError, Written, keys, names};
use examine::Examined;

pub use error::CertificateError;
pub use examine::BadCertificate;
pub use matching::attached;
pub(super) use matching::{choose, chosen};

/// A certificate without its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Identity.
    pub uuid: Uuid,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub account: Uuid,
    /// Unique name within the account.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The domain that it was stored for.
    pub common_name: String,
    /// Certificates in PEM, the server's first.
    pub chain: String,
    /// Distinguished name of the server's certificate.
    pub subject: String,
    /// Distinguished name of whoever signed it.
    pub issuer: String,
    /// In hexadecimal.
    pub serial_number: String,
    /// Valid from.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// Valid until.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// Domain names that it is for, in lower case; wildcards have a `*` as their first label.
    pub names: Vec<String>,
}

impl Certificate {
    /// Whether clients accept its dates.
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// A certificate to store, read and checked as far as it can be by itself.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    name: Option<String>,
    common_name: String,
    read: Examined,
    key: Secret,
}

impl NewCertificate {
    /// Reads a chain and its key.
    pub fn read(
        name: Option<String>,
        common_name: String,
        chain: &str,
        key: Secret,
    ) -> Result<Self, BadCertificate> {
        Ok(Self {
            name,
            common_name,
            read: examine::examine(chain, Some(&key))?,
            key,
        })
    }
}

/// A chain and a key to take the place of a certificate's.
#[derive(Clone, Debug)]
pub struct Rotation {
    selector: Selector,
    read: Examined,
    key: Secret,
}

impl Rotation {
    /// Reads a chain and its key.
    pub fn read(selector: Selector, chain: &str, key: Secret) -> Result<Self, BadCertificate> {
        let read = examine::examine(chain, Some(&key))?;
        Ok(Self {
            selector,
            read,
            key,
        })
    }

    /// The certificate.
    pub const fn selector(&self) -> &Selector {
        &self.selector
    }
}

type Changes<T> = Result<Written<Vec<Result<T, CertificateError>>>, DesiredError>;

impl Desired {
    /// Stores certificates, each on its own terms.
    pub fn create_certificates(
        &self,
        caller: Caller,
        certificates: &[NewCertificate],
        now: OffsetDateTime,
    ) -> Changes<Certificate> {
        self.transact(|draft| {
            certificates
                .iter()
                .map(|new| create(draft, caller, new, now))
                .collect()
        })
    }

    /// Gives certificates another chain and key, each on its own terms.
    pub fn rotate_certificates(
        &self,
        caller: Caller,
        rotations: &[Rotation],
    ) -> Changes<Certificate> {
        self.transact(|draft| {
            rotations
                .iter()
                .map(|rotation| rotate(draft, caller, rotation))
                .collect()
        })
    }

    /// Deletes certificates that no service group uses.
    pub fn delete_certificates(
        &self,
        caller: Caller,
        selectors: &[Selector],
    ) -> Changes<Reference> {
        self.transact(|draft| {
            selectors
                .iter()
                .map(|selector| delete(draft, caller, selector))
                .collect()
        })
    }
}

fn create(
    draft: &mut Draft,
    caller: Caller,
    new: &NewCertificate,
    now: OffsetDateTime,
) -> Result<Certificate, CertificateError> {
    check_names(&new.common_name, &new.read)?;
    let derived = || names::certificate_name(&new.common_name);
    let name = new.name.clone().unwrap_or_else(derived);
    let claim = keys::certificate_name(caller.account, &name);
    if draft.owner(&claim).is_some() {
        return Err(CertificateError::NameTaken { name });
    }
    let certificate = with_chain(
        Identity {
            uuid: Uuid::new_v4(),
            account: caller.account,
            name,
            created_at: now,
            common_name: new.common_name.clone(),
        },
        &new.read,
    );
    insert(draft, certificate.clone(), Some(&new.key));
    Ok(certificate)
}

fn rotate(
    draft: &mut Draft,
    caller: Caller,
    rotation: &Rotation,
) -> Result<Certificate, CertificateError> {
    let former = find(draft, caller, &rotation.selector)?;
    check_names(&former.common_name, &rotation.read)?;
    let certificate = with_chain(
        Identity {
            uuid: former.uuid,
            account: former.account,
            name: former.name,
            created_at: former.created_at,
            common_name: former.common_name,
        },
        &rotation.read,
    );
    // Who names it cannot change meanwhile without a change of this claim.
    if draft
        .claimed(&keys::certificate_use(certificate.uuid))
        .is_some()
    {
        matching::check_rotated(draft.state(), &certificate)?;
    }
    draft.put_certificate(certificate.clone(), Some(&rotation.key));
    Ok(certificate)
}

fn delete(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
) -> Result<Reference, CertificateError> {
    let certificate = find(draft, caller, selector)?;
    // A domain that comes to name it meanwhile changes this claim.
    draft.claimed(&keys::certificate_use(certificate.uuid));
    let attached = attached(draft.state(), caller.account);
    if let Some(groups) = attached.get(&certificate.uuid) {
        return Err(CertificateError::Attached {
            name: certificate.name,
            group: groups[0].name.clone(),
            count: groups.len(),
        });
    }
    drop(attached);
    remove(draft, certificate.uuid);
    Ok(Reference {
        uuid: certificate.uuid,
        name: certificate.name,
    })
}

/// Writes a certificate with its claim.
pub(super) fn insert(draft: &mut Draft, certificate: Certificate, key: Option<&Secret>) {
    let claim = keys::certificate_name(certificate.account, &certificate.name);
    draft.claim(claim, certificate.uuid);
    draft.put_certificate(certificate, key);
}

/// Removes a certificate with its claim.
pub(super) fn remove(draft: &mut Draft, uuid: Uuid) {
    if let Some(certificate) = draft.remove_certificate(uuid) {
        draft.release(keys::certificate_name(
            certificate.account,
            &certificate.name,
        ));
    }
}

fn find(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
) -> Result<Certificate, CertificateError> {
    draft
        .find_certificate(caller, selector)
        .ok_or_else(|| CertificateError::NotFound(selector.clone()))
}

fn check_names(common_name: &str, read: &Examined) -> Result<(), CertificateError> {
    if read
        .names
        .iter()
        .any(|name| matching::covers(name, common_name))
    {
        return Ok(());
    }
    Err(CertificateError::OtherName {
        common_name: common_name.to_owned(),
        names: read.names.clone(),
    })
}

/// What stays when a certificate is rotated.
pub(super) struct Identity {
    pub(super) uuid: Uuid,
    pub(super) account: Uuid,
    pub(super) name: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) common_name: String,
}

/// Whether two chains, read before, are for the same private key.
pub(super) fn have_same_key(a: &str, b: &str) -> bool {
    let key = examine::public_key(a);
    key.is_some() && key == examine::public_key(b)
}

/// Whether a certificate can be read and a private key belongs to it.
pub(super) fn is_key_of(certificate: &str, key: &Secret) -> bool {
    examine::examine(certificate, Some(key)).is_ok()
}

/// A certificate that was written down: the rest is read from its chain.
pub(super) fn restored(
    identity: Identity,
    chain: &str,
    key: Option<&Secret>,
) -> Result<Certificate, ContractError> {
    let read =
        examine::examine(chain, key).map_err(|error| ContractError::invalid(error.to_string()))?;
    check_names(&identity.common_name, &read)
        .map_err(|error| ContractError::invalid(error.to_string()))?;
    Ok(with_chain(identity, &read))
}

fn with_chain(identity: Identity, read: &Examined) -> Certificate {
    let Identity {
        uuid,
        account,
        name,
        created_at,
        common_name,
    } = identity;
    let Examined {
        chain,
        subject,
        issuer,
        serial_number,
        not_before,
        not_after,
        names,
    } = read.clone();
    Certificate {
        uuid,
        account,
        name,
        created_at,
        common_name,
        chain,
        subject,
        issuer,
        serial_number,
        not_before,
        not_after,
        names,
    }
}
