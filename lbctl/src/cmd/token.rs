//! `lbctl token`: who may ask the agent for what.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use lbagent_api::access::{NewTokenData, Role, Token, TokenSpec, TokensData};
use lbagent_api::paths;
use ureq::http::Method;
use uuid::Uuid;

use super::parse_duration;
use crate::client::Client;
use crate::error::CtlError;
use crate::output::{self, Column, Format};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a token and print it: it is shown this once and kept nowhere
    #[command(visible_alias = "new")]
    Create {
        /// What its holder may do
        #[arg(long, value_enum, default_value = "member")]
        role: RoleWord,
        /// The account that it acts for, by name or UUID; the default account without it
        #[arg(long = "for", value_name = "ACCOUNT")]
        of: Option<String>,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// How long it is good for, such as 30m or 720h; until it is revoked without it
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// List tokens, without what their holders show
    #[command(visible_alias = "list")]
    Ls,
    /// Make tokens worthless at once
    #[command(visible_aliases = ["rm", "delete"])]
    Revoke {
        /// Their UUIDs
        #[arg(required = true)]
        tokens: Vec<Uuid>,
    },
}

/// What a holder may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleWord {
    /// Everything, for every account
    Operator,
    /// Read and write within the account
    Member,
    /// Read within the account
    Reader,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Operator => Self::Operator,
            RoleWord::Member => Self::Member,
            RoleWord::Reader => Self::Reader,
        }
    }
}

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Create {
            role,
            of,
            label,
            expires,
        } => {
            let spec = TokenSpec {
                role: (*role).into(),
                account: of.clone(),
                label: label.clone(),
                expires_in_s: expires.map(|lifetime| lifetime.as_secs()),
            };
            let data: NewTokenData = client.send(Method::POST, paths::TOKENS, &spec)?;
            output::print(format, &data, || data.secret.clone())
        }
        Command::Ls => {
            let data: TokensData = client.get(paths::TOKENS)?;
            output::print(format, &data, || table(&data.tokens))
        }
        Command::Revoke { tokens } => {
            let mut revoked = Vec::new();
            for token in tokens {
                let path = format!("{}/{token}", paths::TOKENS);
                let data: TokensData =
                    client.send(Method::DELETE, &path, &serde_json::json!({}))?;
                revoked.extend(data.tokens);
            }
            let data = TokensData { tokens: revoked };
            output::print(format, &data, || table(&data.tokens))
        }
    }
}

fn table(tokens: &[Token]) -> String {
    let columns = [
        Column::Left("UUID"),
        Column::Left("ROLE"),
        Column::Left("ACCOUNT"),
        Column::Left("LABEL"),
        Column::Left("EXPIRES"),
    ];
    let row = |token: &Token| {
        vec![
            token.uuid.to_string(),
            token.role.name().to_owned(),
            token.account_name.clone(),
            token.label.clone(),
            token
                .expires_at
                .map_or_else(|| "never".to_owned(), output::time),
        ]
    };
    output::table(&columns, &tokens.iter().map(row).collect::<Vec<_>>())
}
