//! `lbctl health`: what the health checks have found.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use lbagent_api::health_report::{CheckHealth, HealthData, HealthReport, HealthState};
use lbagent_api::paths;
use time::OffsetDateTime;

use crate::client::{Client, encode};
use crate::error::CtlError;
use crate::output::{Column, Format, print, table};

/// `lbctl health`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name or UUID of one service group
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    group: Option<String>,
    #[command(flatten)]
    pub watch: super::watch::Polling,
}

/// Runs the command.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let path = match &arguments.group {
        None => paths::HEALTH.to_owned(),
        Some(group) => format!("{}/{}/health", paths::X_SERVICE_GROUPS, encode(group)),
    };
    let report = client.get::<HealthData>(&path)?.health;
    print(format, &report, || render(&report))
}

fn render(report: &HealthReport) -> String {
    if report.groups.is_empty() {
        return "nothing is checked; see `lbctl service policy --help`".into();
    }
    let columns = [
        Column::Left("GROUP"),
        Column::Left("INSTANCE"),
        Column::Left("ADDRESS"),
        Column::State("STATE"),
        Column::Right("FOR"),
        Column::Left("CHECK"),
        Column::Right("LATENCY"),
        Column::Wrap("ERROR"),
    ];
    let mut rows = Vec::new();
    for group in &report.groups {
        for instance in &group.instances {
            let state = match instance.state {
                HealthState::Warming => format!("warming {}%", instance.weight_percent),
                state => state.as_str().to_owned(),
            };
            let head = [
                group.name.clone(),
                instance.name.clone(),
                instance.ip.to_string(),
                state,
                ago(report.taken_at, instance.since),
            ];
            let mut checks = instance.checks.iter().map(check_cells).peekable();
            if checks.peek().is_none() {
                let empty = ["(not checked while it drains)", "", ""].map(str::to_owned);
                rows.push(head.iter().cloned().chain(empty).collect());
            }
            rows.extend(checks.map(|cells| head.iter().cloned().chain(cells).collect()));
        }
    }
    table(&columns, &rows)
}

fn check_cells(check: &CheckHealth) -> [String; 3] {
    let latency = check.latency_us.filter(|_| check.error.is_none());
    let progress = match check {
        CheckHealth {
            failures: n @ 1..,
            fall,
            ..
        } => format!(" ({n} of {fall} failures)"),
        CheckHealth {
            successes: n @ 1..,
            rise,
            ..
        } => format!(" ({n} of {rise} successes)"),
        _ => String::new(),
    };
    let latency = latency.map_or_else(String::new, |latency| {
        format!("{}.{:01} ms", latency / 1000, latency % 1000 / 100)
    });
    let error = check
        .error
        .clone()
        .unwrap_or_else(|| match check.checked_at {
            Some(_) => String::new(),
            None => "not checked yet".into(),
        });
    [
        format!("{} {}", check.kind, check.port),
        latency,
        format!("{error}{progress}").trim_start().to_owned(),
    ]
}

fn ago(now: OffsetDateTime, since: OffsetDateTime) -> String {
    match (now - since).whole_seconds().max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use lbagent_api::health::WhenAllUnhealthy;
    use lbagent_api::health_report::{GroupHealth, InstanceHealth};
    use uuid::Uuid;

    use super::*;
    use crate::table::tests::check_fits;

    #[test]
    fn a_row_for_each_check() {
        let taken_at = OffsetDateTime::UNIX_EPOCH + time::Duration::hours(1);
        let check = |error: Option<&str>, state| CheckHealth {
            kind: "http".into(),
            port: 8080,
            state,
            since: taken_at,
            checked_at: Some(taken_at),
            latency_us: Some(1_234),
            error: error.map(str::to_owned),
            successes: 0,
            failures: u8::from(error.is_some()),
            rise: 2,
            fall: 3,
        };
        let instance = |name: &str, state, checks| InstanceHealth {
            uuid: Uuid::nil(),
            name: name.into(),
            ip: [10, 0, 0, 7].into(),
            state,
            weight_percent: 40,
            since: OffsetDateTime::UNIX_EPOCH,
            checks,
        };
        let healthy = HealthState::Healthy;
        let report = HealthReport {
            taken_at,
            counters: None,
            groups: vec![GroupHealth {
                uuid: Uuid::nil(),
                name: "web".into(),
                when_all_unhealthy: WhenAllUnhealthy::FailOpen,
                instances: vec![
                    instance("a", HealthState::Warming, vec![check(None, healthy)]),
                    instance("b", healthy, vec![check(Some("status 500"), healthy)]),
                    instance("c", HealthState::Unhealthy, vec![]),
                ],
            }],
        };
        let expected = "\
GROUP  INSTANCE  ADDRESS   STATE        FOR  CHECK                          LATENCY  ERROR
web    a         10.0.0.7  warming 40%  60m  http 8080                       1.2 ms
web    b         10.0.0.7  healthy      60m  http 8080                               status 500 (1 of 3 failures)
web    c         10.0.0.7  unhealthy    60m  (not checked while it drains)";
        assert_eq!(render(&report), expected);
        let mut worst = report;
        worst.groups[0].name = "g".repeat(63);
        for instance in &mut worst.groups[0].instances {
            instance.name = "i".repeat(63);
            instance.ip = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
            for check in &mut instance.checks {
                check.error = Some("cannot connect: no route to host ".repeat(3));
            }
        }
        check_fits("health", || render(&worst));
    }
}
