//! Who reads stdout: a person at a terminal of some width, or a program.

use std::cell::Cell;
use std::env;
use std::io::IsTerminal;

/// What tables are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal; none when stdout is no terminal, and nothing is ever cut then.
    pub width: Option<u16>,
    /// Whether escape sequences for colours are welcome.
    pub color: bool,
    /// Whether tables begin with their headings.
    pub headings: bool,
}

impl Screen {
    /// A program, or a file.
    pub const PIPE: Self = Self {
        width: None,
        color: false,
        headings: true,
    };

    /// What stdout is.
    pub fn detect(headings: bool) -> Self {
        let width = terminal_size::terminal_size().map(|(terminal_size::Width(width), _)| width);
        let is_terminal = std::io::stdout().is_terminal();
        let given = |name: &str| env::var(name).ok();
        Self {
            width: width.filter(|width| is_terminal && *width > 0),
            color: wants_color(is_terminal, given),
            headings,
        }
    }
}

/// `NO_COLOR` (no-color.org) forbids, `CLICOLOR_FORCE` demands, else a terminal decides.
fn wants_color(is_terminal: bool, given: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| given(name).is_some_and(|value| !value.is_empty() && value != "0");
    if given("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return false;
    }
    set("CLICOLOR_FORCE") || (is_terminal && given("TERM").is_none_or(|term| term != "dumb"))
}

thread_local! {
    /// Of the thread that prints, which is the main one.
    static SCREEN: Cell<Screen> = const { Cell::new(Screen::PIPE) };
}

/// Says, before anything is printed, who reads.
pub fn set(screen: Screen) {
    SCREEN.set(screen);
}

/// Who reads; a program until somebody said otherwise.
pub fn current() -> Screen {
    SCREEN.get()
}

/// A number, on a terminal in thousands, millions and so on once it has more than eight digits.
pub fn number(number: u64) -> String {
    const DIGITS: u64 = 100_000_000;
    let mut scaled = number;
    let mut units = " KMGTPE".chars();
    let mut unit = units.next();
    while current().width.is_some() && scaled >= DIGITS {
        scaled /= 1000;
        unit = units.next();
    }
    match unit {
        Some(unit) if unit != ' ' => format!("{scaled}{unit}"),
        _ => scaled.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is_terminal: bool, variables: &[(&str, &str)], expected: bool) {
        let given = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(wants_color(is_terminal, given), expected, "{variables:?}");
    }

    #[test]
    fn colors() {
        check(true, &[], true);
        check(false, &[], false);
        check(true, &[("NO_COLOR", "1")], false);
        check(true, &[("NO_COLOR", "0")], false);
        check(true, &[("NO_COLOR", "")], true);
        check(true, &[("TERM", "dumb")], false);
        check(false, &[("CLICOLOR_FORCE", "1")], true);
        check(false, &[("CLICOLOR_FORCE", "0")], false);
        check(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false);
    }
}
