//! Tables for people, JSON and YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::CtlError;

/// Form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON, with all members.
    Json,
    /// YAML, with all members.
    Yaml,
}

/// Prints `value`: as data, or as the text that `table` makes.
pub fn print(
    format: Format,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), CtlError> {
    let failed = |error: &dyn std::fmt::Display| {
        CtlError::Local(format!("cannot write the answer as data: {error}"))
    };
    let text = match format {
        Format::Table => table(),
        Format::Json => serde_json::to_string_pretty(value).map_err(|error| failed(&error))?,
        Format::Yaml => serde_yaml_ng::to_string(value).map_err(|error| failed(&error))?,
    };
    write_stdout(text.trim_end_matches('\n'))
}

/// Writes lines to stdout. A reader that has seen enough, such as `head`, is no failure.
pub fn write_stdout(text: &str) -> Result<(), CtlError> {
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CtlError::Local(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A column's heading and how its cells are aligned.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn cell(self, text: &str) -> Cell {
        Cell::new(text).set_alignment(match self {
            Self::Left(_) => CellAlignment::Left,
            Self::Right(_) => CellAlignment::Right,
        })
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }
}

/// Columns with a line of headings and two blanks between them.
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = columns
        .iter()
        .map(|column| column.heading().to_owned())
        .collect();
    align(columns, std::iter::once(&headings).chain(rows))
}

/// Like [`table`], without headings of its own.
pub fn align<'a>(columns: &[Column], rows: impl IntoIterator<Item = &'a Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for row in rows {
        table.add_row(
            columns
                .iter()
                .zip(row)
                .map(|(column, text)| column.cell(text)),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// One object, a line for each member.
pub fn record(members: &[(&str, String)]) -> String {
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|(name, value)| vec![format!("{name}:"), value.clone()])
        .collect();
    align(&[Column::Left(""), Column::Left("")], &rows)
}

/// A time for people: to the second.
pub fn time(time: OffsetDateTime) -> String {
    let second = time.replace_nanosecond(0).unwrap_or(time);
    second
        .format(&Rfc3339)
        .unwrap_or_else(|_| second.to_string())
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
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "7".to_owned()],
            vec!["long".to_owned(), "700".to_owned()],
        ];
        assert_eq!(
            table(&[Column::Left("NAME"), Column::Right("PACKETS")], &rows),
            "NAME  PACKETS\na           7\nlong      700"
        );
        assert_eq!(table(&[Column::Left("NAME")], &[]), "NAME");
    }

    #[test]
    fn lists() {
        assert_eq!(list(["a", "b"]), "a b");
        assert_eq!(list(Vec::<String>::new()), "-");
    }
}
