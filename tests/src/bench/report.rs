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
    /// Forwarding mode; `none` for floor programs.
    pub mode: &'static str,
    /// Nanoseconds per packet, the best round.
    pub min_ns: u64,
    /// Nanoseconds per packet, the median round.
    pub median_ns: u64,
    /// Median over the rounds of this case's time by the reference's time in the same round.
    pub ratio: f64,
}

/// The most that a case may cost, in units of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The case, whatever its family.
    pub case: &'static str,
    /// Its transport protocol.
    pub proto: &'static str,
    /// The largest ratio that meets the goal.
    pub ratio: f64,
}

impl Goal {
    fn is_of(&self, figure: &Figure) -> bool {
        self.case == figure.case && self.proto == figure.proto
    }
}

/// The middle of some values; `None` of none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((upper + lower) / 2.0)
}

/// The figures as a table, with the goal where there is one.
pub fn table(figures: &[Figure], goals: &[Goal]) -> String {
    let mut text = format!(
        "{:<18} {:<6} {:<5} {:<5} {:>7} {:>7} {:>7}  {}\n",
        "case", "family", "proto", "mode", "min ns", "median", "× ref", "goal"
    );
    for figure in figures {
        let goal = goals
            .iter()
            .find(|goal| goal.is_of(figure))
            .map_or(String::new(), |goal| {
                let verdict = if figure.ratio <= goal.ratio {
                    "met"
                } else {
                    "MISSED"
                };
                format!("≤ {:.1} {verdict}", goal.ratio)
            });
        let Figure {
            case,
            family,
            proto,
            mode,
            min_ns,
            median_ns,
            ratio,
        } = figure;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{case:<18} {family:<6} {proto:<5} {mode:<5} {min_ns:>7} {median_ns:>7} {ratio:>7.2}  \
             {goal}"
        );
    }
    text
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

/// One line that names every missed goal and by how much; `None` when all are met.
pub fn missed(figures: &[Figure], goals: &[Goal]) -> Option<String> {
    let mut misses = Vec::new();
    for goal in goals {
        let mut measured = figures
            .iter()
            .filter(|figure| goal.is_of(figure))
            .peekable();
        if measured.peek().is_none() {
            misses.push(format!("{} was not measured", goal.case));
        }
        misses.extend(
            measured
                .filter(|figure| figure.ratio > goal.ratio)
                .map(|figure| {
                    let Figure {
                        case,
                        family,
                        proto,
                        ratio,
                        ..
                    } = figure;
                    let excess = (ratio / goal.ratio - 1.0) * 100.0;
                    format!(
                        "{case} {family} {proto} {ratio:.2} > {:.2} (+{excess:.0} %)",
                        goal.ratio
                    )
                }),
        );
    }
    (!misses.is_empty()).then(|| format!("goals missed: {}", misses.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOALS: &[Goal] = &[Goal {
        case: "foreign",
        proto: "tcp",
        ratio: 1.5,
    }];

    fn figure(case: &'static str, ratio: f64) -> Figure {
        Figure {
            case,
            family: "ipv4",
            proto: "tcp",
            mode: "nat",
            min_ns: 1,
            median_ns: 1,
            ratio,
        }
    }

    #[track_caller]
    fn check(figures: &[Figure], expected: Option<&str>) {
        assert_eq!(missed(figures, GOALS).as_deref(), expected);
    }

    #[test]
    fn misses_are_named() {
        check(&[figure("foreign", 1.5)], None);
        check(&[figure("foreign", 1.5), figure("other", 9.0)], None);
        check(
            &[figure("other", 1.0)],
            Some("goals missed: foreign was not measured"),
        );
        check(
            &[figure("foreign", 1.0), figure("foreign", 3.0)],
            Some("goals missed: foreign ipv4 tcp 3.00 > 1.50 (+100 %)"),
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
