//! Certificates in the exported form.

use lbagent_api::ContractError;
use lbagent_api::certificate::Secret;
use lbagent_api::request::validate_name;
use lbagent_api::state::{StateCertificate, StateDocument};

use super::super::certificate::{self, Identity};
use super::super::{Certificate, Claim, DesiredState, keys};
use super::PrivateKeys;
use super::import::about;

pub(super) fn export(certificate: &Certificate, key: Option<&Secret>) -> StateCertificate {
    let Certificate {
        uuid,
        account,
        name,
        created_at,
        common_name,
        chain,
        // The chain says these.
        subject: _,
        issuer: _,
        serial_number: _,
        not_before: _,
        not_after: _,
        names: _,
    } = certificate.clone();
    StateCertificate {
        uuid,
        account,
        name,
        created_at,
        common_name,
        chain,
        private_key: key.cloned(),
    }
}

/// Adds a document's certificates to a state; returns the private keys that it holds.
pub(super) fn import(
    state: &mut DesiredState,
    document: &StateDocument,
) -> Result<PrivateKeys, ContractError> {
    let mut keys = PrivateKeys::new();
    for written in document.certificates.iter().flatten() {
        let of = |error| about(format!("Certificate '{}'", written.name), error);
        let certificate = read(written).map_err(of)?;
        let name = keys::certificate_name(certificate.account, &certificate.name);
        let taken = state.claims.insert(&name, Claim::Owner(certificate.uuid));
        if taken.is_some() || state.certificates.contains_key(&certificate.uuid) {
            return Err(of(ContractError::invalid("It occurs twice")));
        }
        if let Some(key) = &written.private_key {
            keys.insert(certificate.uuid, key.clone());
        }
        state.put_certificate(certificate);
    }
    Ok(keys)
}

fn read(written: &StateCertificate) -> Result<Certificate, ContractError> {
    validate_name(&written.name)?;
    let identity = Identity {
        uuid: written.uuid,
        account: written.account,
        name: written.name.clone(),
        created_at: written.created_at,
        common_name: written.common_name.clone(),
    };
    certificate::restored(identity, &written.chain, written.private_key.as_ref())
}
