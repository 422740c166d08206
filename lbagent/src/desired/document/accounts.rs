//! Accounts in the exported form.

use std::collections::BTreeSet;

use lbagent_api::ContractError;
use lbagent_api::access::DEFAULT_ACCOUNT_NAME;
use lbagent_api::request::validate_name;
use lbagent_api::state::{StateAccount, StateDocument};

use super::super::{Access, Account, DEFAULT_ACCOUNT};

pub(super) fn export(account: &Account) -> StateAccount {
    let Account {
        uuid,
        name,
        created_at,
        quotas,
    } = account.clone();
    StateAccount {
        uuid,
        name,
        created_at,
        quotas,
    }
}

/// The accounts of a document; refuses objects of any other.
pub(super) fn import(document: &StateDocument) -> Result<Access, ContractError> {
    let mut access = Access::default();
    let mut names = BTreeSet::new();
    for account in document.accounts.clone() {
        let StateAccount {
            uuid,
            name,
            created_at,
            quotas,
        } = account;
        validate_name(&name)?;
        let is_default = (uuid == DEFAULT_ACCOUNT, name == DEFAULT_ACCOUNT_NAME);
        if is_default.0 != is_default.1 {
            return Err(ContractError::invalid(format!(
                "The default account has the name '{DEFAULT_ACCOUNT_NAME}' and the uuid \
                 '{DEFAULT_ACCOUNT}', and no other account has either"
            )));
        }
        if !names.insert(name.clone()) || access.accounts.contains_key(&uuid) {
            return Err(ContractError::invalid(format!(
                "Account '{name}' occurs twice"
            )));
        }
        let account = Account {
            uuid,
            name,
            created_at,
            quotas,
        };
        access.accounts.insert(uuid, account);
    }
    let groups = document.service_groups.iter();
    let owners = groups.map(|group| (&group.name, group.account));
    let instances = document.instances.iter();
    let mut owners = owners.chain(instances.map(|instance| (&instance.name, instance.account)));
    match owners.find(|(_, account)| access.account(*account).is_none()) {
        None => Ok(access),
        Some((name, account)) => Err(ContractError::invalid(format!(
            "'{name}': No account with uuid '{account}'"
        ))),
    }
}
