//! `lbctl terminator`: who takes connections to ports with handlers.

use clap::Subcommand;
use lbagent_api::paths;
use lbagent_api::terminator::{Fault, FaultyObject, ListenerFamily};
use lbagent_api::terminators::{
    AuthorityData, RegisterSpec, Terminator, TerminatorData, Terminators, TerminatorsData,
};
use ureq::http::Method;

use crate::client::Client;
use crate::error::CtlError;
use crate::output::{self, Column, Format};

/// What to do with terminators.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List terminators, and what was steered to them
    #[command(visible_alias = "list")]
    Ls,
    /// Have connections steered to the listening sockets of another program, as HAProxy or nginx
    Register {
        /// Its process, on the gateway's host
        #[arg(long)]
        pid: u32,
        /// The TCP port that it listens on
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Have no new connections steered to a terminator; it finishes those that it has
    Drain {
        /// Its number in the list
        id: u32,
    },
    /// Have a terminator start its successor from the binary on disk, and wait until that serves
    Upgrade {
        /// Its number in the list; the active one without it
        id: Option<u32>,
    },
    /// Print the certificate of a development gateway's authority
    Ca,
}

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Ls => {
            let all = client
                .get::<TerminatorsData>(paths::TERMINATORS)?
                .terminators;
            output::print(format, &all, || render(&all))
        }
        Command::Register { pid, port } => {
            let spec = RegisterSpec {
                pid: *pid,
                port: *port,
            };
            let data: TerminatorData = client.send(Method::POST, paths::TERMINATORS, &spec)?;
            tell(format, &data.terminator)
        }
        Command::Drain { id } => act(client, format, *id, "drain"),
        Command::Upgrade { id } => {
            let id = match id {
                Some(id) => *id,
                None => active(client)?,
            };
            act(client, format, id, "upgrade")
        }
        Command::Ca => {
            let path = format!("{}/ca", paths::TERMINATORS);
            let authority = client.get::<AuthorityData>(&path)?.authority;
            if format.is_table() {
                tell!(
                    "# Whoever trusts this trusts the gateway's certificate for {}: \
                     `curl --cacert FILE`, or on Debian\n\
                     # /usr/local/share/ca-certificates/lbagent.crt and `update-ca-certificates`.",
                    authority.name
                );
            }
            output::print(format, &authority, || {
                authority.certificate.trim_end().to_owned()
            })
        }
    }
}

fn act(client: &Client, format: Format, id: u32, action: &str) -> Result<(), CtlError> {
    let path = format!("{}/{id}/{action}", paths::TERMINATORS);
    let data: TerminatorData = client.send(Method::POST, &path, &serde_json::json!({}))?;
    tell(format, &data.terminator)
}

fn active(client: &Client) -> Result<u32, CtlError> {
    use lbagent_api::terminators::TerminatorState;
    let all = client
        .get::<TerminatorsData>(paths::TERMINATORS)?
        .terminators
        .all;
    let active = all.iter().find(|it| it.state == TerminatorState::Active);
    active
        .map(|active| active.id)
        .ok_or_else(|| CtlError::Usage("no terminator is active; see `lbctl terminator ls`".into()))
}

fn tell(format: Format, terminator: &Terminator) -> Result<(), CtlError> {
    output::print(format, terminator, || {
        let Terminator {
            id,
            software,
            pid,
            state,
            ..
        } = terminator;
        format!(
            "terminator {id} ({software}, process {pid}) is {}",
            state.as_str()
        )
    })
}

fn render(all: &Terminators) -> String {
    let columns = [
        Column::Right("ID"),
        Column::Left("SOFTWARE"),
        Column::Right("PID"),
        Column::Left("STATE"),
        Column::Left("FAMILIES"),
        Column::Right("SOCKETS"),
        Column::Left("SNAPSHOT"),
        Column::Right("CONNECTIONS"),
    ];
    let mut text = if all.all.is_empty() {
        "no terminator is registered; ports with handlers are not served".to_owned()
    } else {
        let rows: Vec<Vec<String>> = all.all.iter().map(|it| row(it, all.generation)).collect();
        output::table(&columns, &rows)
    };
    // What was refused just now is left out of the next snapshot.
    let refused = all.all.iter().flat_map(|it| &it.faults);
    let mut faults: Vec<&Fault> = Vec::new();
    for fault in all.left_out.iter().chain(refused) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    for Fault { object, reason } in faults {
        let (kind, uuid) = match object {
            FaultyObject::Gateway => ("gateway", None),
            FaultyObject::ServiceGroup(uuid) => ("service group", Some(uuid)),
            FaultyObject::Instance(uuid) => ("instance", Some(uuid)),
            FaultyObject::Certificate(uuid) => ("certificate", Some(uuid)),
        };
        let uuid = uuid.map_or_else(String::new, |uuid| format!(" {uuid}"));
        text.push_str(&format!("\n\nnot served: {kind}{uuid}: {reason}"));
    }
    if all.awaits_successor {
        text.push_str("\n\nsockets of a terminator that has gone wait for its successor");
    }
    let steering: Vec<_> = all
        .steering
        .iter()
        .map(|(end, count)| format!("{count} {end}"))
        .collect();
    text.push_str(&format!("\n\nconnections: {}", steering.join(", ")));
    text
}

fn row(terminator: &Terminator, latest: Option<u64>) -> Vec<String> {
    let families = terminator.families.iter().map(|family| match family {
        ListenerFamily::Ipv4 => "IPv4",
        ListenerFamily::Ipv6 => "IPv6",
    });
    let families: Vec<&str> = families.collect();
    let snapshot = match (terminator.generation, latest) {
        _ if !terminator.faults.is_empty() => {
            let faults = output::count(terminator.faults.len(), "fault");
            format!("refused ({faults})")
        }
        (Some(served), Some(latest)) if served == latest => "latest".to_owned(),
        (Some(served), _) => format!("{served}"),
        (None, _) => "none".to_owned(),
    };
    let report = terminator.report.as_ref();
    vec![
        terminator.id.to_string(),
        terminator.software.clone(),
        terminator.pid.to_string(),
        terminator.state.as_str().to_owned(),
        families.join(", "),
        terminator.sockets.to_string(),
        snapshot,
        report.map_or_else(String::new, |report| report.connections.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use lbagent_api::terminator::Report;
    use lbagent_api::terminators::{TerminatorKind, TerminatorState};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_row_for_each() {
        let one = Terminator {
            id: 1,
            software: "lbterm 0.1.0".into(),
            pid: 77,
            kind: TerminatorKind::Connected,
            state: TerminatorState::Active,
            families: vec![ListenerFamily::Ipv4, ListenerFamily::Ipv6],
            sockets: 4,
            generation: Some(12),
            faults: Vec::new(),
            report: Some(Report {
                connections: 3,
                ..Report::default()
            }),
        };
        let other = Terminator {
            id: 2,
            software: "haproxy".into(),
            kind: TerminatorKind::Named,
            state: TerminatorState::Standby,
            families: vec![ListenerFamily::Ipv4],
            sockets: 1,
            generation: None,
            report: None,
            ..one.clone()
        };
        let fault = Fault {
            object: FaultyObject::Gateway,
            reason: "it smells".into(),
        };
        let refusing = Terminator {
            id: 3,
            faults: vec![fault],
            report: None,
            ..one.clone()
        };
        let mut all = Terminators {
            taken_at: OffsetDateTime::UNIX_EPOCH,
            steering: [("to_terminator".to_owned(), 5), ("refused".to_owned(), 0)].into(),
            generation: Some(12),
            left_out: Vec::new(),
            awaits_successor: false,
            all: vec![one, other, refusing],
        };
        let expected = "\
ID  SOFTWARE      PID  STATE    FAMILIES    SOCKETS  SNAPSHOT           CONNECTIONS
 1  lbterm 0.1.0   77  active   IPv4, IPv6        4  latest                       3
 2  haproxy        77  standby  IPv4              1  none
 3  lbterm 0.1.0   77  active   IPv4, IPv6        4  refused (1 fault)

not served: gateway: it smells

connections: 0 refused, 5 to_terminator";
        assert_eq!(render(&all), expected);
        // What is left out is told once, whoever refused it.
        all.left_out = all.all[2].faults.clone();
        assert_eq!(render(&all), expected);
        all.all.clear();
        all.awaits_successor = true;
        all.left_out = vec![Fault {
            object: FaultyObject::ServiceGroup(uuid::Uuid::nil()),
            reason: "it smells".to_owned(),
        }];
        let left_out = "not served: service group 00000000-0000-0000-0000-000000000000: it smells";
        assert!(render(&all).contains(left_out), "{}", render(&all));
        assert!(
            render(&all).contains("wait for its successor"),
            "{}",
            render(&all)
        );
    }
}
