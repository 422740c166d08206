//! What all listings share: `--filter`, `--sort`, `--fields`, and how objects become rows.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{CtlError, near_matches};
use crate::filter::{Filter, lookup};
use crate::output::{Column, Format, list, print};
use crate::table;

/// Which objects are listed, in which order, and what of them.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Arguments {
    /// Only objects with these members: MEMBER==VALUE, != VALUE, ~= REGEX, !~= REGEX; a comma is
    /// AND, a second --filter is OR
    #[arg(long = "filter", value_name = "EXPR", value_parser = parse_filter)]
    filters: Vec<Filter>,
    /// Order by these members; with a minus, the largest first
    #[arg(
        long,
        value_name = "MEMBER",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    sort: Vec<String>,
    /// Only these members, as columns
    #[arg(short, long, value_name = "MEMBER", value_delimiter = ',')]
    fields: Vec<String>,
}

/// Reads `--filter` and `--until`.
pub fn parse_filter(text: &str) -> Result<Filter, String> {
    text.parse()
}

impl Arguments {
    /// A listing of what these expressions choose.
    pub fn filtered(expressions: &[String]) -> Result<Self, CtlError> {
        let filters = expressions.iter().map(|text| parse_filter(text));
        let filters = filters.collect::<Result<_, _>>().map_err(CtlError::Usage)?;
        Ok(Self {
            filters,
            ..Self::default()
        })
    }

    /// Whether only some members are asked for.
    pub fn has_fields(&self) -> bool {
        !self.fields.is_empty()
    }

    /// The objects that are asked for. `members` are those that an object may have.
    pub fn select<T: Serialize>(
        &self,
        objects: Vec<T>,
        members: &[&str],
    ) -> Result<Vec<T>, CtlError> {
        if self.filters.is_empty() && self.sort.is_empty() && self.fields.is_empty() {
            return Ok(objects);
        }
        let mut rows: Vec<(Value, T)> = objects
            .into_iter()
            .map(|object| Ok((to_value(&object)?, object)))
            .collect::<Result<_, CtlError>>()?;
        self.check(members, rows.iter().map(|(value, _)| value))?;
        rows.retain(|(value, _)| {
            self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(value))
        });
        rows.sort_by(|(a, _), (b, _)| self.order(a, b));
        Ok(rows.into_iter().map(|(_, object)| object).collect())
    }

    /// Prints the objects: the fields asked for, else `table`.
    pub fn print<T: Serialize>(
        &self,
        format: Format,
        objects: &[T],
        table: impl FnOnce() -> String,
    ) -> Result<(), CtlError> {
        if self.fields.is_empty() || matches!(format, Format::Raw | Format::Quiet) {
            return print(format, &objects, table);
        }
        let values: Vec<Value> = objects.iter().map(to_value).collect::<Result<_, _>>()?;
        let chosen: Vec<Value> = values.iter().map(|value| self.chosen(value)).collect();
        print(format, &chosen, || self.columns(&values))
    }

    fn columns(&self, values: &[Value]) -> String {
        let rows: Vec<Vec<String>> = values
            .iter()
            .map(|value| {
                self.fields
                    .iter()
                    .map(|path| list(lookup(value, path)))
                    .collect()
            })
            .collect();
        let headings: Vec<String> = self.fields.iter().map(|path| heading(path)).collect();
        let columns: Vec<Column> = headings
            .iter()
            .map(|heading| match heading.as_str() {
                "STATE" => Column::State(heading),
                _ => Column::Wrap(heading),
            })
            .collect();
        table::table(&columns, &rows)
    }

    fn chosen(&self, value: &Value) -> Value {
        let member = |path: &String| {
            let found = match path.contains('.') {
                true => Value::from(lookup(value, path)),
                false => value.get(path).cloned().unwrap_or_default(),
            };
            (path.clone(), found)
        };
        Value::Object(self.fields.iter().map(member).collect::<Map<_, _>>())
    }

    fn order(&self, a: &Value, b: &Value) -> Ordering {
        self.sort
            .iter()
            .map(|key| match key.strip_prefix('-') {
                Some(path) => compare(b, a, path),
                None => compare(a, b, key),
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// A member that no object can have is a mistake, not an empty answer.
    fn check<'a>(
        &self,
        members: &[&'a str],
        values: impl Iterator<Item = &'a Value>,
    ) -> Result<(), CtlError> {
        let mut known: BTreeSet<&str> = members.iter().copied().collect();
        known.extend(
            values
                .filter_map(Value::as_object)
                .flat_map(Map::keys)
                .map(String::as_str),
        );
        let sorted = self
            .sort
            .iter()
            .map(|key| key.strip_prefix('-').unwrap_or(key));
        let paths = self
            .filters
            .iter()
            .flat_map(Filter::paths)
            .chain(sorted)
            .chain(self.fields.iter().map(String::as_str));
        for path in paths {
            let first = path.split('.').next().unwrap_or(path);
            if !known.contains(first) {
                return Err(unknown(path, first, &known));
            }
        }
        Ok(())
    }
}

fn unknown(path: &str, first: &str, known: &BTreeSet<&str>) -> CtlError {
    let near = near_matches(first, known.iter().copied());
    let help = match near.first() {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("the members are {}", list(known)),
    };
    CtlError::Usage(format!("no object has a member '{path}'; {help}"))
}

fn to_value(object: &impl Serialize) -> Result<Value, CtlError> {
    serde_json::to_value(object)
        .map_err(|error| CtlError::Local(format!("cannot read the answer: {error}")))
}

/// Numbers by value, all else by letters.
fn compare(a: &Value, b: &Value, path: &str) -> Ordering {
    let (a, b) = (lookup(a, path).join(" "), lookup(b, path).join(" "));
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(&b),
    }
}

fn heading(path: &str) -> String {
    path.to_uppercase().replace(['_', '.'], " ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn objects() -> Vec<Value> {
        vec![
            json!({"name": "web-10", "n": 10, "group": {"name": "web"}}),
            json!({"name": "web-9", "n": 9, "group": {"name": "web"}}),
            json!({"name": "db", "n": 9, "group": {"name": "db"}}),
        ]
    }

    #[track_caller]
    fn check(line: &str, expected: Result<&[&str], &str>) {
        let words = std::iter::once("ls").chain(line.split(' ').filter(|word| !word.is_empty()));
        let arguments = Line::parse_from(words).arguments;
        let found = arguments.select(objects(), &["image"]);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let names: Vec<&str> = found.iter().filter_map(|v| v["name"].as_str()).collect();
                assert_eq!(names, expected, "{line}");
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
            (found, expected) => panic!("{line}: found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn selections() {
        check("", Ok(&["web-10", "web-9", "db"]));
        check("--sort n,name", Ok(&["db", "web-9", "web-10"]));
        check("--sort -n", Ok(&["web-10", "web-9", "db"]));
        check("--filter name~=^web,n==9", Ok(&["web-9"]));
        check(
            "--filter name==db --filter n==10 --sort name",
            Ok(&["db", "web-10"]),
        );
        check("--filter group.name==db", Ok(&["db"]));
        check("--filter image==x", Ok(&[]));
        check(
            "--filter nmae==x",
            Err("no object has a member 'nmae'; did you mean 'name'?"),
        );
    }

    #[test]
    fn fields_become_columns() {
        let arguments = Line::parse_from(["ls", "-f", "name,group.name"]).arguments;
        assert_eq!(
            arguments.columns(&objects()),
            "NAME    GROUP NAME\nweb-10  web\nweb-9   web\ndb      db"
        );
        assert_eq!(
            arguments.chosen(&objects()[2]),
            json!({"name": "db", "group.name": ["db"]})
        );
    }
}
