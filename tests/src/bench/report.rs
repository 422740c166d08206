//! Figures: as a table, as JSON, against goals.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// What one case cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Name of the case.
    pub case: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Forwarding mode; `none` for floor programs and for what is not forwarded.
    pub mode: &'static str,
    /// Nanoseconds per packet, the best round.
    pub min_ns: u64,
    /// Nanoseconds per packet, the median round.
    pub median_ns: u64,
    /// The best round against the best rounds of others.
    pub ratios: Vec<Ratio>,
}

/// What a case costs in units of another one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The other one.
    pub to: &'static str,
    /// How many times as much this one costs.
    pub ratio: f64,
    /// The largest ratio that meets the goal, where there is one.
    pub goal: Option<f64>,
}

impl Ratio {
    /// Rounded to three places.
    pub fn new(to: &'static str, ratio: f64, goal: Option<f64>) -> Self {
        Self {
            to,
            ratio: rounded(ratio),
            goal,
        }
    }

    fn is_missed(&self) -> bool {
        self.goal.is_some_and(|goal| self.ratio > goal)
    }
}

/// The middle of some values; `None` of none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((upper + lower) / 2.0)
}

/// Rounded to three places, as JSON has it.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Three significant digits.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// The figures as a table, with goals where there are any.
pub fn table(figures: &[Figure]) -> String {
    let mut text = format!(
        "{:<18} {:<6} {:<5} {:<5} {:>7} {:>7}  {}\n",
        "case", "family", "proto", "mode", "min ns", "median", "ratios"
    );
    for figure in figures {
        let Figure {
            case,
            family,
            proto,
            mode,
            min_ns,
            median_ns,
            ratios,
        } = figure;
        let ratios: Vec<String> = ratios.iter().map(describe).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{case:<18} {family:<6} {proto:<5} {mode:<5} {min_ns:>7} {median_ns:>7}  {}",
            ratios.join(", ")
        );
    }
    text
}

fn describe(ratio: &Ratio) -> String {
    let Ratio {
        to, ratio: value, ..
    } = ratio;
    let verdict = if ratio.is_missed() { "MISSED" } else { "met" };
    match ratio.goal {
        Some(goal) => format!("{value:.2} × {to} (≤ {goal:.2} {verdict})"),
        None => format!("{value:.2} × {to}"),
    }
}

/// Writes one JSON object a line.
pub fn write_json(figures: &[Figure], path: &Path) -> Result<()> {
    let describe = || format!("--json {}", path.display());
    let mut file = BufWriter::new(std::fs::File::create(path).with_context(describe)?);
    for figure in figures {
        serde_json::to_writer(&mut file, figure).with_context(describe)?;
        writeln!(file).with_context(describe)?;
    }
    file.flush().with_context(describe)
}

/// Every missed goal, and by how much.
pub fn missed(figures: &[Figure]) -> Vec<String> {
    let ratios = figures
        .iter()
        .flat_map(|figure| figure.ratios.iter().map(move |ratio| (figure, ratio)));
    ratios
        .filter(|(_, ratio)| ratio.is_missed())
        .filter_map(|(figure, ratio)| {
            let goal = ratio.goal?;
            let Figure {
                case,
                family,
                proto,
                mode,
                ..
            } = figure;
            let excess = (ratio.ratio / goal - 1.0) * 100.0;
            Some(format!(
                "{case} {family} {proto} {mode} {:.2} × {} > {goal:.2} (+{excess:.0} %)",
                ratio.ratio, ratio.to
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ratio: f64, goal: Option<f64>) -> Figure {
        Figure {
            case: "foreign",
            family: "ipv4",
            proto: "tcp",
            mode: "none",
            min_ns: 1,
            median_ns: 1,
            ratios: vec![Ratio::new("ref", ratio, goal)],
        }
    }

    #[track_caller]
    fn check(ratio: f64, goal: Option<f64>, expected: &[&str]) {
        assert_eq!(missed(&[figure(ratio, goal)]), expected);
        let is_missed = table(&[figure(ratio, goal)]).contains("MISSED");
        assert_eq!(is_missed, !expected.is_empty());
    }

    #[test]
    fn misses_are_named() {
        check(1.5, Some(1.5), &[]);
        check(9.0, None, &[]);
        check(
            3.0,
            Some(1.5),
            &["foreign ipv4 tcp none 3.00 × ref > 1.50 (+100 %)"],
        );
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }
}
