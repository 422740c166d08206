//! `lbctl events`: what is changed, by whom, as it happens.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use lbagent_api::events::{Change, Gap, ObjectKind};
use lbagent_api::paths;
use time::OffsetDateTime;

use super::watch::{AGAIN, parse_interval};
use crate::client::Client;
use crate::ending;
use crate::error::CtlError;
use crate::output::{self, Format};

/// `lbctl events`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Begin with what was changed within this time, such as 10m, as far as the agent remembers
    /// [default: with what is changed from now on]
    #[arg(long, value_name = "TIME", value_parser = parse_interval, conflicts_with = "from")]
    since: Option<Duration>,
    /// Begin with this generation
    #[arg(long, value_name = "GENERATION")]
    from: Option<u64>,
    /// Objects of this kind only: service_group, instance, certificate, account or token; may be
    /// repeated
    #[arg(
        long,
        value_name = "KIND",
        value_parser = PossibleValuesParser::new(ObjectKind::ALL.map(ObjectKind::name)),
        hide_possible_values = true
    )]
    kind: Vec<String>,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Arguments {
    fn path(&self, from: Option<u64>) -> String {
        let from = from.map(|from| format!("from={from}"));
        let kinds = (!self.kind.is_empty()).then(|| format!("kind={}", self.kind.join(",")));
        let query: Vec<String> = from.into_iter().chain(kinds).collect();
        format!("{}?{}", paths::EVENTS, query.join("&"))
    }
}

/// Runs the command until `--count` changes were seen, or until Ctrl-C. An agent that is gone is
/// waited for, unless it never answered.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    ending::by_others()?;
    let mut follower = Follower::new(arguments, format);
    if follower.left == 0 {
        return Ok(());
    }
    let mut is_waiting = false;
    let mut has_begun = false;
    loop {
        let path = arguments.path(follower.from);
        let result = client.stream(&path).and_then(|lines| {
            if is_waiting {
                tell!("lbctl: the agent answers again");
            }
            (has_begun, is_waiting) = (true, false);
            follower.follow(lines)
        });
        match result {
            Err(error @ CtlError::Unreachable { .. }) if has_begun => {
                if !is_waiting {
                    error.lines().iter().for_each(|line| tell!("{line}"));
                    tell!("lbctl: trying again until it works, or until Ctrl-C");
                }
                is_waiting = true;
                std::thread::sleep(AGAIN);
            }
            result => return result,
        }
    }
}

/// What of the stream was told, and what is to come.
struct Follower {
    format: Format,
    /// Where the next stream begins.
    from: Option<u64>,
    /// What is older is left out.
    after: Option<OffsetDateTime>,
    left: u64,
}

impl Follower {
    fn new(arguments: &Arguments, format: Format) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            format,
            // All that the agent remembers: times are told, but not asked for.
            from: arguments.from.or(arguments.since.map(|_| 1)),
            after: arguments.since.map(|since| now - since),
            left: arguments.count.unwrap_or(u64::MAX),
        }
    }

    /// Tells what these lines of server-sent events say.
    fn follow(
        &mut self,
        lines: impl Iterator<Item = Result<String, CtlError>>,
    ) -> Result<(), CtlError> {
        let mut name = String::new();
        for line in lines {
            let line = line?;
            match line.split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut name),
                Some(("data", text)) => self.tell(&name, text)?,
                // Only the last change of a generation has it as its id.
                Some(("id", text)) => self.from = text.parse().ok().map(|last: u64| last + 1),
                _ => {}
            }
            if self.left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Changes go to stdout, what is to say about them to stderr.
    fn tell(&mut self, name: &str, data: &str) -> Result<(), CtlError> {
        let foreign = |error| CtlError::Local(format!("cannot understand '{data}': {error}"));
        match name {
            // It tells what the data plane has, and no change of an object.
            "applied" => Ok(()),
            "gap" => {
                let Gap { from, next } = serde_json::from_str(data).map_err(foreign)?;
                let last = next.saturating_sub(1);
                tell!(
                    "lbctl: the agent does not remember generations {from} to {last}; what follows \
                     was changed after them"
                );
                Ok(())
            }
            _ => {
                let change: Change = serde_json::from_str(data).map_err(foreign)?;
                if self.after.is_some_and(|after| change.at < after) {
                    return Ok(());
                }
                self.left -= 1;
                output::print_next(self.format, &change, || render(&change))
            }
        }
    }
}

fn render(change: &Change) -> String {
    let account = match change.account {
        account if account.is_nil() => String::new(),
        account => format!(" of account {account}"),
    };
    format!(
        "{} {} {} {} '{}'{account} by {}",
        output::time(change.at),
        change.generation,
        change.r#type.name(),
        change.kind.name().replace('_', " "),
        change.name,
        change.by
    )
}

#[cfg(test)]
mod tests {
    use lbagent_api::events::{Author, ChangeType};
    use uuid::Uuid;

    use super::*;

    fn change(name: &str, generation: u64, age: time::Duration) -> Change {
        Change {
            r#type: ChangeType::Created,
            kind: ObjectKind::ServiceGroup,
            uuid: Uuid::from_u128(1),
            name: name.to_owned(),
            account: Uuid::nil(),
            generation,
            at: OffsetDateTime::now_utc() - age,
            by: Author::User { uid: 0 },
        }
    }

    fn arguments(line: &str) -> Arguments {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let words = ["events"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().arguments
    }

    /// What is printed of a stream, and where the next one begins.
    fn follow(line: &str, changes: &[Change]) -> (Vec<String>, Option<u64>) {
        let mut follower = Follower::new(&arguments(line), Format::Table);
        let mut lines = vec![": heartbeat".to_owned(), String::new()];
        for change in changes {
            let data = serde_json::to_string(change).unwrap();
            lines.push(format!("event: {}", change.r#type.name()));
            lines.push(format!("data: {data}"));
            lines.push(format!("id: {}", change.generation));
            lines.push(String::new());
        }
        let applied = r#"data: {"generation": 9, "steps": 1, "conditions": 0}"#;
        lines.extend(["event: applied".to_owned(), applied.to_owned()]);
        let (text, result) =
            output::collect(|| follower.follow(lines.into_iter().map(Ok::<_, CtlError>)));
        result.unwrap();
        let name = |line: &str| line.split('\'').nth(1).unwrap().to_owned();
        (text.lines().map(name).collect(), follower.from)
    }

    #[test]
    fn a_stream_is_told() {
        let old = change("old", 6, time::Duration::hours(2));
        let new = change("new", 7, time::Duration::ZERO);
        let both = [old, new];
        for (line, names, next) in [
            ("", &["old", "new"][..], 8),
            ("--since 1h", &["new"][..], 8),
            ("--since 3h", &["old", "new"][..], 8),
            // The rest of the generation is not seen, and so its id is not either.
            ("--from 6 --count 1", &["old"][..], 6),
        ] {
            let (told, from) = follow(line, &both);
            assert_eq!(told, names, "{line}");
            assert_eq!(from, Some(next), "{line}");
        }
    }

    #[test]
    fn a_change_is_a_line() {
        let mut one = change("web", 42, time::Duration::ZERO);
        one.at = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(
            render(&one),
            "1970-01-01T00:00:00Z 42 created service group 'web' by uid 0"
        );
        one.account = Uuid::from_u128(7);
        assert_eq!(
            render(&one),
            "1970-01-01T00:00:00Z 42 created service group 'web' of account \
             00000000-0000-0000-0000-000000000007 by uid 0"
        );
    }

    #[test]
    fn the_query_says_what_is_asked_for() {
        for (line, path) in [
            ("", "/v1/x/events?"),
            ("--from 7", "/v1/x/events?from=7"),
            ("--since 1h", "/v1/x/events?from=1"),
            (
                "--from 7 --kind instance --kind token",
                "/v1/x/events?from=7&kind=instance,token",
            ),
        ] {
            let arguments = arguments(line);
            let from = Follower::new(&arguments, Format::Table).from;
            assert_eq!(arguments.path(from), path, "{line}");
        }
    }
}
