//! `lbctl token`: who may ask the agent for what.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use lbagent_api::access::{NewTokenData, Role, Token, TokenSpec, TokensData};
use lbagent_api::paths;
use time::OffsetDateTime;
use ureq::http::Method;
use uuid::Uuid;

use super::each::each;
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
        /// What its holder may do: everything for every account, read and write within the account,
        /// or read within the account
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
    Operator,
    Member,
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
            match format {
                // It has no name, and whoever makes one in a script wants to use it.
                Format::Quiet => output::write_stdout(&data.secret),
                _ => output::print(format, &data, || data.secret.clone()),
            }
        }
        Command::Ls => {
            let data: TokensData = client.get(paths::TOKENS)?;
            let now = OffsetDateTime::now_utc();
            output::print(format, &data.tokens, || table(&data.tokens, format, now))
        }
        Command::Revoke { tokens } => {
            let words: Vec<String> = tokens.iter().map(Uuid::to_string).collect();
            let revoke = |word: &str| -> Result<Token, CtlError> {
                let path = format!("{}/{word}", paths::TOKENS);
                let data: TokensData =
                    client.send(Method::DELETE, &path, &serde_json::json!({}))?;
                let gone = "the agent told of no token";
                let mut tokens = data.tokens.into_iter();
                tokens
                    .next()
                    .ok_or_else(|| CtlError::Local(gone.to_owned()))
            };
            let told = |word: &str, _: &Token| format!("{word} revoked");
            each(&words, format, revoke, told, "\n")
        }
    }
}

fn table(tokens: &[Token], format: Format, now: OffsetDateTime) -> String {
    let columns = [
        Column::Left("UUID"),
        Column::Left("ROLE"),
        Column::Left("ACCOUNT"),
        Column::Wrap("LABEL"),
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
                .map_or_else(|| "never".to_owned(), |at| expires(at, format, now)),
        ]
    };
    output::table(&columns, &tokens.iter().map(row).collect::<Vec<_>>())
}

/// A date for programs, days for people.
fn expires(at: OffsetDateTime, format: Format, now: OffsetDateTime) -> String {
    if format == Format::Wide || crate::screen::current().width.is_none() {
        output::time(at)
    } else {
        output::left(at, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::check_fits;

    #[test]
    fn tokens_are_listed() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut token: Token = serde_json::from_value(serde_json::json!({
            "uuid": "00000000-0000-0000-0000-000000000001", "label": "ci",
            "account": "00000000-0000-0000-0000-000000000000", "account_name": "default",
            "role": "reader", "created_at": "1970-01-01T00:00:00Z",
            "expires_at": "1970-01-03T00:00:00Z"
        }))
        .unwrap();
        assert_eq!(
            table(std::slice::from_ref(&token), Format::Table, now),
            "UUID                                  ROLE    ACCOUNT  LABEL  EXPIRES\n\
             00000000-0000-0000-0000-000000000001  reader  default  ci     1970-01-03T00:00:00Z"
        );
        token.label = "what it is for ".repeat(20);
        token.account_name = "n".repeat(63);
        let text = check_fits("token ls", || {
            table(std::slice::from_ref(&token), Format::Table, now)
        });
        assert!(text.contains("in 2d"), "{text}");
    }
}
