//! What each case may cost, and what is compared with what.

use anyhow::{Context, Result};

use super::cases::{self, Case};
use crate::bench::report::{self, Figure, Ratio};

/// The most that a case of TCP may cost, in units of [`cases::REFERENCE`]. (A UDP flow also pays
/// for a cache line of `UDP_SEEN`.)
const GOALS: [(&str, f64); 7] = [
    (cases::ESTABLISHED_1, 2.0),
    (cases::ESTABLISHED_64K, 2.5),
    (cases::ESTABLISHED_512K, 3.0),
    (cases::SYN, 3.0),
    (cases::FOREIGN, 1.1),
    (cases::CHANGED_FIRST, 5.0),
    (cases::CHANGED_64K, 5.0),
];
/// The modes that goals are for; a foreign packet has none.
const MODES: [&str; 3] = ["nat", "ipip", "none"];
/// The most that a case in IPv6 may cost of the same in IPv4.
const IPV6: f64 = 1.15;
/// The most that tracked flows may cost, once `CONNS` is full of a flood's first packets, of what
/// they cost before.
const FLOODED: f64 = 1.25;

/// Figures of all cases from their times in every round.
pub(super) fn figures(cases: &[Case], times: &[Vec<f64>]) -> Result<Vec<Figure>> {
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let time_of = |name: &str, of: &Case| {
        let same = |case: &&Case| {
            (case.name, case.family, case.proto, case.mode) == (name, of.family, of.proto, of.mode)
        };
        let found = cases.iter().zip(times).find(|(case, _)| same(case));
        found.map(|(_, times)| least(times))
    };
    let reference = cases
        .iter()
        .zip(times)
        .find(|(case, _)| case.name == cases::REFERENCE);
    let (_, reference) = reference.context("the reference is among the cases")?;
    let reference = least(reference);
    let mut figures = Vec::with_capacity(cases.len());
    for (case, rounds) in cases.iter().zip(times) {
        let time = least(rounds);
        let is_held = case.proto == "tcp" && MODES.contains(&case.mode);
        let goal = GOALS.iter().find(|(name, _)| *name == case.name);
        let mut ratios = vec![Ratio::new(
            "ref",
            time / reference,
            goal.filter(|_| is_held).map(|(_, most)| *most),
        )];
        if case.family == "ipv6" {
            let pair = cases.iter().zip(times).find(|(other, _)| {
                other.family == "ipv4"
                    && (other.name, other.proto, other.mode) == (case.name, case.proto, case.mode)
            });
            let (_, pair) = pair.context("each case in IPv6 has a pair in IPv4")?;
            let most = is_held.then_some(IPV6);
            ratios.push(Ratio::new("ipv4", time / least(pair), most));
        }
        if case.name == cases::CHANGED_FLOODED {
            let before = time_of(cases::CHANGED_64K, case).context("without a flood, too")?;
            ratios.push(Ratio::new("unflooded", time / before, Some(FLOODED)));
        }
        figures.push(Figure {
            case: case.name,
            family: case.family,
            proto: case.proto,
            mode: case.mode,
            min_ns: time as u64,
            median_ns: report::median(&mut rounds.clone())
                .context("there was at least one round")?
                .round() as u64,
            ratios,
        });
    }
    Ok(figures)
}
