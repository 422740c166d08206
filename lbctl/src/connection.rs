//! Which agent, and as whom: options first, then the environment, then a profile.

use std::env;
use std::path::PathBuf;

use clap::Args;

use crate::client::{Client, Token};
use crate::endpoint::Endpoint;
use crate::error::CtlError;
use crate::profile::{self, Profile, Profiles};
use crate::tls;

/// What help calls the options of every command.
pub const HEADING: &str = "Options of every command";

/// Options of every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct Connection {
    /// The agent: http[s]://HOST:PORT or unix:/PATH/TO/SOCKET. Without it and without a profile,
    /// the Unix socket /run/lbagent/api.sock if it is there, else http://127.0.0.1:7480
    #[arg(long, global = true, env = "LBCTL_ENDPOINT", hide_env_values = true)]
    endpoint: Option<String>,
    /// Use this profile; without it and without --endpoint the one of `lbctl profile use`
    #[arg(
        long,
        global = true,
        value_name = "PROFILE",
        env = "LBCTL_PROFILE",
        hide_env_values = true
    )]
    profile: Option<String>,
    /// Certificates that prove the agent's own, for https; the system's roots without it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LBCTL_CA_FILE",
        hide_env_values = true
    )]
    ca_file: Option<PathBuf>,
    /// For operators: the account to act for, by name or UUID
    #[arg(
        long,
        global = true,
        value_name = "ACCOUNT",
        env = "LBCTL_ACCOUNT",
        hide_env_values = true
    )]
    account: Option<String>,
    /// The agent's token
    #[arg(long, global = true, env = "LBCTL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the agent's token; wins over --token and LBCTL_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connection {
    /// A client of the agent that is meant.
    pub fn client(&self) -> Result<Client, CtlError> {
        self.client_with(self.chosen_profile()?)
    }

    /// A client of the agent of a profile; what was given for this once wins over it.
    fn client_with(&self, profile: Profile) -> Result<Client, CtlError> {
        let token = match (&self.token, &self.token_file) {
            (_, Some(path)) => Some(std::fs::read_to_string(path).map_err(|error| {
                let path = path.display();
                CtlError::Usage(format!("cannot read the token in '{path}': {error}"))
            })?),
            (Some(token), None) => Some(token.clone()),
            (None, None) => profile.token()?,
        };
        let token = token.map(|text| Token::parse(&text)).transpose()?;
        let endpoint = match self.endpoint.as_ref().or(profile.endpoint.as_ref()) {
            Some(text) => Endpoint::parse(text)?,
            None => Endpoint::local(),
        };
        let mut client = if endpoint.is_tls() {
            let roots = self.ca_file.as_ref().or(profile.ca_file.as_ref());
            Client::with_tls(endpoint, token, tls::config(roots.map(PathBuf::as_path))?)
        } else {
            Client::new(endpoint, token)
        };
        client.account = self.account.clone().or(profile.account);
        Ok(client)
    }

    /// The profile that is named; else, unless an endpoint is, that of the environment or the one
    /// in use. So a token of another agent is never sent to an endpoint that was given for this
    /// once.
    fn chosen_profile(&self) -> Result<Profile, CtlError> {
        let given = |name: &str| env::var(name).ok();
        let load = || match profile::path(given) {
            Some(path) => Profiles::load(&path),
            None => Ok(Profiles::default()),
        };
        if let Some(name) = &self.profile {
            return load()?.named(name).cloned();
        }
        if self.endpoint.is_some() {
            return Ok(Profile::default());
        }
        if let Some(profile) = profile::of_metro(given)? {
            return Ok(profile);
        }
        let profiles = load()?;
        match &profiles.current {
            Some(name) => profiles.named(name).cloned(),
            None => Ok(Profile::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use lbagent_api::paths;
    use serde_json::Value;

    use super::*;
    use crate::profile::Secret;
    use crate::stub;

    /// Asks an agent, whose endpoint takes the place of the one that should win, and finds who asked and
    /// for which account.
    #[track_caller]
    fn check(mut given: Connection, mut profile: Profile, token: &str, account: &str) {
        let answer = r#"{"status":"success","data":{}}"#.to_owned();
        let (endpoint, server) = stub::start(vec![("200 OK", answer)]);
        match &mut given.endpoint {
            Some(it) => *it = endpoint.to_string(),
            None => profile.endpoint = Some(endpoint.to_string()),
        }
        let client = given.client_with(profile).unwrap();
        client.get::<Value>(paths::STATUS).unwrap();
        let head = server.join().unwrap().remove(0).0.to_lowercase();
        for line in [
            format!("authorization: bearer {token}\r\n"),
            format!("x-lbagent-account: {account}\r\n"),
        ] {
            assert!(head.contains(&line), "no {line:?} in {head}");
        }
    }

    #[test]
    fn what_is_given_wins_over_the_profile() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "of-a-file\n").unwrap();
        let text = |text: &str| Some(text.to_owned());
        let profile = || Profile {
            endpoint: text("unix:/nothing"),
            account: text("its-own"),
            token: Some(Secret("kept".to_owned())),
            ..Profile::default()
        };
        check(Connection::default(), profile(), "kept", "its-own");
        let given = || Connection {
            endpoint: text("replaced"),
            account: text("another"),
            token: text("said"),
            ..Connection::default()
        };
        check(given(), profile(), "said", "another");
        let with_file = Connection {
            token_file: Some(file),
            ..given()
        };
        check(with_file, profile(), "of-a-file", "another");
    }
}
