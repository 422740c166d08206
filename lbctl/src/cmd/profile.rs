//! `lbctl profile`: agents by name.

use std::io::Read;
use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::client::Token;
use crate::endpoint::Endpoint;
use crate::error::CtlError;
use crate::output::{Column, Format, print, table, write_stdout};
use crate::profile::{Profile, Profiles, Secret};

/// What to do with profiles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List profiles; the one in use has a star
    #[command(visible_alias = "list")]
    Ls,
    /// Use this one from now on
    Use {
        /// The profile
        #[arg(value_name = "PROFILE")]
        name: String,
    },
    /// Make or change one: lbctl profile set prod endpoint=https://gw:7443 account=shop
    Set {
        /// The profile
        #[arg(value_name = "PROFILE")]
        name: String,
        /// endpoint, ca_file, account or token_file; an empty value takes it away
        #[arg(value_name = "KEY=VALUE")]
        values: Vec<String>,
        /// Read the token from stdin and keep it in the profile
        #[arg(long)]
        token_stdin: bool,
    },
    /// Forget profiles
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// The profiles
        #[arg(required = true, value_name = "PROFILE")]
        names: Vec<String>,
    },
}

/// Runs the command on the profiles in a file.
pub fn run(command: &Command, path: Option<PathBuf>, format: Format) -> Result<(), CtlError> {
    let path = path.ok_or_else(|| {
        CtlError::Usage("profiles have no place: neither HOME nor XDG_CONFIG_HOME is set".into())
    })?;
    let mut profiles = Profiles::load(&path)?;
    match command {
        Command::Ls => return list(&profiles, format),
        Command::Use { name } => {
            profiles.named(name)?;
            profiles.current = Some(name.clone());
        }
        Command::Set {
            name,
            values,
            token_stdin,
        } => {
            lbagent_api::request::validate_name(name)
                .map_err(|error| CtlError::Usage(error.to_string()))?;
            let profile = profiles.profiles.entry(name.clone()).or_default();
            for value in values {
                set(profile, value)?;
            }
            if *token_stdin {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| CtlError::Usage(format!("cannot read the token: {error}")))?;
                Token::parse(&text)?;
                profile.token = Some(Secret(text.trim().to_owned()));
            }
            // The first one is the one that is meant.
            profiles.current.get_or_insert_with(|| name.clone());
        }
        Command::Rm { names } => {
            for name in names {
                profiles.named(name)?;
            }
            profiles.profiles.retain(|name, _| !names.contains(name));
            profiles.current = profiles.current.filter(|name| !names.contains(name));
        }
    }
    profiles.save(&path)?;
    let current = profiles.current.as_deref().unwrap_or("none");
    write_stdout(&format!("profile in use: {current}"))
}

fn set(profile: &mut Profile, assignment: &str) -> Result<(), CtlError> {
    let keys = "endpoint, ca_file, account and token_file";
    let wrong = |why: String| CtlError::Usage(format!("'{assignment}': {why}"));
    let (key, value) = assignment
        .split_once('=')
        .ok_or_else(|| wrong(format!("expected KEY=VALUE; keys are {keys}")))?;
    let value = Some(value).filter(|value| !value.is_empty());
    let file = || -> Result<Option<PathBuf>, CtlError> {
        // The working directory of later is another one.
        value
            .map(std::path::absolute)
            .transpose()
            .map_err(|error| wrong(error.to_string()))
    };
    match key {
        "endpoint" => {
            value.map(Endpoint::parse).transpose()?;
            profile.endpoint = value.map(str::to_owned);
        }
        "account" => profile.account = value.map(str::to_owned),
        "ca_file" => profile.ca_file = file()?,
        "token_file" => profile.token_file = file()?,
        "token" if value.is_none() => profile.token = None,
        "token" => {
            return Err(wrong(
                "a token on the command line is seen by others; give it by --token-stdin, or \
                 token_file=FILE"
                    .into(),
            ));
        }
        _ => return Err(wrong(format!("unknown key '{key}'; keys are {keys}"))),
    }
    Ok(())
}

/// A profile without its secret.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    current: bool,
    endpoint: Option<&'a str>,
    account: Option<&'a str>,
    ca_file: Option<String>,
    token: String,
}

fn list(profiles: &Profiles, format: Format) -> Result<(), CtlError> {
    let shown: Vec<Shown<'_>> = profiles
        .profiles
        .iter()
        .map(|(name, profile)| Shown {
            name,
            current: profiles.current.as_ref() == Some(name),
            endpoint: profile.endpoint.as_deref(),
            account: profile.account.as_deref(),
            ca_file: profile
                .ca_file
                .as_ref()
                .map(|file| file.display().to_string()),
            token: match (&profile.token_file, &profile.token) {
                (Some(file), _) => format!("in {}", file.display()),
                (None, Some(_)) => "kept".to_owned(),
                (None, None) => "-".to_owned(),
            },
        })
        .collect();
    print(format, &shown, || render(&shown))
}

fn render(shown: &[Shown<'_>]) -> String {
    let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let row = |shown: &Shown<'_>| {
        vec![
            format!("{}{}", shown.name, if shown.current { " *" } else { "" }),
            or_none(shown.endpoint),
            or_none(shown.account),
            or_none(shown.ca_file.as_deref()),
            shown.token.clone(),
        ]
    };
    let columns = [
        Column::Left("NAME"),
        Column::Wrap("ENDPOINT"),
        Column::Left("ACCOUNT"),
        Column::Wrap("CA FILE"),
        Column::Wrap("TOKEN"),
    ];
    table(&columns, &shown.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::check_fits;

    #[test]
    fn profiles_fit_a_terminal() {
        let long = "l".repeat(63);
        let worst = [Shown {
            name: &long,
            current: true,
            endpoint: Some("https://[2001:db8:1111:2222:3333:4444:5555:6666]:65535"),
            account: Some(&long),
            ca_file: Some(format!("/etc/lbagent/{long}/{long}.pem")),
            token: format!("in /root/{long}"),
        }];
        check_fits("profile ls", || render(&worst));
    }
}
