//! `lbctl status`: the agent, its interfaces, and what is not as it should be.

use clap::Args;
use lbagent_api::paths;
use lbagent_api::status::{
    AgentStatus, AttachMode, Condition, DataplaneInfo, InterfaceRole, ObjectKind, ProgramsInfo,
    Severity, StatusData, SynShield, SynShieldMode,
};
use lbagent_api::terminators::{Terminator, TerminatorState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::Client;
use crate::error::CtlError;
use crate::output::{Column, Format, count, list, print, table};

/// `lbctl status`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Exit with 1 unless everything asked for is applied and nothing fails
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub watch: super::watch::Polling,
}

/// Runs the command.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let status = client.get::<StatusData>(paths::STATUS)?.status;
    print(format, &status, || {
        render(&status, OffsetDateTime::now_utc())
    })?;
    match unhealthy(&status) {
        Some(why) if arguments.check => Err(CtlError::Unhealthy(why)),
        _ => Ok(()),
    }
}

/// What `--check` objects to.
fn unhealthy(status: &AgentStatus) -> Option<String> {
    let detached = status
        .interfaces
        .iter()
        .find(|interface| interface.mode.is_none());
    if let Some(interface) = detached {
        return Some(format!(
            "interface {} has no program attached",
            interface.name
        ));
    }
    let failing = status
        .conditions
        .iter()
        .find(|condition| condition.severity == Severity::Error);
    if let Some(condition) = failing {
        return Some(format!("{}: {}", condition.name, condition.message));
    }
    let (desired, applied) = (status.generation_desired, status.generation_applied);
    (applied < desired)
        .then(|| format!("generation {desired} is desired, and {applied} is applied so far"))
}

fn render(status: &AgentStatus, now: OffsetDateTime) -> String {
    let agent = &status.agent;
    let mut text = format!(
        "lbagent {}, pid {}, up {}\n{}Generation {} desired, {} applied\nVIPs {}\n{}\n{}\n",
        agent.version,
        agent.pid,
        uptime((now - agent.started_at).whole_seconds()),
        status.dataplane.as_ref().map_or(String::new(), dataplane),
        status.generation_desired,
        status.generation_applied,
        list(&status.vips),
        terminators(&status.terminators),
        shield(&status.syn_shield)
    );
    text.push('\n');
    text.push_str(&interfaces(status));
    if !status.maps.is_empty() {
        text.push_str("\n\n");
        text.push_str(&maps(status));
    }
    text.push_str("\n\n");
    text.push_str(&conditions(&status.conditions));
    text
}

fn dataplane(dataplane: &DataplaneInfo) -> String {
    let DataplaneInfo {
        origin,
        active,
        previous,
    } = dataplane;
    let loaded = active.loaded_at.and_then(|loaded| {
        let seconds = loaded.replace_nanosecond(0).ok()?;
        Some(format!(", loaded {}", seconds.format(&Rfc3339).ok()?))
    });
    let loaded = loaded.unwrap_or_default();
    let mut text = format!("Programs {}, {origin}{loaded}\n", programs(active));
    if let Some(previous) = previous {
        text.push_str(&format!(
            "Rollback to {} by `lbagent rollback`\n",
            programs(previous)
        ));
    }
    text
}

fn programs(programs: &ProgramsInfo) -> String {
    let ProgramsInfo {
        version,
        abi_version,
        ingress_tag,
        return_tag,
        loaded_at: _,
    } = programs;
    format!("{ingress_tag} and {return_tag} of lbagent {version}, ABI {abi_version}")
}

/// To whom the program `lb_steer` hands connections to ports with handlers.
fn terminators(all: &[Terminator]) -> String {
    let of = |state| all.iter().filter(move |it| it.state == state);
    let states = [
        TerminatorState::Active,
        TerminatorState::Preparing,
        TerminatorState::Standby,
        TerminatorState::Draining,
    ];
    let counts = states.map(|state| (of(state).count(), state.as_str()));
    let present: Vec<String> = counts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, state)| format!("{number} {state}"))
        .collect();
    if present.is_empty() {
        return "Terminators none: lb_steer hands connections to ports with handlers to nobody"
            .to_owned();
    }
    let reports: Vec<_> = all.iter().filter_map(|it| it.report.as_ref()).collect();
    let open: u64 = reports.iter().map(|report| report.connections).sum();
    let open = match reports.is_empty() {
        // Another program than lbterm tells nothing.
        true => "connections unknown".to_owned(),
        false => count(usize::try_from(open).unwrap_or(usize::MAX), "connection"),
    };
    let target = match of(TerminatorState::Active).next() {
        Some(active) => format!("lb_steer hands to {} {}", active.software, active.pid),
        None => "lb_steer hands to nobody".to_owned(),
    };
    format!("Terminators {}, {open}; {target}", present.join(", "))
}

/// Whether SYNs to ports with handlers are answered with cookies.
fn shield(shield: &SynShield) -> String {
    let SynShield {
        mode,
        per_second,
        flooded,
        answered,
        reason,
    } = shield;
    let mut text = format!("SYN shield {}", mode.as_str());
    if let Some(per_second) = per_second {
        text.push_str(&format!(" above {per_second}/s for a VIP on a CPU"));
    }
    if let Some(reason) = reason {
        let idle = match mode {
            SynShieldMode::Off => "",
            SynShieldMode::Auto | SynShieldMode::On => ", answers nothing",
        };
        text.push_str(&format!("{idle}: {reason}"));
        return text;
    }
    let answered = format!("{answered} answered so far");
    match (mode, flooded.is_empty()) {
        (SynShieldMode::Off, _) => {}
        (SynShieldMode::On, _) | (SynShieldMode::Auto, true) => {
            text.push_str(&format!(", {answered}"));
        }
        (SynShieldMode::Auto, false) => {
            text.push_str(&format!(", AT WORK for {}, {answered}", list(flooded)));
        }
    }
    text
}

fn uptime(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds @ 3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        seconds => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn interfaces(status: &AgentStatus) -> String {
    let columns = [
        Column::Left("INTERFACE"),
        Column::Left("ROLE"),
        Column::Left("ATTACHED"),
        Column::Wrap("REMARK"),
    ];
    let rows: Vec<Vec<String>> = status
        .interfaces
        .iter()
        .map(|interface| {
            let role = match interface.role {
                InterfaceRole::Client => "client",
                InterfaceRole::Backend => "backend",
            };
            let mode = match interface.mode {
                Some(AttachMode::Native) => "XDP native",
                Some(AttachMode::Generic) => "XDP generic",
                Some(AttachMode::Tcx) => "TC tcx",
                Some(AttachMode::Clsact) => "TC clsact",
                None => "no",
            };
            vec![
                interface.name.clone(),
                role.to_owned(),
                mode.to_owned(),
                interface.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&columns, &rows)
}

fn maps(status: &AgentStatus) -> String {
    let columns = [
        Column::Left("MAP"),
        Column::Right("USED"),
        Column::Right("CAPACITY"),
        Column::Right("FULL"),
    ];
    let rows: Vec<Vec<String>> = status
        .maps
        .iter()
        .map(|map| {
            let percent = (map.used * 100).checked_div(map.capacity).unwrap_or(0);
            vec![
                map.name.clone(),
                map.used.to_string(),
                map.capacity.to_string(),
                format!("{percent}%"),
            ]
        })
        .collect();
    table(&columns, &rows)
}

fn conditions(conditions: &[Condition]) -> String {
    if conditions.is_empty() {
        return "No conditions: everything is as asked for".to_owned();
    }
    let mut worst_first: Vec<&Condition> = conditions.iter().collect();
    worst_first.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
    let rows: Vec<Vec<String>> = worst_first
        .into_iter()
        .map(|condition| {
            let severity = match condition.severity {
                Severity::Info => "info",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            let object = match condition.object {
                ObjectKind::Agent => "agent",
                ObjectKind::Interface => "interface",
                ObjectKind::Vip => "VIP",
                ObjectKind::ServiceGroup => "service",
                ObjectKind::Instance => "instance",
                ObjectKind::Certificate => "certificate",
                ObjectKind::Map => "map",
            };
            vec![
                severity.to_owned(),
                object.to_owned(),
                condition.name.clone(),
                condition.message.clone(),
            ]
        })
        .collect();
    let columns = [
        Column::State("SEVERITY"),
        Column::Left("OBJECT"),
        Column::Left("NAME"),
        Column::Wrap("CONDITION"),
    ];
    table(&columns, &rows)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
