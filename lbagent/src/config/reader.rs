//! Takes a TOML table apart key by key, so that every wrong type and every unknown key is reported
//! with its line, not only the first.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Origin, Problem};

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// The file's name and text: turns offsets into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin::Line {
            file: self.file.to_owned(),
            line,
        }
    }
}

/// One table. Keys that were asked for are known; [`finish`](Self::finish) reports the others.
pub(super) struct Table<'a, 'i> {
    source: Source<'a>,
    /// `""` for the root, else the name with a dot.
    prefix: String,
    values: Option<&'a DeTable<'i>>,
    known: Vec<&'static str>,
}

impl<'a, 'i> Table<'a, 'i> {
    pub(super) fn root(source: Source<'a>, values: &'a DeTable<'i>) -> Self {
        Self {
            source,
            prefix: String::new(),
            values: Some(values),
            known: Vec::new(),
        }
    }

    /// A table inside; an empty one when the file has none.
    pub(super) fn table(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Self {
        let values = self.raw(key).and_then(|value| match value.get_ref() {
            DeValue::Table(values) => Some(values),
            other => {
                self.wrong_type(key, value, other, "a table", problems);
                None
            }
        });
        let prefix = format!("{}{key}.", self.prefix);
        Self {
            source: self.source,
            prefix,
            values,
            known: Vec::new(),
        }
    }

    pub(super) fn string(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<String>> {
        let value = self.raw(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(self.located(value, text.to_string())),
            other => {
                self.wrong_type(key, value, other, "a string", problems);
                None
            }
        }
    }

    pub(super) fn strings(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<Located<String>>> {
        let value = self.raw(key)?;
        let DeValue::Array(elements) = value.get_ref() else {
            self.wrong_type(key, value, value.get_ref(), "an array of strings", problems);
            return None;
        };
        let mut strings = Vec::new();
        for element in elements {
            match element.get_ref() {
                DeValue::String(text) => strings.push(self.located(element, text.to_string())),
                other => self.wrong_type(key, element, other, "an array of strings", problems),
            }
        }
        Some(strings)
    }

    pub(super) fn boolean(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<bool>> {
        let value = self.raw(key)?;
        match value.get_ref() {
            DeValue::Boolean(word) => Some(self.located(value, *word)),
            other => {
                self.wrong_type(key, value, other, "true or false", problems);
                None
            }
        }
    }

    /// A whole number; a string of one is accepted too, because TOML's own end at 2^63.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<u64>> {
        let value = self.raw(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(integer) => {
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            DeValue::String(text) => parse_number(text),
            other => {
                self.wrong_type(key, value, other, "a whole number", problems);
                return None;
            }
        };
        if number.is_none() {
            let text = format!(
                "{}{key}: expected a whole number from 0 to {}",
                self.prefix,
                u64::MAX
            );
            problems.push(Problem {
                origin: self.source.origin(&value.span()),
                text,
            });
        }
        number.map(|number| self.located(value, number))
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, problems: &mut Vec<Problem>) {
        for (key, _) in self.values.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let hint = match nearest(name, &self.known) {
                    Some(known) => format!("; did you mean `{}{known}`?", self.prefix),
                    None => format!("; known here: {}", self.known.join(", ")),
                };
                let text = format!("unknown key `{}{name}`{hint}", self.prefix);
                problems.push(Problem {
                    origin: self.source.origin(&key.span()),
                    text,
                });
            }
        }
    }

    fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.values?.get(&Spanned::new(0..0, Cow::Borrowed(key)))
    }

    fn located<T>(&self, at: &Spanned<DeValue<'_>>, value: T) -> Located<T> {
        Located {
            value,
            origin: self.source.origin(&at.span()),
        }
    }

    fn wrong_type(
        &self,
        key: &str,
        at: &Spanned<DeValue<'_>>,
        found: &DeValue<'_>,
        expected: &str,
        problems: &mut Vec<Problem>,
    ) {
        let text = format!(
            "{}{key}: expected {expected}, found {}",
            self.prefix,
            found.type_str()
        );
        problems.push(Problem {
            origin: self.source.origin(&at.span()),
            text,
        });
    }
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The known word that was most likely meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, best) = known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .min()?;
    (distance <= 1 + word.len() / 5).then_some(best)
}

/// Insertions, deletions and replacements that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
