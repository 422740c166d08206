//! Accounts and tokens.

use std::time::Duration;

use lbagent_api::access::{DEFAULT_ACCOUNT_NAME, Quotas, Role, TokenSpec};
use lbagent_api::{ContractError, Selector};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::draft::Draft;
use super::secret::{self, Digest};
use super::{Caller, DEFAULT_ACCOUNT, Desired, DesiredError, SharedMap, Written, keys};

/// Longest label of a token.
const MAX_LABEL: usize = 128;
/// Longest life of a token: ten years, in seconds.
const MAX_LIFETIME: u64 = 10 * 365 * 86_400;

/// Who may ask for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// By UUID. The default account is among them only if it was given quotas.
    pub accounts: SharedMap<Uuid, Account>,
    /// By UUID.
    pub tokens: SharedMap<Uuid, Token>,
    by_digest: SharedMap<Digest, Uuid>,
}

/// Owns objects, and sees no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What it may have.
    pub quotas: Quotas,
}

/// Lets its holder in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Identity.
    pub uuid: Uuid,
    /// The account that it acts for.
    pub account: Uuid,
    /// What its holder may do.
    pub role: Role,
    /// Tells people what it is for.
    pub label: String,
    /// Of what its holder shows.
    pub digest: Digest,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it stops being good.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

impl Token {
    /// Who holds it.
    pub const fn caller(&self) -> Caller {
        Caller {
            account: self.account,
            role: self.role,
        }
    }
}

impl Access {
    /// The account with a UUID. The default one exists always.
    pub fn account(&self, uuid: Uuid) -> Option<Account> {
        let stored = self.accounts.get(&uuid).cloned();
        stored.or_else(|| (uuid == DEFAULT_ACCOUNT).then(default_account))
    }

    /// All accounts, the default one first.
    pub fn all_accounts(&self) -> impl Iterator<Item = Account> {
        let others = self.accounts.values().filter(|one| !one.uuid.is_nil());
        self.account(DEFAULT_ACCOUNT)
            .into_iter()
            .chain(others.cloned())
    }

    /// The token that somebody shows, if it is good.
    pub fn holder(&self, shown: &[u8], now: OffsetDateTime) -> Option<&Token> {
        let digest = Digest::of(shown);
        let token = self.tokens.get(self.by_digest.get(&digest)?)?;
        let is_over = token.expires_at.is_some_and(|end| end <= now);
        (token.digest.is(&digest) && !is_over).then_some(token)
    }

    /// Who shows this, if the token is good.
    pub fn caller(&self, shown: &[u8], now: OffsetDateTime) -> Option<Caller> {
        self.holder(shown, now).map(Token::caller)
    }

    pub(super) fn has_digest(&self, digest: &Digest) -> bool {
        self.by_digest.contains_key(digest)
    }

    pub(super) fn put_token(&mut self, token: Token) {
        self.by_digest.insert(token.digest, token.uuid);
        self.tokens.insert(token.uuid, token);
    }

    pub(super) fn take_token(&mut self, uuid: Uuid) -> Option<Token> {
        let token = self.tokens.remove(&uuid)?;
        self.by_digest.remove(&token.digest);
        Some(token)
    }
}

fn default_account() -> Account {
    Account {
        uuid: DEFAULT_ACCOUNT,
        name: DEFAULT_ACCOUNT_NAME.to_owned(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        quotas: Quotas::UNLIMITED,
    }
}

/// Why an account was not created, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such account.
    #[error("No account with {0}")]
    NotFound(Selector),
    /// Another account has the name.
    #[error("An account with name '{name}' already exists")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The default account stays.
    #[error("The default account cannot be deleted")]
    Default,
    /// It has objects.
    #[error(
        "Account '{name}' has {service_groups} service groups, {instances} instances and {certificates} certificates; delete them first"
    )]
    NotEmpty {
        /// Its name.
        name: String,
        /// How many it has.
        service_groups: u32,
        /// How many it has.
        instances: u32,
        /// How many it has.
        certificates: usize,
    },
}

/// Why a token was not created or revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no such account.
    #[error("No account with {0}")]
    NoAccount(Selector),
    /// There is no such token.
    #[error("No token with uuid '{0}'")]
    NotFound(Uuid),
    /// An operator acts for every account, so the token is none's.
    #[error("A token with role 'operator' acts for all accounts: give it no account")]
    OperatorOfAccount,
    /// The host has no random bits.
    #[error("The operating system gives no random bits: {0}")]
    NoRandomBits(String),
}

/// A valid request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What its holder may do.
    pub role: Role,
    /// The account that it acts for.
    pub account: Selector,
    /// What it is for.
    pub label: String,
    /// So long it is good for.
    pub lifetime: Option<Duration>,
}

impl TryFrom<TokenSpec> for NewToken {
    type Error = ContractError;

    fn try_from(spec: TokenSpec) -> Result<Self, ContractError> {
        let TokenSpec {
            role,
            account,
            label,
            expires_in_s,
        } = spec;
        if label.len() > MAX_LABEL || label.contains(char::is_control) {
            return Err(ContractError::invalid(format!(
                "Invalid 'label': expected {MAX_LABEL} bytes at most, without control characters"
            )));
        }
        if let Some(seconds) = expires_in_s
            && !(1..=MAX_LIFETIME).contains(&seconds)
        {
            return Err(ContractError::invalid(format!(
                "Invalid 'expires_in_s' {seconds}: expected 1 to {MAX_LIFETIME}"
            )));
        }
        Ok(Self {
            role,
            account: Selector::from_word(account.as_deref().unwrap_or(DEFAULT_ACCOUNT_NAME)),
            label,
            lifetime: expires_in_s.map(Duration::from_secs),
        })
    }
}

/// What became of a change.
type Change<T, E> = Result<Written<Result<T, E>>, DesiredError>;

impl Desired {
    /// Creates an account.
    pub fn create_account(
        &self,
        name: &str,
        quotas: Quotas,
        now: OffsetDateTime,
    ) -> Change<Account, AccountError> {
        self.transact(|draft| {
            let is_taken = draft.owner(&keys::account_name(name)).is_some();
            if is_taken || name == DEFAULT_ACCOUNT_NAME {
                let name = name.to_owned();
                return Err(AccountError::NameTaken { name });
            }
            let account = Account {
                uuid: Uuid::new_v4(),
                name: name.to_owned(),
                created_at: now,
                quotas,
            };
            put(draft, account.clone());
            Ok(account)
        })
    }

    /// Gives an account other quotas. What it has stays, even if it is more.
    pub fn set_quotas(&self, selector: &Selector, quotas: Quotas) -> Change<Account, AccountError> {
        self.transact(|draft| {
            let former = find(draft, selector)?;
            let account = Account {
                quotas,
                ..former.clone()
            };
            if account != former {
                put(draft, account.clone());
            }
            Ok(account)
        })
    }

    /// Deletes an account that has nothing, with its tokens.
    pub fn delete_account(&self, selector: &Selector) -> Change<Account, AccountError> {
        self.transact(|draft| {
            let account = find(draft, selector)?;
            let used = draft.state().usage(account.uuid);
            if account.uuid == DEFAULT_ACCOUNT {
                return Err(AccountError::Default);
            }
            let all = draft.state().certificates.values();
            let certificates = all.filter(|one| one.account == account.uuid).count();
            if used.service_groups > 0 || used.instances > 0 || certificates > 0 {
                return Err(AccountError::NotEmpty {
                    name: account.name,
                    service_groups: used.service_groups,
                    instances: used.instances,
                    certificates,
                });
            }
            let tokens = draft.state().access.tokens.values();
            let its: Vec<Uuid> = tokens
                .filter(|token| token.account == account.uuid)
                .map(|token| token.uuid)
                .collect();
            for token in its {
                draft.remove_token(token);
            }
            draft.release(keys::account_name(&account.name));
            draft.remove_account(account.uuid);
            Ok(account)
        })
    }

    /// Creates a token; the secret is kept nowhere.
    pub fn create_token(
        &self,
        new: &NewToken,
        now: OffsetDateTime,
    ) -> Change<(Token, String), TokenError> {
        self.transact(|draft| {
            let account = find(draft, &new.account)
                .map_err(|_| TokenError::NoAccount(new.account.clone()))?;
            if new.role == Role::Operator && account.uuid != DEFAULT_ACCOUNT {
                return Err(TokenError::OperatorOfAccount);
            }
            let secret =
                secret::random().map_err(|error| TokenError::NoRandomBits(error.to_string()))?;
            let token = Token {
                uuid: Uuid::new_v4(),
                account: account.uuid,
                role: new.role,
                label: new.label.clone(),
                digest: Digest::of(secret.as_bytes()),
                created_at: now,
                expires_at: new.lifetime.map(|lifetime| now + lifetime),
            };
            draft.put_token(token.clone());
            Ok((token, secret))
        })
    }

    /// Makes a token worthless at once.
    pub fn revoke_token(&self, uuid: Uuid) -> Change<Token, TokenError> {
        self.transact(|draft| draft.remove_token(uuid).ok_or(TokenError::NotFound(uuid)))
    }
}

impl super::DesiredState {
    /// The account that a selector names.
    pub fn account(&self, selector: &Selector) -> Option<Account> {
        let uuid = match selector {
            Selector::Uuid(uuid) => *uuid,
            Selector::Name(name) if name == DEFAULT_ACCOUNT_NAME => DEFAULT_ACCOUNT,
            Selector::Name(name) => self.claims.get(&keys::account_name(name))?.owner()?,
        };
        self.access.account(uuid)
    }
}

fn find(draft: &mut Draft, selector: &Selector) -> Result<Account, AccountError> {
    let found = draft.state().account(selector).map(|account| account.uuid);
    let account = found.and_then(|uuid| draft.account(uuid));
    account.ok_or_else(|| AccountError::NotFound(selector.clone()))
}

/// Writes an account with its claim.
pub(super) fn put(draft: &mut Draft, account: Account) {
    if account.uuid != DEFAULT_ACCOUNT {
        draft.claim(keys::account_name(&account.name), account.uuid);
    }
    draft.put_account(account);
}
