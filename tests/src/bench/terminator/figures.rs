//! Figures by measure, proxy and round: as a table, as JSON, against goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Measure, Proxy};
use crate::bench::report::{median, rounded, three_digits};

/// How lbterm's figure is to compare with its rivals': at least so many times as fast, or at most so
/// many times as slow or large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    measure: Measure,
    haproxy: f64,
    nginx: f64,
}

impl Goal {
    pub(super) const fn new(measure: Measure, haproxy: f64, nginx: f64) -> Self {
        Self {
            measure,
            haproxy,
            nginx,
        }
    }

    fn against(&self, rival: Proxy) -> f64 {
        match rival {
            Proxy::Nginx => self.nginx,
            _ => self.haproxy,
        }
    }
}

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// In the measure's unit; less is better.
    pub(super) cost: f64,
    /// How many a second there were meanwhile.
    pub(super) rate: Option<f64>,
}

/// What was measured, one sample a round, the rounds in the same order for all proxies.
#[derive(Debug, Default)]
pub(super) struct Results {
    samples: BTreeMap<(Measure, Proxy), Vec<Sample>>,
}

/// One line of the JSON file.
#[derive(Serialize)]
struct Figure {
    measure: &'static str,
    proxy: &'static str,
    unit: &'static str,
    median: f64,
    rate: Option<f64>,
    /// lbterm's ratio to this proxy, and its goal.
    ratio: Option<f64>,
    goal: Option<f64>,
    rounds: Vec<f64>,
}

impl Results {
    /// Adds the sample of a round.
    pub(super) fn add(&mut self, measure: Measure, proxy: Proxy, sample: Sample) {
        let samples = self.samples.entry((measure, proxy)).or_default();
        samples.push(sample);
    }

    /// The rate of the proxy that had the least in the first round.
    pub(super) fn least_rate(&self, measure: Measure) -> Option<f64> {
        let first = |proxy| self.of(measure, proxy).first()?.rate;
        Proxy::ALL.into_iter().filter_map(first).reduce(f64::min)
    }

    fn of(&self, measure: Measure, proxy: Proxy) -> &[Sample] {
        let samples = self.samples.get(&(measure, proxy));
        samples.map_or(&[], Vec::as_slice)
    }

    fn cost(&self, measure: Measure, proxy: Proxy) -> Option<f64> {
        let samples = self.of(measure, proxy).iter();
        median(&mut samples.map(|sample| sample.cost).collect::<Vec<_>>())
    }

    fn rate(&self, measure: Measure, proxy: Proxy) -> Option<f64> {
        let samples = self.of(measure, proxy).iter();
        median(&mut samples.filter_map(|sample| sample.rate).collect::<Vec<_>>())
    }

    /// How lbterm compares with a rival.
    fn ratio(&self, measure: Measure, rival: Proxy) -> Option<f64> {
        let own = self.of(measure, Proxy::Lbterm);
        let ratios = own.iter().zip(self.of(measure, rival));
        let ratio = |(own, rival): (&Sample, &Sample)| match measure.is_speed() {
            true => rival.cost / own.cost,
            false => own.cost / rival.cost,
        };
        median(&mut ratios.map(ratio).collect::<Vec<_>>())
    }

    fn meets(&self, goal: &Goal, rival: Proxy) -> Option<bool> {
        let ratio = self.ratio(goal.measure, rival)?;
        let wanted = goal.against(rival);
        Some(match goal.measure.is_speed() {
            true => ratio >= wanted,
            false => ratio <= wanted,
        })
    }

    /// One line a measure: what each proxy needs, how lbterm compares, and the goals.
    pub(super) fn table(&self, goals: &[Goal]) -> String {
        let mut text = format!("\n{:<25}{:>4}", "", "");
        for proxy in Proxy::ALL {
            text += &format!("{:>10}{:>8}", proxy.name(), "k/s");
        }
        for rival in Proxy::RIVALS {
            text += &format!("{:>12}{:<16}", format!("× {}", rival.name()), "  goal");
        }
        text.push('\n');
        for goal in goals {
            self.line(goal, &mut text);
        }
        text
    }

    fn line(&self, goal: &Goal, text: &mut String) {
        let measure = goal.measure;
        if self.of(measure, Proxy::Lbterm).is_empty() {
            return;
        }
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), three_digits);
        *text += &format!("{:<25}{:>4}", measure.title(), measure.unit());
        for proxy in Proxy::ALL {
            let rate = self.rate(measure, proxy).map(|rate| rate / 1e3);
            let cost = shown(self.cost(measure, proxy));
            *text += &format!("{cost:>10}{:>8}", shown(rate));
        }
        for rival in Proxy::RIVALS {
            let ratio = self.ratio(measure, rival);
            let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let order = if measure.is_speed() { "≥" } else { "≤" };
            let verdict = match self.meets(goal, rival) {
                Some(true) => "met",
                _ => "MISSED",
            };
            let wanted = format!("  {order} {:.2} {verdict}", goal.against(rival));
            *text += &format!("{ratio:>12}{wanted:<16}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }

    /// One line that names every missed goal; `None` when all are met.
    pub(super) fn missed(&self, goals: &[Goal]) -> Option<String> {
        let mut misses = Vec::new();
        for goal in goals {
            for rival in Proxy::RIVALS {
                if self.meets(goal, rival) == Some(true) {
                    continue;
                }
                let mut miss = format!("{} against {}", goal.measure.name(), rival.name());
                // Writing to a String cannot fail.
                let _ = match self.ratio(goal.measure, rival) {
                    Some(ratio) => write!(miss, " {ratio:.2} for {:.2}", goal.against(rival)),
                    None => write!(miss, " was not measured"),
                };
                misses.push(miss);
            }
        }
        (!misses.is_empty()).then(|| format!("goals missed: {}", misses.join("; ")))
    }

    /// Writes one JSON object a line.
    pub(super) fn write_json(&self, goals: &[Goal], path: &Path) -> Result<()> {
        let describe = || format!("--json {}", path.display());
        let mut file = BufWriter::new(std::fs::File::create(path).with_context(describe)?);
        for ((measure, proxy), samples) in &self.samples {
            let goal = goals.iter().find(|goal| goal.measure == *measure);
            let is_rival = Proxy::RIVALS.contains(proxy);
            let figure = Figure {
                measure: measure.name(),
                proxy: proxy.name(),
                unit: measure.unit(),
                median: rounded(self.cost(*measure, *proxy).unwrap_or(f64::NAN)),
                rate: self.rate(*measure, *proxy).map(rounded),
                ratio: self
                    .ratio(*measure, *proxy)
                    .filter(|_| is_rival)
                    .map(rounded),
                goal: goal.filter(|_| is_rival).map(|goal| goal.against(*proxy)),
                rounds: samples.iter().map(|sample| rounded(sample.cost)).collect(),
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

    const GOALS: &[Goal] = &[
        Goal::new(Measure::Https, 1.25, 1.35),
        Goal::new(Measure::Idle, 1.5, 1.5),
    ];

    /// Costs of lbterm, HAProxy and nginx by round.
    fn results(measure: Measure, rounds: &[[f64; 3]], results: &mut Results) {
        for round in rounds {
            for (proxy, cost) in Proxy::ALL.into_iter().zip(round) {
                let sample = Sample {
                    cost: *cost,
                    rate: Some(1e6 / cost),
                };
                results.add(measure, proxy, sample);
            }
        }
    }

    #[track_caller]
    fn check(https: &[[f64; 3]], idle: &[[f64; 3]], expected: Option<&str>) {
        let mut all = Results::default();
        results(Measure::Https, https, &mut all);
        results(Measure::Idle, idle, &mut all);
        assert_eq!(all.missed(GOALS).as_deref(), expected);
        let is_missed = all.table(GOALS).contains("MISSED");
        assert_eq!(
            is_missed,
            expected.is_some_and(|line| !line.ends_with("measured"))
        );
    }

    #[test]
    fn ratios_are_medians_of_rounds() {
        let mut all = Results::default();
        // A round on a busy machine spoils both figures, not their ratio.
        let rounds = [
            [10.0, 20.0, 30.0],
            [100.0, 200.0, 300.0],
            [10.0, 40.0, 30.0],
        ];
        results(Measure::Https, &rounds, &mut all);
        assert_eq!(all.ratio(Measure::Https, Proxy::Haproxy), Some(2.0));
        assert_eq!(all.ratio(Measure::Https, Proxy::Nginx), Some(3.0));
        assert_eq!(all.least_rate(Measure::Https), Some(1e6 / 30.0));
    }

    #[test]
    fn misses_are_named() {
        let [fast, small] = [[[10.0, 12.5, 13.5]], [[15.0, 10.0, 10.0]]];
        check(&fast, &small, None);
        check(
            &[[10.0, 12.0, 13.5]],
            &small,
            Some("goals missed: https against haproxy 1.20 for 1.25"),
        );
        check(
            &fast,
            &[[16.0, 10.0, 20.0]],
            Some("goals missed: idle_memory against haproxy 1.60 for 1.50"),
        );
        check(
            &fast,
            &[],
            Some(
                "goals missed: idle_memory against haproxy was not measured; \
                 idle_memory against nginx was not measured",
            ),
        );
    }
}
