//! Accounts and tokens in the exported form.

use std::collections::BTreeSet;

use lbagent_api::ContractError;
use lbagent_api::access::{DEFAULT_ACCOUNT_NAME, Role};
use lbagent_api::request::validate_name;
use lbagent_api::state::{StateAccount, StateDocument, StateToken};

use super::super::{Access, Account, DEFAULT_ACCOUNT, Digest, Token};
use super::import::about;

pub(super) fn export_account(account: &Account) -> StateAccount {
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

pub(super) fn export_token(token: &Token) -> StateToken {
    let Token {
        uuid,
        account,
        role,
        label,
        digest,
        created_at,
        expires_at,
    } = token.clone();
    StateToken {
        uuid,
        account,
        role,
        label,
        digest: digest.written(),
        created_at,
        expires_at,
    }
}

/// The accounts and tokens of a document; refuses objects of any other account.
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
        validate_name(&name).map_err(|error| about("An account".to_owned(), error))?;
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
    check_owners(document, &access)?;
    for token in &document.tokens {
        let of = |error| about(format!("Token '{}' ('{}')", token.uuid, token.label), error);
        add_token(&mut access, token).map_err(of)?;
    }
    Ok(access)
}

fn check_owners(document: &StateDocument, access: &Access) -> Result<(), ContractError> {
    let groups = document.service_groups.iter();
    let groups = groups.map(|one| (&one.name, one.account));
    let instances = document.instances.iter();
    let instances = instances.map(|one| (&one.name, one.account));
    let certificates = document.certificates.iter().flatten();
    let certificates = certificates.map(|one| (&one.name, one.account));
    let mut owners = groups.chain(instances).chain(certificates);
    match owners.find(|(_, account)| access.account(*account).is_none()) {
        None => Ok(()),
        Some((name, account)) => Err(ContractError::invalid(format!(
            "'{name}': No account with uuid '{account}'"
        ))),
    }
}

fn add_token(access: &mut Access, token: &StateToken) -> Result<(), ContractError> {
    let StateToken {
        uuid,
        account,
        role,
        label,
        digest,
        created_at,
        expires_at,
    } = token.clone();
    if access.account(account).is_none() {
        let text = format!("No account with uuid '{account}'");
        return Err(ContractError::invalid(text));
    }
    if role == Role::Operator && account != DEFAULT_ACCOUNT {
        let text = "A token with role 'operator' acts for all accounts: give it no account";
        return Err(ContractError::invalid(text));
    }
    let digest: Digest = digest
        .parse()
        .map_err(|why| ContractError::invalid(format!("Invalid 'digest': {why}")))?;
    let twice = access.tokens.contains_key(&uuid) || access.has_digest(&digest);
    if twice {
        return Err(ContractError::invalid("It occurs twice"));
    }
    access.put_token(Token {
        uuid,
        account,
        role,
        label,
        digest,
        created_at,
        expires_at,
    });
    Ok(())
}
