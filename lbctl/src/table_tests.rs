use super::*;

fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
    rows.iter()
        .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
        .collect()
}

const COLUMNS: [Column<'_>; 4] = [
    Column::Left("NAME"),
    Column::State("STATE"),
    Column::Wrap("INSTANCES"),
    Column::Right("PACKETS"),
];

fn terminal(width: u16) -> Screen {
    Screen {
        width: Some(width),
        ..Screen::PIPE
    }
}

#[test]
fn columns_line_up() {
    let rows = rows(&[
        &["a", "running", "x y", "7"],
        &["long", "stopped", "-", "700"],
    ]);
    let expected = "\
NAME  STATE    INSTANCES  PACKETS
a     running  x y              7
long  stopped  -              700";
    assert_eq!(render(Screen::PIPE, &COLUMNS, &rows, 4), expected);
    assert_eq!(render(terminal(80), &COLUMNS, &rows, 4), expected);
    assert_eq!(
        render(Screen::PIPE, &[Column::Left("NAME")], &[], 4),
        "NAME"
    );
    let headless = Screen {
        headings: false,
        ..Screen::PIPE
    };
    assert_eq!(
        render(headless, &COLUMNS, &rows, 4),
        "a     running  x y    7\nlong  stopped  -    700"
    );
}

#[test]
fn a_narrow_terminal_breaks_lists_and_cuts_long_ones() {
    let many = (0..40).map(|n| format!("web-{n:03}")).collect::<Vec<_>>();
    let many = many.join(" ");
    let rows = rows(&[&["web", "running", &many, "7"]]);
    let expected = "\
NAME  STATE    INSTANCES                                                 PACKETS
web   running  web-000 web-001 web-002 web-003 web-004 web-005 web-006         7
               web-007 web-008 web-009 web-010 web-011 web-012 web-013
               web-014 web-015 web-016 web-017 web-018 web-019 web-020
               web-021 web-022 web-023 web-024 web-025 web-026 web-027…";
    assert_eq!(render(terminal(80), &COLUMNS, &rows, 4), expected);
    // A program gets all of it, in one line.
    assert!(render(Screen::PIPE, &COLUMNS, &rows, 4).contains("web-039"));
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    let long = "l".repeat(63);
    let names = [long.as_str(); 5].join(" ");
    for width in [60, 80, 100, 132] {
        let text = render(
            terminal(width),
            &COLUMNS,
            &rows(&[&[&long, "draining", &names, "123456"]]),
            4,
        );
        for line in text.lines() {
            assert!(line.chars().count() <= width.into(), "{width}: {line}");
        }
    }
}

#[test]
fn only_states_and_headings_have_colours() {
    let screen = Screen {
        color: true,
        ..Screen::PIPE
    };
    let text = render(
        screen,
        &COLUMNS,
        &rows(&[&["stopped", "stopped", "-", "1"]]),
        4,
    );
    assert_eq!(text.matches("\u{1b}[38;5;9m").count(), 1, "{text:?}");
    assert!(text.contains("\u{1b}[1m"), "{text:?}");
    let plain = render(
        Screen::PIPE,
        &COLUMNS,
        &rows(&[&["a", "stopped", "-", "1"]]),
        4,
    );
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

/// Renders for a terminal of 80 columns, and checks that nothing is wider.
#[track_caller]
pub fn check_fits(what: &str, make: impl FnOnce() -> String) -> String {
    screen::set(terminal(80));
    let text = make();
    screen::set(Screen::PIPE);
    for line in text.lines() {
        let width = line.chars().count();
        assert!(width <= 80, "{what}: {width} columns: {line}\n{text}");
    }
    text
}

#[test]
fn what_is_aligned_fits_too_and_loses_nothing() {
    let words = (0..60).map(|n| format!("web-{n:03}")).collect::<Vec<_>>();
    let text = check_fits("a record", || record(&[("instances", words.join(" "))]));
    for word in words {
        assert!(text.contains(&word), "{word}: {text}");
    }
    let number = u64::MAX.to_string();
    let rows = rows(&[&["name", &number, &number, &number, &number, &number]]);
    let columns = [Column::Right("NUMBER"); 6];
    check_fits("numbers", || table(&columns, &rows));
}
