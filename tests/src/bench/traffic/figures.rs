//! Figures by measure, way and round: as tables of ratios, as JSON, against goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Measure, Way};
use crate::bench::report::{median, rounded, three_digits};

/// The least that a way must reach of another's figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    measure: Measure,
    way: Way,
    ratio: f64,
    reference: Way,
}

impl Goal {
    pub(super) const fn new(measure: Measure, way: Way, ratio: f64, reference: Way) -> Self {
        Self {
            measure,
            way,
            ratio,
            reference,
        }
    }
}

/// What was measured, one value a round, the rounds in the same order for all ways.
#[derive(Debug, Default)]
pub(super) struct Results {
    values: BTreeMap<(Measure, Way), Vec<f64>>,
}

/// One line of the JSON file.
#[derive(Serialize)]
struct Figure {
    measure: &'static str,
    way: &'static str,
    unit: &'static str,
    median: f64,
    /// Median over the rounds of this way's figure by another's in the same round.
    ratios: BTreeMap<&'static str, f64>,
    rounds: Vec<f64>,
}

impl Results {
    /// Adds the value of a round.
    pub(super) fn add(&mut self, measure: Measure, way: Way, value: f64) {
        self.values.entry((measure, way)).or_default().push(value);
    }

    fn ratio(&self, measure: Measure, way: Way, reference: Way) -> Option<f64> {
        let rounds = self.values.get(&(measure, way))?;
        let references = self.values.get(&(measure, reference))?;
        let mut ratios: Vec<f64> = rounds
            .iter()
            .zip(references)
            .map(|(value, reference)| value / reference)
            .collect();
        median(&mut ratios)
    }

    fn of(&self, measure: Measure) -> impl Iterator<Item = (Way, f64)> {
        self.values
            .iter()
            .filter(move |((of, _), _)| *of == measure)
            .filter_map(|((_, way), rounds)| Some((*way, median(&mut rounds.clone())?)))
    }

    /// One table a measure, with the goals beside the ratios.
    pub(super) fn tables(&self, goals: &[Goal]) -> String {
        let mut text = String::new();
        for measure in Measure::ALL {
            if self.of(measure).next().is_some() {
                self.table(measure, goals, &mut text)
                    .expect("writing to a String cannot fail");
            }
        }
        text
    }

    fn table(&self, measure: Measure, goals: &[Goal], text: &mut String) -> std::fmt::Result {
        write!(
            text,
            "\n{}\n{:<18}{:>9}",
            measure.title(),
            "",
            measure.unit()
        )?;
        for reference in measure.references() {
            write!(text, "{:>18}", format!("× {}", reference.name()))?;
        }
        writeln!(text)?;
        for (way, value) in self.of(measure) {
            write!(text, "{:<18}{:>9}", way.name(), three_digits(value))?;
            for reference in measure.references() {
                let ratio = self.ratio(measure, way, *reference);
                let shown = ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
                write!(text, "{shown:>18}")?;
            }
            for goal in goals {
                if goal.measure == measure && goal.way == way {
                    let verdict = if self.meets(goal) { "met" } else { "MISSED" };
                    let Goal {
                        ratio, reference, ..
                    } = goal;
                    write!(text, "   ≥ {ratio:.1} × {} {verdict}", reference.name())?;
                }
            }
            writeln!(text)?;
        }
        Ok(())
    }

    fn meets(&self, goal: &Goal) -> bool {
        self.ratio(goal.measure, goal.way, goal.reference)
            .is_some_and(|ratio| ratio >= goal.ratio)
    }

    /// One line that names every missed goal; `None` when all are met.
    pub(super) fn missed(&self, goals: &[Goal]) -> Option<String> {
        let misses: Vec<String> = goals
            .iter()
            .filter(|goal| !self.meets(goal))
            .map(|goal| {
                let Goal {
                    measure,
                    way,
                    ratio,
                    reference,
                } = *goal;
                let name = format!("{} of {}", measure.name(), way.name());
                let reference_name = reference.name();
                match self.ratio(measure, way, reference) {
                    Some(reached) => {
                        format!("{name} {reached:.2} < {ratio:.2} × {reference_name}")
                    }
                    None => format!("{name} was not measured against {reference_name}"),
                }
            })
            .collect();
        (!misses.is_empty()).then(|| format!("goals missed: {}", misses.join("; ")))
    }

    /// Writes one JSON object a line.
    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let describe = || format!("--json {}", path.display());
        let mut file = BufWriter::new(std::fs::File::create(path).with_context(describe)?);
        for ((measure, way), rounds) in &self.values {
            let figure = Figure {
                measure: measure.name(),
                way: way.name(),
                unit: measure.unit(),
                median: rounded(median(&mut rounds.clone()).unwrap_or(f64::NAN)),
                ratios: measure
                    .references()
                    .iter()
                    .filter_map(|reference| {
                        let ratio = self.ratio(*measure, *way, *reference)?;
                        Some((reference.name(), rounded(ratio)))
                    })
                    .collect(),
                rounds: rounds.iter().copied().map(rounded).collect(),
            };
            serde_json::to_writer(&mut file, &figure).with_context(describe)?;
            writeln!(file).with_context(describe)?;
        }
        file.flush().with_context(describe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOALS: &[Goal] = &[Goal::new(
        Measure::Connections,
        Way::LbagentNat,
        1.3,
        Way::Haproxy,
    )];

    fn results(own: &[f64], reference: &[f64]) -> Results {
        let mut results = Results::default();
        for value in own {
            results.add(Measure::Connections, Way::LbagentNat, *value);
        }
        for value in reference {
            results.add(Measure::Connections, Way::Haproxy, *value);
        }
        results
    }

    #[track_caller]
    fn check(results: &Results, expected: Option<&str>) {
        assert_eq!(results.missed(GOALS).as_deref(), expected);
    }

    #[test]
    fn ratios_are_medians_of_rounds() {
        // A round on a busy machine spoils both figures, not their ratio.
        let results = results(&[14.0, 1.4, 12.0], &[10.0, 1.0, 10.0]);
        let ratio = results.ratio(Measure::Connections, Way::LbagentNat, Way::Haproxy);
        assert_eq!(ratio, Some(1.4));
    }

    #[test]
    fn misses_are_named() {
        check(&results(&[13.0], &[10.0]), None);
        check(
            &results(&[12.9], &[10.0]),
            Some("goals missed: connections of lbagent nat 1.29 < 1.30 × haproxy tcp"),
        );
        check(
            &results(&[12.9], &[]),
            Some("goals missed: connections of lbagent nat was not measured against haproxy tcp"),
        );
    }

    #[test]
    fn tables_show_verdicts() {
        let text = results(&[13.0], &[10.0]).tables(GOALS);
        assert!(text.contains("≥ 1.3 × haproxy tcp met"), "{text}");
        let text = results(&[9.0], &[10.0]).tables(GOALS);
        assert!(text.contains("≥ 1.3 × haproxy tcp MISSED"), "{text}");
    }
}
