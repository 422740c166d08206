//! What commands print: tables for people; JSON, YAML and lines for programs.

use std::cell::RefCell;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::CtlError;
pub use crate::table::{Column, align, record, table};

/// Form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// Columns for people, all of them, whatever the terminal's width.
    Wide,
    /// JSON, with all members.
    Json,
    /// YAML; of service groups and instances what `lbctl apply` reads.
    Yaml,
    /// A line `member=value` for each member.
    Kv,
    /// The agent's answer as it came.
    Raw,
    /// Names alone, one a line.
    Quiet,
}

impl Format {
    /// Whether people read it.
    pub const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

thread_local! {
    /// The agent's last answer, for [`Format::Raw`].
    static ANSWER: RefCell<String> = const { RefCell::new(String::new()) };
    /// What is printed, while somebody collects it.
    static COLLECTED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps an answer for [`Format::Raw`].
pub fn keep_answer(text: &[u8]) {
    ANSWER.set(String::from_utf8_lossy(text).into_owned());
}

/// What `run` prints, instead of printing it.
pub fn collect(run: impl FnOnce() -> Result<(), CtlError>) -> (String, Result<(), CtlError>) {
    COLLECTED.set(Some(String::new()));
    let result = run();
    (COLLECTED.take().unwrap_or_default(), result)
}

/// Prints `value`: as data, or as the text that `table` makes.
pub fn print(
    format: Format,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), CtlError> {
    let text = match format {
        Format::Table | Format::Wide => table(),
        Format::Json => serde_json::to_string_pretty(value).map_err(unwritable)?,
        Format::Yaml => serde_yaml_ng::to_string(value).map_err(unwritable)?,
        Format::Kv => key_values(&serde_json::to_value(value).map_err(unwritable)?),
        Format::Raw => ANSWER.take(),
        Format::Quiet => names(&serde_json::to_value(value).map_err(unwritable)?),
    };
    write_stdout(text.trim_end_matches('\n'))
}

/// Prints one of the objects of a stream: as the line that `line` makes, or as data that the next one
/// can follow.
pub fn print_next(
    format: Format,
    value: &impl Serialize,
    line: impl FnOnce() -> String,
) -> Result<(), CtlError> {
    let text = match format {
        Format::Table | Format::Wide => line(),
        Format::Json | Format::Kv | Format::Quiet | Format::Raw => {
            serde_json::to_string(value).map_err(unwritable)?
        }
        // Documents of one stream are told apart by this line.
        Format::Yaml => {
            let document = serde_yaml_ng::to_string(value).map_err(unwritable)?;
            format!("---\n{document}")
        }
    };
    write_stdout(text.trim_end())
}

fn unwritable(error: impl std::fmt::Display) -> CtlError {
    CtlError::Local(format!("cannot write the answer as data: {error}"))
}

/// Objects as lines `member=value`, with an empty line between objects.
fn key_values(value: &Value) -> String {
    let object = |value: &Value| {
        let mut lines = Vec::new();
        flatten(String::new(), value, &mut lines);
        lines.join("\n")
    };
    match value {
        Value::Array(items) => items.iter().map(object).collect::<Vec<_>>().join("\n\n"),
        value => object(value),
    }
}

fn flatten(path: String, value: &Value, lines: &mut Vec<String>) {
    let below = |key: &str| match path.as_str() {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                flatten(below(key), value, lines);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(below(&index.to_string()), value, lines);
            }
        }
        // Quoted as JSON, because a line break would make another line.
        Value::String(text) if text.contains(char::is_control) => {
            lines.push(format!("{path}={value}"));
        }
        Value::String(text) => lines.push(format!("{path}={text}")),
        value => lines.push(format!("{path}={value}")),
    }
}

/// The names of one object or several; an object without a name has its UUID.
fn names(value: &Value) -> String {
    let name = |value: &Value| {
        let word = value.get("name").or_else(|| value.get("uuid"))?;
        word.as_str().map(str::to_owned)
    };
    match value {
        Value::Array(items) => items.iter().filter_map(name).collect::<Vec<_>>().join("\n"),
        value => name(value).unwrap_or_default(),
    }
}

/// Writes lines to stdout. A reader that has seen enough, such as `head`, is no failure.
pub fn write_stdout(text: &str) -> Result<(), CtlError> {
    if text.is_empty() {
        return Ok(());
    }
    let collected = COLLECTED.with_borrow_mut(|collected| {
        let collected = collected.as_mut()?;
        collected.push_str(text);
        collected.push('\n');
        Some(())
    });
    if collected.is_some() {
        return Ok(());
    }
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CtlError::Local(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A time for people: to the second.
pub fn time(time: OffsetDateTime) -> String {
    let second = time.replace_nanosecond(0).unwrap_or(time);
    second
        .format(&Rfc3339)
        .unwrap_or_else(|_| second.to_string())
}

/// When an object was made, for a listing: how long ago on a terminal, else the time.
pub fn created(at: OffsetDateTime, format: Format, now: OffsetDateTime) -> String {
    if format == Format::Wide || crate::screen::current().width.is_none() {
        time(at)
    } else {
        ago(at, now)
    }
}

/// How long ago a time was, for tables: the largest unit alone.
fn ago(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - time).whole_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// When something ends, for tables: in how many days.
pub fn left(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let days = (time - now).whole_days();
    match time < now {
        true => "expired".to_owned(),
        false if days == 0 => "today".to_owned(),
        false => format!("in {days}d"),
    }
}

/// A number with its noun, which takes an `s` in the plural.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A list in one cell; `-` when it is empty.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::Duration;

    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list(["a", "b"]), "a b");
        assert_eq!(list(Vec::<String>::new()), "-");
    }

    #[test]
    fn lines_for_programs() {
        let web = json!({"uuid": "u1", "name": "web", "services": [{"port": 443}], "fqdn": null});
        let kv = "fqdn=null\nname=web\nservices.0.port=443\nuuid=u1";
        assert_eq!(key_values(&web), kv);
        assert_eq!(
            key_values(&json!([web, {"name": "a\nb"}])),
            format!("{kv}\n\nname=\"a\\nb\"")
        );
        assert_eq!(names(&web), "web");
        assert_eq!(names(&json!([web, {"uuid": "u2"}])), "web\nu2");
        assert_eq!(names(&json!({"generation": 1})), "");
    }

    #[test]
    fn ages() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(100);
        for (seconds, expected) in [
            (-5, "0s ago"),
            (59, "59s ago"),
            (60, "1m ago"),
            (7_199, "1h ago"),
            (172_799, "47h ago"),
            (172_800, "2d ago"),
        ] {
            assert_eq!(ago(now - Duration::seconds(seconds), now), expected);
        }
    }

    #[test]
    fn what_is_printed_can_be_collected() {
        let (text, result) = collect(|| {
            write_stdout("a")?;
            write_stdout("b")?;
            Err(CtlError::Local("c".into()))
        });
        assert_eq!((text.as_str(), result.is_err()), ("a\nb\n", true));
    }
}
