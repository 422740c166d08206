//! Making the desired state what a document asks for, in one transaction. Everything that could
//! refuse it is looked at before the first edit.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::super::certificate::{self, CertificateError};
use super::super::draft::Draft;
use super::super::{
    AccountError, Caller, Certificate, Desired, DesiredError, DesiredState, Instance, ServiceGroup,
    Written, access, instance, keys, service_group, terminator,
};
use super::Wanted;

/// Why a document was not imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// An account cannot be as the document has it.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Certificates would be without their private keys.
    #[error(
        "The document has no private keys of these certificates, and the agent has none that \
         belongs to them: {}; export them with their keys, or take them and the domains that name \
         them out of the document",
        quoted(names)
    )]
    NoKeys {
        /// Names of the certificates.
        names: Vec<String>,
    },
    /// A domain cannot be served with the certificate that it names.
    #[error("Service group '{group}': {source}")]
    Certificate {
        /// Name of the group.
        group: String,
        /// Why.
        source: CertificateError,
    },
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The agent has tokens of its own, so that others of the document were left out.
    pub tokens_left_out: bool,
}

impl Desired {
    /// Makes service groups, instances and certificates equal to these, all or nothing. Accounts are
    /// added or given other quotas; those that the document does not have stay. Tokens are taken
    /// where there are none, the key of the flow hash where there are no objects.
    pub fn replace(
        &self,
        wanted: &Wanted,
    ) -> Result<Written<Result<Replaced, ReplaceError>>, DesiredError> {
        self.transact(|draft| {
            let old = draft.state().clone();
            check_accounts(draft, wanted)?;
            check_keys(&old, wanted)?;
            let groups = groups(draft, wanted)?;
            if let Some(seed) = wanted.hash_seed
                && old.is_empty()
            {
                draft.put_hash_seed(seed);
            }
            put_accounts(draft, wanted);
            terminator::restore(draft, &wanted.terminator);
            let tokens_left_out = put_tokens(draft, &old, wanted);
            replace_objects(draft, &old, &groups, wanted);
            Ok(Replaced { tokens_left_out })
        })
    }
}

fn check_accounts(draft: &mut Draft, wanted: &Wanted) -> Result<(), AccountError> {
    for account in wanted.state.access.accounts.values() {
        let owner = draft.owner(&keys::account_name(&account.name));
        if owner.is_some_and(|owner| owner != account.uuid) {
            let name = account.name.clone();
            return Err(AccountError::NameTaken { name });
        }
    }
    Ok(())
}

/// A key that the agent has belongs to a chain if it belonged to another one for the same key.
fn check_keys(old: &DesiredState, wanted: &Wanted) -> Result<(), ReplaceError> {
    let lacks_key = |it: &&Certificate| {
        let former = old.certificates.get(&it.uuid);
        let is_kept = former.is_some_and(|former| {
            former.chain == it.chain || certificate::have_same_key(&former.chain, &it.chain)
        });
        !is_kept && !wanted.keys.contains_key(&it.uuid)
    };
    let without = wanted.state.certificates.values().filter(lacks_key);
    let names: Vec<String> = without.map(|it| it.name.clone()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(ReplaceError::NoKeys { names }),
    }
}

/// The groups of the document, whose domains name certificates by UUID.
fn groups(draft: &mut Draft, wanted: &Wanted) -> Result<Vec<ServiceGroup>, ReplaceError> {
    let mut groups: Vec<ServiceGroup> = wanted.state.service_groups.values().cloned().collect();
    for group in &mut groups {
        let caller = Caller::operator(group.account);
        for domain in &mut group.domains {
            let found = certificate::chosen(domain, |selector| match wanted.has_certificates {
                true => wanted.state.certificate(caller, selector).cloned(),
                false => draft.find_certificate(caller, selector),
            });
            found.map_err(|source| ReplaceError::Certificate {
                group: group.name.clone(),
                source,
            })?;
        }
    }
    Ok(groups)
}

fn put_accounts(draft: &mut Draft, wanted: &Wanted) {
    for account in wanted.state.access.accounts.values() {
        let former = draft.account(account.uuid);
        if former.as_ref() == Some(account) {
            continue;
        }
        if let Some(former) = former {
            draft.release(keys::account_name(&former.name));
        }
        access::put(draft, account.clone());
    }
}

/// A token that was revoked must not come back with an old document.
fn put_tokens(draft: &mut Draft, old: &DesiredState, wanted: &Wanted) -> bool {
    let ours = &old.access.tokens;
    let tokens = wanted.state.access.tokens.values();
    if ours.is_empty() {
        tokens.for_each(|token| draft.put_token(token.clone()));
        return false;
    }
    let mut tokens = tokens;
    tokens.any(|token| !ours.contains_key(&token.uuid))
}

fn replace_objects(
    draft: &mut Draft,
    old: &DesiredState,
    groups: &[ServiceGroup],
    wanted: &Wanted,
) {
    let state = &wanted.state;
    let same_group = |group: &&ServiceGroup| old.service_groups.get(&group.uuid) == Some(group);
    let same_instance = |one: &&Instance| state.instances.get(&one.uuid) == Some(one);
    let same_certificate = |one: &&Certificate| state.certificates.get(&one.uuid) == Some(one);
    let kept = groups.iter().filter(same_group).map(|group| group.uuid);
    let kept: BTreeSet<Uuid> = kept.collect();
    // What goes releases its names and ports before others claim them.
    for instance in old.instances.values().filter(|one| !same_instance(one)) {
        instance::remove(draft, instance.uuid);
    }
    for uuid in old
        .service_groups
        .keys()
        .filter(|uuid| !kept.contains(uuid))
    {
        service_group::remove(draft, *uuid);
    }
    if wanted.has_certificates {
        for former in old
            .certificates
            .values()
            .filter(|one| !same_certificate(one))
        {
            if state.certificates.contains_key(&former.uuid) {
                draft.release(keys::certificate_name(former.account, &former.name));
            } else {
                certificate::remove(draft, former.uuid);
            }
        }
        for new in state.certificates.values() {
            if old.certificates.get(&new.uuid) != Some(new) {
                certificate::insert(draft, new.clone(), wanted.keys.get(&new.uuid));
            }
        }
    }
    for group in groups.iter().filter(|group| !kept.contains(&group.uuid)) {
        service_group::insert(draft, group.clone());
    }
    for instance in state.instances.values() {
        if old.instances.get(&instance.uuid) != Some(instance) {
            instance::insert(draft, instance.clone());
        }
    }
}
