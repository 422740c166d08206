//! Columns that line up, and that fit the terminal if there is one.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Table,
    presets,
};

use crate::screen::{self, Screen};

/// Cells of a terminal's table are cut after so many lines.
const MOST_LINES: usize = 4;
/// A column whose cells are all this short is never broken.
const NEVER_BROKEN: usize = 24;
/// Characters that a column has at least where there are too many columns.
const NARROWEST: usize = 8;

/// A column's heading and how its cells are shown.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// Text.
    Left(&'a str),
    /// Numbers.
    Right(&'a str),
    /// Lists and sentences: the first to be broken into lines where the terminal is narrow.
    Wrap(&'a str),
    /// A word that says how something is; good and bad ones are coloured.
    State(&'a str),
}

impl<'a> Column<'a> {
    fn cell(self, text: &str) -> Cell {
        let cell = Cell::new(text);
        match self {
            Self::Left(_) | Self::Wrap(_) => cell,
            Self::Right(_) => cell.set_alignment(CellAlignment::Right),
            Self::State(_) => match color(text) {
                Some(color) => cell.fg(color),
                None => cell,
            },
        }
    }

    /// The column's heading.
    pub const fn heading(self) -> &'a str {
        match self {
            Self::Left(heading)
            | Self::Right(heading)
            | Self::Wrap(heading)
            | Self::State(heading) => heading,
        }
    }
}

fn color(word: &str) -> Option<Color> {
    match word {
        "running" | "healthy" | "valid" => Some(Color::Green),
        "draining" | "warning" | "pending" | "standby" => Some(Color::Yellow),
        "stopped" | "error" | "unhealthy" => Some(Color::Red),
        _ => None,
    }
}

/// Columns with a line of headings and two blanks between them.
pub fn table(columns: &[Column<'_>], rows: &[Vec<String>]) -> String {
    render(screen::current(), columns, rows, MOST_LINES)
}

/// Lines up rows that have headings of their own, or none. Nothing of a cell is cut.
pub fn align(columns: &[Column<'_>], rows: &[Vec<String>]) -> String {
    let screen = Screen {
        headings: false,
        ..screen::current()
    };
    render(screen, columns, rows, usize::MAX)
}

/// One object, a line for each member.
pub fn record(members: &[(&str, String)]) -> String {
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|(name, value)| vec![format!("{name}:"), value.clone()])
        .collect();
    align(&[Column::Left(""), Column::Wrap("")], &rows)
}

fn render(
    screen: Screen,
    columns: &[Column<'_>],
    rows: &[Vec<String>],
    most_lines: usize,
) -> String {
    let mut table = empty(screen);
    if screen.headings {
        let heading =
            |column: &Column| column.cell(column.heading()).add_attribute(Attribute::Bold);
        table.add_row(columns.iter().map(heading).collect::<Vec<_>>());
    }
    for row in rows {
        let cells = columns
            .iter()
            .zip(row)
            .map(|(column, text)| column.cell(text));
        let mut row = Row::from(cells.collect::<Vec<_>>());
        if screen.width.is_some() {
            row.max_height(most_lines);
        }
        table.add_row(row);
    }
    if let Some(width) = screen.width {
        fit(&mut table, columns, rows, width.into());
    }
    finish(table)
}

/// Short columns keep their width as long as the others have some; what is left is for these.
fn fit(table: &mut Table, columns: &[Column<'_>], rows: &[Vec<String>], width: usize) {
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_truncation_indicator("…");
    let mut kept: Vec<(usize, usize)> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        if !matches!(column, Column::Wrap(_)) && longest <= NEVER_BROKEN {
            let heading = column.heading().chars().count();
            kept.push((longest.max(heading), index));
        }
    }
    kept.sort_unstable();
    let is_too_much = |kept: &[(usize, usize)]| {
        let own: usize = kept.iter().map(|(width, _)| width).sum();
        let others = (columns.len() - kept.len()) * NARROWEST;
        own + others + 2 * columns.len() > width
    };
    while is_too_much(&kept) && kept.pop().is_some() {}
    for (_, index) in kept {
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn empty(screen: Screen) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if screen.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn finish(mut table: Table) -> String {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.trim_fmt()
}

#[cfg(test)]
#[path = "table_tests.rs"]
pub mod tests;
