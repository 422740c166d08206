//! Whose word a change is.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::Role;

/// Who made a change: never with a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Author {
    /// The holder of a token, which may have been revoked since.
    Token {
        /// Which token.
        uuid: Uuid,
        /// What it was called.
        label: String,
        /// The account that it acts for.
        account: Uuid,
        /// What its holder may do.
        role: Role,
    },
    /// The holder of the token of `api.token_file`.
    TokenFile,
    /// A user of the gateway's host, through the Unix socket.
    User {
        /// Which user.
        uid: u32,
    },
    /// A process of the gateway's host, under `api.loopback_without_token`.
    Loopback,
    /// An operator: accounts are told no more of whoever is none of their own.
    Operator,
    /// The agent itself, when a deadline that somebody set was over.
    #[default]
    Agent,
}

impl Author {
    /// What an account is told of it: its own tokens, and of operators only that they were it.
    #[must_use]
    pub fn told_to(&self, reader: Uuid) -> Self {
        match self {
            Self::Token {
                account,
                role: Role::Member | Role::Reader,
                ..
            } if *account == reader => self.clone(),
            Self::Agent => Self::Agent,
            _ => Self::Operator,
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { uuid, label, .. } => write!(f, "token {uuid} {label:?}"),
            Self::TokenFile => f.write_str("the token of api.token_file"),
            Self::User { uid } => write!(f, "uid {uid}"),
            Self::Loopback => f.write_str("a process of this host without a token"),
            Self::Operator => f.write_str("an operator"),
            Self::Agent => f.write_str("the agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_told_of_its_own_tokens_only() {
        let (us, them) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let token = |account, role| Author::Token {
            uuid: Uuid::from_u128(3),
            label: "ci".to_owned(),
            account,
            role,
        };
        let ours = token(us, Role::Member);
        assert_eq!(ours.told_to(us), ours);
        for other in [
            token(them, Role::Member),
            // Operators' tokens belong to the default account, whose members are no operators.
            token(us, Role::Operator),
            Author::TokenFile,
            Author::User { uid: 0 },
            Author::Loopback,
            Author::Operator,
        ] {
            assert_eq!(other.told_to(us), Author::Operator, "{other}");
        }
        assert_eq!(Author::Agent.told_to(us), Author::Agent);
        let written = serde_json::to_value(Author::User { uid: 7 }).unwrap();
        assert_eq!(written, serde_json::json!({"kind": "user", "uid": 7}));
    }
}
