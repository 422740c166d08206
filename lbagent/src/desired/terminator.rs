//! What gateways of one store share for terminators and nobody may see: secrets of session tickets, the
//! authority of a development gateway, and private keys of certificates.

use std::collections::BTreeMap;

use lbagent_api::ContractError;
use lbagent_api::certificate::Secret;
use lbagent_api::state::{StateAuthority, StateTerminator, StateTicketKey};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::draft::Draft;
use super::snapshot::Snapshot;
use super::stored::DesiredError;
use super::{Desired, Written, keys};
use crate::store::Entry;

/// How long a secret makes new tickets.
const ROTATION: Duration = Duration::hours(12);
/// Secrets that are kept, the one in use included: a ticket can be used for a day at least.
const KEPT: usize = 3;

/// A secret of session tickets. Never a part of the published state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketSecret {
    /// 32 bytes in lower-case hexadecimal.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    secret: Secret,
    /// Since when it has been in use.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

/// A certificate authority and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAuthority {
    /// PEM.
    pub certificate: String,
    /// PEM.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub key: Secret,
}

impl Draft {
    /// The transaction fails when they change meanwhile.
    fn ticket_keys(&mut self) -> &[TicketSecret] {
        self.expects.insert(keys::TICKET_KEYS.to_owned());
        &self.snapshot.ticket_keys
    }

    fn put_ticket_keys(&mut self, secrets: Vec<TicketSecret>) {
        self.write(keys::TICKET_KEYS.to_owned(), &secrets);
        self.snapshot.ticket_keys = secrets;
    }

    /// The transaction fails when it changes meanwhile.
    fn authority(&mut self) -> Option<&StoredAuthority> {
        self.expects.insert(keys::AUTHORITY.to_owned());
        self.snapshot.authority.as_ref()
    }

    fn put_authority(&mut self, authority: StoredAuthority) {
        self.write(keys::AUTHORITY.to_owned(), &authority);
        self.snapshot.authority = Some(authority);
    }
}

impl Snapshot {
    /// As a document holds it; nothing where there is no secret.
    pub(super) fn terminator(&self) -> Option<StateTerminator> {
        let ticket_key = |it: &TicketSecret| StateTicketKey {
            secret: it.secret.clone(),
            since: it.since,
        };
        let authority = |it: &StoredAuthority| StateAuthority {
            certificate: it.certificate.clone(),
            key: it.key.clone(),
        };
        let all = StateTerminator {
            ticket_keys: self.ticket_keys.iter().map(ticket_key).collect(),
            development_ca: self.authority.as_ref().map(authority),
        };
        (all != StateTerminator::default()).then_some(all)
    }
}

/// Takes a document's secrets where there are none: what terminators and clients use goes on.
pub(super) fn restore(draft: &mut Draft, wanted: &StateTerminator) {
    let StateTerminator {
        ticket_keys,
        development_ca,
    } = wanted.clone();
    if draft.ticket_keys().is_empty() && !ticket_keys.is_empty() {
        let secrets = ticket_keys.into_iter().map(|it| TicketSecret {
            secret: it.secret,
            since: it.since,
        });
        draft.put_ticket_keys(secrets.collect());
    }
    if let Some(StateAuthority { certificate, key }) = development_ca
        && draft.authority().is_none()
    {
        draft.put_authority(StoredAuthority { certificate, key });
    }
}

/// Whether a document's secrets can be used.
pub(super) fn check(wanted: &StateTerminator) -> Result<(), ContractError> {
    let StateTerminator {
        ticket_keys,
        development_ca,
    } = wanted;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_good = |it: &StateTicketKey| {
        let text = it.secret.reveal();
        text.len() == 64 && text.bytes().all(is_hex)
    };
    if ticket_keys.len() > KEPT || !ticket_keys.iter().all(is_good) {
        return Err(ContractError::invalid(format!(
            "Invalid 'ticket_keys' of 'terminator': expected {KEPT} secrets at most, each of 64 \
             hexadecimal digits in lower case"
        )));
    }
    let Some(StateAuthority { certificate, key }) = development_ca else {
        return Ok(());
    };
    match super::certificate::is_key_of(certificate, key) {
        true => Ok(()),
        false => Err(ContractError::invalid(
            "Invalid 'development_ca' of 'terminator': expected one certificate in PEM, and its \
             private key",
        )),
    }
}

impl Desired {
    /// Secrets of session tickets, the newest first.
    pub fn ticket_keys(&self) -> Vec<Secret> {
        let secrets = self.lock().ticket_keys.clone();
        secrets.into_iter().map(|it| it.secret).collect()
    }

    /// Makes a new secret of session tickets when the newest is old; tells when to ask again.
    pub fn rotate_ticket_keys(&self, now: OffsetDateTime) -> Result<OffsetDateTime, DesiredError> {
        let fresh = random_hex();
        let written = self.transact(|draft| {
            let newest = draft.ticket_keys().first();
            if let Some(due) = newest.map(|newest| newest.since + ROTATION)
                && due > now
            {
                return due;
            }
            let fresh = TicketSecret {
                secret: fresh.clone(),
                since: now,
            };
            let former = draft.ticket_keys().iter().take(KEPT - 1).cloned();
            let secrets = std::iter::once(fresh).chain(former).collect();
            draft.put_ticket_keys(secrets);
            now + ROTATION
        })?;
        Ok(written.outcome)
    }

    /// The authority of a development gateway, if there is one.
    pub fn authority(&self) -> Option<StoredAuthority> {
        self.lock().authority.clone()
    }

    /// Stores an authority unless there is one already; returns the one that holds.
    pub fn ensure_authority(
        &self,
        made: &StoredAuthority,
    ) -> Result<Written<StoredAuthority>, DesiredError> {
        self.transact(|draft| match draft.authority() {
            Some(present) => present.clone(),
            None => {
                draft.put_authority(made.clone());
                made.clone()
            }
        })
    }

    /// Private keys of all certificates.
    pub fn certificate_keys(&self) -> Result<BTreeMap<Uuid, Secret>, DesiredError> {
        let range = self.read(keys::CERTIFICATE_KEYS)?;
        let found = range.items.iter().map(|item| private_key(item.entry()));
        found.filter_map(Result::transpose).collect()
    }
}

/// The private key of a certificate, if the store's entry is one.
pub(super) fn private_key(entry: Entry<'_>) -> Result<Option<(Uuid, Secret)>, DesiredError> {
    let uuid = entry.key.strip_prefix(keys::CERTIFICATE_KEYS);
    let Some(uuid) = uuid.and_then(|uuid| uuid.parse().ok()) else {
        return Ok(None);
    };
    let secret = serde_json::from_slice(entry.value);
    let secret = secret.map_err(|source| DesiredError::Unreadable {
        key: entry.key.to_owned(),
        source,
    })?;
    Ok(Some((uuid, secret)))
}

/// 32 random bytes as text.
fn random_hex() -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    // Only a kernel without its random numbers fails, and nothing of the agent works there.
    getrandom::fill(&mut *bytes).expect("the kernel's random numbers");
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::RedbStore;

    #[test]
    fn ticket_keys_rotate_and_survive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        let open = || Desired::load(Arc::new(RedbStore::open(&path).unwrap())).unwrap();
        let start = time::macros::datetime!(2026-01-01 00:00 UTC);
        let mut desired = open();
        assert_eq!(desired.ticket_keys(), []);
        let mut seen = Vec::new();
        for round in 0..5 {
            let now = start + ROTATION * round;
            assert_eq!(desired.rotate_ticket_keys(now).unwrap(), now + ROTATION);
            // Not again before its time, whoever asks.
            let soon = now + ROTATION - Duration::SECOND;
            assert_eq!(desired.rotate_ticket_keys(soon).unwrap(), now + ROTATION);
            let keys = desired.ticket_keys();
            assert!(!seen.contains(&keys[0]));
            assert!(
                keys[0].reveal().len() == 64 && !format!("{keys:?}").contains(keys[0].reveal())
            );
            seen.insert(0, keys[0].clone());
            // Those of a day before this one go on opening tickets.
            assert_eq!(keys, seen[..seen.len().min(3)]);
            drop(desired);
            desired = open();
            assert_eq!(desired.ticket_keys(), keys, "after a restart");
        }
    }
}
