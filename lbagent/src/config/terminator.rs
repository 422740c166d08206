//! What the settings of `[terminator]` mean: who takes connections to ports with handlers.

use std::time::Duration;

use lbagent_api::terminator::DEFAULT_TERMINATOR_SOCKET;
use nix::unistd::User;

use super::api::NONE;
use super::reader::{Located, Table};
use super::serving::Serving;
use super::settings::Value;
use super::validate::Checker;
use super::{Problem, TerminatorConfig};
use crate::plan::WithoutTerminator;

/// Seconds that the predecessor of a terminator has unless configured otherwise.
const DRAIN: u64 = 30;
/// Longest such time: a day.
const MAX_DRAIN: u64 = 86_400;

/// `[terminator]` as written down.
#[derive(Default)]
pub(super) struct TerminatorSettings {
    socket: Value<String>,
    user: Value<String>,
    missing: Value<String>,
    drain_s: Value<u64>,
    development_ca: Value<bool>,
    serving: Serving,
}

impl TerminatorSettings {
    pub(super) fn read(table: &mut Table<'_, '_>, problems: &mut Vec<Problem>) -> Self {
        Self {
            socket: table.string("socket", problems),
            user: table.string("user", problems),
            missing: table.string("missing", problems),
            drain_s: table.number("drain_s", problems),
            development_ca: table.boolean("development_ca", problems),
            serving: Serving::read(table, problems),
        }
    }
}

impl Checker<'_> {
    pub(super) fn terminator(&mut self, settings: TerminatorSettings) -> TerminatorConfig {
        TerminatorConfig {
            socket: match settings.socket {
                None => Some(DEFAULT_TERMINATOR_SOCKET.into()),
                Some(path) if path.value == NONE => None,
                Some(path) => Some(self.socket_path("terminator.socket", path)),
            },
            user: settings.user.and_then(|user| self.uid(&user)),
            missing: self.choice(
                "terminator.missing",
                settings.missing,
                &[
                    ("reset", WithoutTerminator::Reset),
                    ("pass", WithoutTerminator::Pass),
                ],
            ),
            drain: self.drain(settings.drain_s),
            development_ca: settings.development_ca.is_some_and(|wanted| wanted.value),
            serving: self.serving(settings.serving),
        }
    }

    fn uid(&mut self, user: &Located<String>) -> Option<u32> {
        let Located { value, origin } = user;
        let refusal = match User::from_name(value) {
            Ok(Some(user)) => return Some(user.uid.as_raw()),
            Ok(None) => {
                format!("there is no user `{value}`; `useradd --system {value}` makes it")
            }
            Err(error) => format!("cannot look up `{value}`: {error}"),
        };
        self.problem(origin, format!("terminator.user: {refusal}"));
        None
    }

    fn drain(&mut self, seconds: Value<u64>) -> Duration {
        let Some(Located { value, origin }) = seconds else {
            return Duration::from_secs(DRAIN);
        };
        if value > MAX_DRAIN {
            let text = format!("terminator.drain_s: {value} is not in the range 0 to {MAX_DRAIN}");
            self.problem(&origin, text);
        }
        Duration::from_secs(value)
    }
}
