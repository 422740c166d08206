//! `lbctl counters`: packets by the reason that they ended with.

use clap::Args;
use lbagent_api::paths;
use lbagent_api::status::{Counters, CountersData, HeldFragments};

use crate::client::Client;
use crate::error::CtlError;
use crate::output::{Column, Format, print, table};

/// `lbctl counters`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also outcomes that no packet had
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    pub watch: super::watch::Polling,
}

/// Runs the command.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let counters = client.get::<CountersData>(paths::COUNTERS)?.counters;
    print(format, &counters, || render(&counters, arguments.all))
}

fn render(counters: &Counters, all: bool) -> String {
    let columns = [
        Column::Left("OUTCOME"),
        Column::Left("VERDICT"),
        Column::Right("PACKETS"),
        Column::Right("BYTES"),
    ];
    let row = |name: &str, verdict: &str, packets: u64, bytes: u64| {
        vec![
            name.to_owned(),
            verdict.to_owned(),
            packets.to_string(),
            bytes.to_string(),
        ]
    };
    let mut rows: Vec<Vec<String>> = counters
        .outcomes
        .iter()
        .filter(|counter| all || counter.packets > 0)
        .map(|counter| {
            row(
                &counter.outcome,
                counter.verdict.as_str(),
                counter.packets,
                counter.bytes,
            )
        })
        .collect();
    let packets = counters
        .outcomes
        .iter()
        .map(|counter| counter.packets)
        .sum();
    let bytes = counters.outcomes.iter().map(|counter| counter.bytes).sum();
    rows.push(row("total", "", packets, bytes));
    let mut text = table(&columns, &rows);
    let held = &counters.fragments;
    if all || *held != HeldFragments::default() {
        text.push_str(&render_held(held));
    }
    for (title, counts) in [
        ("connections to ports with handlers", &counters.steering),
        (
            "left to the terminator by ports that redirect",
            &counters.passed_redirects,
        ),
    ] {
        let counts = counts.iter().filter(|(_, count)| all || **count > 0);
        let lines: Vec<_> = counts
            .map(|(what, count)| format!("  {count} {what}"))
            .collect();
        if !lines.is_empty() {
            text.push_str(&format!("\n\n{title}:\n{}", lines.join("\n")));
        }
    }
    text
}

/// One line below the table: these are no packets of their own.
fn render_held(held: &HeldFragments) -> String {
    let HeldFragments {
        waiting,
        released,
        expired,
        displaced,
        failed,
    } = held;
    format!(
        "\n\nheld fragments: {waiting} waiting, {released} released, {expired} expired, \
         {displaced} displaced, {failed} failed"
    )
}

#[cfg(test)]
mod tests {
    use lbagent_api::status::{OutcomeCounter, Verdict};
    use time::OffsetDateTime;

    use super::*;
    use crate::table::tests::check_fits;

    #[test]
    fn outcomes_with_their_sum() {
        let counter = |outcome: &str, verdict, packets| OutcomeCounter {
            outcome: outcome.into(),
            verdict,
            packets,
            bytes: packets * 100,
        };
        let mut counters = Counters {
            steering: std::collections::BTreeMap::new(),
            passed_redirects: std::collections::BTreeMap::new(),
            flooded_vips: 0,
            taken_at: OffsetDateTime::UNIX_EPOCH,
            outcomes: vec![
                counter("forward_tx", Verdict::Forwarded, 1200),
                counter("pass_not_vip", Verdict::Passed, 0),
                counter("drop_no_backend", Verdict::Dropped, 7),
            ],
            fragments: HeldFragments::default(),
        };
        let expected = "\
OUTCOME          VERDICT    PACKETS   BYTES
forward_tx       forwarded     1200  120000
drop_no_backend  dropped          7     700
total                          1207  120700";
        assert_eq!(render(&counters, false), expected);
        assert!(render(&counters, true).contains("pass_not_vip     passed           0       0"));
        let mut worst = counters.clone();
        worst.outcomes = vec![counter(&"o".repeat(40), Verdict::Dropped, u64::MAX / 100)];
        check_fits("counters", || render(&worst, false));
        counters.fragments.released = 3;
        assert!(render(&counters, false).ends_with(
            "120700\n\nheld fragments: 0 waiting, 3 released, 0 expired, 0 displaced, 0 failed"
        ));
        counters.passed_redirects.insert("unknown_host".into(), 2);
        counters.passed_redirects.insert("segmented".into(), 0);
        assert!(
            render(&counters, false)
                .ends_with("\n\nleft to the terminator by ports that redirect:\n  2 unknown_host")
        );
    }
}
