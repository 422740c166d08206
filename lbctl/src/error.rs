//! What can go wrong, as the one line that the operator gets.

use lbagent_api::{ErrorCode, ItemError};

/// Exit codes, as `lbctl --help` documents them.
pub mod exit {
    /// The agent refused or failed.
    pub const REFUSED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// No agent answers.
    pub const UNREACHABLE: u8 = 3;
}

/// Why a command failed. `Display` is the whole message, for one line.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The command line, or a file that it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// The agent refused the request as a whole.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The agent's message, or what to make of none.
        message: String,
    },
    /// The agent refused some objects.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Items(Vec<ItemError>),
    /// The agent wants a token, or another one.
    #[error(
        "the agent at {endpoint} {}; give its token with --token-file FILE or LBCTL_TOKEN",
        if *.given { "does not accept this token" } else { "wants a token" }
    )]
    Token {
        /// Where the agent is.
        endpoint: String,
        /// Whether a token was sent.
        given: bool,
    },
    /// The agent's Unix socket is not for this user.
    #[error(
        "this user may not use {endpoint}: root, the agent's own user and members of \
         api.unix_socket_group may; everybody else shows a token with --token-file FILE at another \
         --endpoint, such as http://127.0.0.1:7480"
    )]
    NotPermitted {
        /// The socket.
        endpoint: String,
    },
    /// No agent answers.
    #[error(
        "no agent answers at {endpoint} ({reason}); start it with `lbagent run --config FILE`, or \
         say where it is with --endpoint or LBCTL_ENDPOINT"
    )]
    Unreachable {
        /// Where none answered.
        endpoint: String,
        /// What happened instead.
        reason: String,
    },
    /// Something answers, and it is not an agent that this lbctl understands.
    #[error("{endpoint} does not answer as an lbagent of this version: {reason}")]
    Foreign {
        /// Where it is.
        endpoint: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The agent is not as it should be, asked for by `status --check`.
    #[error("{0}")]
    Unhealthy(String),
    /// Files are wrong; one line for each mistake.
    #[error("{}", .0.join("; "))]
    Files(Vec<String>),
    /// Some of several changes failed; one line for each.
    #[error("{}", .0.join("; "))]
    Changes(Vec<String>),
    /// Somebody else changed the object that was edited.
    #[error("{0} was changed by somebody else meanwhile, so nothing was done; edit it again")]
    Outdated(String),
    /// Files and agent differ, which was shown already.
    #[error("the agent differs from the files")]
    Different,
    /// Reading or writing on this side failed.
    #[error("{0}")]
    Local(String),
}

impl CtlError {
    /// An object is not what it was when it was read.
    pub fn changed() -> Self {
        Self::Refused {
            status: 412,
            message: "somebody else changed it meanwhile".to_owned(),
        }
    }

    /// Whether an object is not what it was when it was read.
    pub const fn is_changed(&self) -> bool {
        matches!(self, Self::Refused { status: 412, .. } | Self::Outdated(_))
    }

    /// The exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Files(_) => exit::USAGE,
            Self::Unreachable { .. } | Self::Foreign { .. } => exit::UNREACHABLE,
            Self::Refused { .. }
            | Self::Items(_)
            | Self::Token { .. }
            | Self::NotPermitted { .. }
            | Self::Unhealthy(_)
            | Self::Changes(_)
            | Self::Different
            | Self::Outdated(_)
            | Self::Local(_) => exit::REFUSED,
        }
    }

    /// The lines for stderr: one for each mistake.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Items(items) => items.iter().map(|item| line(&describe(item))).collect(),
            Self::Files(mistakes) | Self::Changes(mistakes) => {
                mistakes.iter().map(|mistake| line(mistake)).collect()
            }
            Self::Different => Vec::new(),
            other => vec![line(&other.to_string())],
        }
    }
}

/// The item's message; its name where the message does not say it, its code where there is none.
fn describe(item: &ItemError) -> String {
    let name = item.name.as_deref().or(item.uuid.as_deref());
    let message = if item.message.is_empty() {
        format!(
            "the agent refused this with error {}",
            u16::from(item.error)
        )
    } else {
        item.message.clone()
    };
    match name {
        Some(name) if !message.contains(name) => format!("{name}: {message}"),
        _ => message,
    }
}

fn line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    format!("lbctl: {}", words.join(" "))
}

/// Adds advice to every item that failed with `code`.
pub fn advise(error: CtlError, code: ErrorCode, advice: impl Fn(&ItemError) -> String) -> CtlError {
    let CtlError::Items(mut items) = error else {
        return error;
    };
    for item in items.iter_mut().filter(|item| item.error == code) {
        item.message = format!("{}; {}", item.message, advice(item));
    }
    CtlError::Items(items)
}

/// The names most like `wrong`: contained in one another, or few letters away.
pub fn near_matches<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong = wrong.to_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = edit_distance(&wrong, &lower);
            let contained = wrong.len() > 1 && (lower.contains(&wrong) || wrong.contains(&lower));
            let allowed = wrong.len().max(lower.len()).div_ceil(3).min(3);
            (contained || distance <= allowed).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours from one word to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for (i, &letter) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &other) in to.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(letter != other);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && letter == to[j - 1] && from[i - 1] == other {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use lbagent_api::Selector;

    #[track_caller]
    fn check(error: &CtlError, code: u8, lines: &[&str]) {
        assert_eq!(error.exit_code(), code);
        assert_eq!(error.lines(), lines);
    }

    #[test]
    fn every_mistake_is_one_line() {
        let endpoint = || "http://127.0.0.1:7480".to_owned();
        check(
            &CtlError::Unreachable {
                endpoint: endpoint(),
                reason: "Connection refused".into(),
            },
            3,
            &[
                "lbctl: no agent answers at http://127.0.0.1:7480 (Connection refused); start it \
               with `lbagent run --config FILE`, or say where it is with --endpoint or \
               LBCTL_ENDPOINT",
            ],
        );
        check(
            &CtlError::Token {
                endpoint: endpoint(),
                given: false,
            },
            1,
            &[
                "lbctl: the agent at http://127.0.0.1:7480 wants a token; give its token with \
               --token-file FILE or LBCTL_TOKEN",
            ],
        );
        check(
            &CtlError::NotPermitted {
                endpoint: "unix:/run/lbagent/api.sock".into(),
            },
            1,
            &[
                "lbctl: this user may not use unix:/run/lbagent/api.sock: root, the agent's own user \
               and members of api.unix_socket_group may; everybody else shows a token with \
               --token-file FILE at another --endpoint, such as http://127.0.0.1:7480",
            ],
        );
        check(
            &CtlError::Refused {
                status: 400,
                message: "Two\nlines".into(),
            },
            1,
            &["lbctl: Two lines"],
        );
        let web = Selector::Name("web".into());
        check(
            &CtlError::Items(vec![
                ItemError::not_found("service group", &Selector::Name("wbe".into())),
                ItemError::new(&web, ErrorCode::Attached, "2 instances are attached"),
                ItemError::new(&web, ErrorCode::Quota, ""),
            ]),
            1,
            &[
                "lbctl: No service group with name 'wbe'",
                "lbctl: web: 2 instances are attached",
                "lbctl: web: the agent refused this with error 19",
            ],
        );
    }

    #[test]
    fn advice_goes_to_the_items_it_is_for() {
        let item = |code| ItemError::new(&Selector::Name("a".into()), code, "no 'a'");
        let items = vec![item(ErrorCode::NotFound), item(ErrorCode::Attached)];
        let error = advise(CtlError::Items(items), ErrorCode::NotFound, |item| {
            format!("not {}", item.name.as_deref().unwrap_or_default())
        });
        check(&error, 1, &["lbctl: no 'a'; not a", "lbctl: no 'a'"]);
    }

    #[test]
    fn near_names() {
        let names = ["web", "web-2", "db", "database", "mail"];
        for (wrong, expected) in [
            ("wbe", &["web"][..]),
            ("WEB", &["web", "web-2"][..]),
            ("databse", &["database"][..]),
            ("dbb", &["db"][..]),
            ("zzzzz", &[][..]),
        ] {
            assert_eq!(near_matches(wrong, names), expected, "{wrong}");
        }
    }
}
