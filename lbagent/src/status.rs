//! Desired against actual: what is not as it was asked for, and why.

use lbagent_api::certificate::ExpiryAlarm;
use lbagent_api::status::{
    AgentInfo, AgentStatus, AttachMode, Condition, DataplaneInfo, InterfaceRole, InterfaceStatus,
    ObjectKind, ProgramsInfo, Severity,
};

use lbagent_api::terminators::Terminator;
use time::OffsetDateTime;

use crate::dataplane::{self, AttachedMode, Hook};
use crate::desired::{DesiredState, InstanceState};
use crate::observe;
use crate::plan::GatewaySettings;
use crate::reconcile::{Observation, ObserveError, ReconcileResult};

/// What a status is made of.
pub struct Inputs<'a> {
    /// The process.
    pub agent: AgentInfo,
    /// The configuration's part of the data plane.
    pub gateway: &'a GatewaySettings,
    /// What was asked for.
    pub desired: &'a DesiredState,
    /// What the last pass left behind.
    pub result: &'a ReconcileResult,
    /// How the programs are attached.
    pub interfaces: &'a [dataplane::InterfaceStatus],
    /// Which programs they are.
    pub object: Option<&'a dataplane::ObjectStatus>,
    /// Who takes connections to ports with handlers.
    pub terminators: Vec<Terminator>,
    /// What certificates' ends are measured by.
    pub now: OffsetDateTime,
    /// What the data plane holds now, or why that is not known.
    pub observation: Result<&'a Observation, &'a ObserveError>,
}

/// The status of the gateway, with what does not work first.
pub fn agent_status(inputs: &Inputs<'_>) -> AgentStatus {
    let Inputs {
        agent,
        gateway,
        desired,
        result,
        interfaces,
        object,
        terminators,
        now,
        observation,
    } = inputs;
    let mut conditions: Vec<Condition> = conditions(desired, result, interfaces, *now).collect();
    if let Err(error) = observation {
        let message = format!("{error}; the agent's log says more");
        conditions.push(about_agent("dataplane_unreadable", message));
    }
    conditions.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
    AgentStatus {
        agent: agent.clone(),
        generation_desired: desired.generation,
        generation_applied: if result.error.is_none() {
            result.generation
        } else {
            result.generation.saturating_sub(1)
        },
        dataplane: object.map(dataplane_info),
        vips: gateway.vips.iter().copied().collect(),
        interfaces: interfaces.iter().map(interface_row).collect(),
        maps: observation
            .map(|observed| observe::maps(&observed.actual))
            .unwrap_or_default(),
        terminators: terminators.clone(),
        syn_shield: observe::shield(gateway, &result.conditions, observation.ok()),
        conditions,
    }
}

/// What is not as it was asked for, in no order.
pub fn conditions<'a>(
    desired: &'a DesiredState,
    result: &'a ReconcileResult,
    interfaces: &'a [dataplane::InterfaceStatus],
    now: OffsetDateTime,
) -> impl Iterator<Item = Condition> {
    let found = result.conditions.iter();
    found
        .map(|condition| observe::condition(desired, condition))
        .chain(incomplete(result))
        .chain(interfaces.iter().filter_map(interface_condition))
        .chain(draining(desired))
        .chain(ending(desired, now))
}

fn about_agent(reason: &str, message: String) -> Condition {
    Condition {
        severity: Severity::Error,
        object: ObjectKind::Agent,
        name: "lbagent".to_owned(),
        uuid: None,
        reason: reason.to_owned(),
        message,
        since: None,
    }
}

/// A pass that left something undone.
fn incomplete(result: &ReconcileResult) -> Option<Condition> {
    let error = result.error.as_ref()?;
    let mut condition = about_agent(
        "not_applied",
        format!("the data plane is not as asked for, and this is tried again: {error}"),
    );
    condition.since = Some(result.applied_at);
    Some(condition)
}

fn interface_condition(interface: &dataplane::InterfaceStatus) -> Option<Condition> {
    let dataplane::InterfaceStatus {
        interface: name,
        mode,
        reason,
        ..
    } = interface;
    let (severity, code) = match (mode, reason) {
        (None, _) => (Severity::Error, "not_attached"),
        (Some(_), Some(_)) => (Severity::Info, "other_mode"),
        (Some(_), None) => return None,
    };
    let message = reason
        .clone()
        .unwrap_or_else(|| "the program is not attached".to_owned());
    let (object, name) = (ObjectKind::Interface, name.clone());
    let reason = code.to_owned();
    Some(Condition {
        severity,
        object,
        name,
        uuid: None,
        reason,
        message,
        since: None,
    })
}

fn interface_row(interface: &dataplane::InterfaceStatus) -> InterfaceStatus {
    let dataplane::InterfaceStatus {
        interface,
        hook,
        ifindex,
        mode,
        reason,
    } = interface;
    InterfaceStatus {
        name: interface.clone(),
        role: match hook {
            Hook::Client => InterfaceRole::Client,
            Hook::Backend => InterfaceRole::Backend,
        },
        ifindex: *ifindex,
        mode: mode.map(|mode| match mode {
            AttachedMode::Native => AttachMode::Native,
            AttachedMode::Generic => AttachMode::Generic,
            AttachedMode::Tcx => AttachMode::Tcx,
            AttachedMode::Clsact => AttachMode::Clsact,
        }),
        reason: reason.clone(),
    }
}

fn dataplane_info(object: &dataplane::ObjectStatus) -> DataplaneInfo {
    let dataplane::ObjectStatus {
        origin,
        active,
        previous,
    } = object;
    DataplaneInfo {
        origin: origin.clone(),
        active: programs_info(active),
        previous: previous.as_ref().map(programs_info),
    }
}

fn programs_info(generation: &dataplane::GenerationInfo) -> ProgramsInfo {
    let dataplane::GenerationInfo {
        version,
        abi_version,
        ingress_tag,
        return_tag,
        loaded_at,
    } = generation;
    ProgramsInfo {
        version: version.clone(),
        abi_version: *abi_version,
        ingress_tag: format!("{ingress_tag:016x}"),
        return_tag: format!("{return_tag:016x}"),
        loaded_at: *loaded_at,
    }
}

/// Certificates that are about to end.
fn ending(desired: &DesiredState, now: OffsetDateTime) -> impl Iterator<Item = Condition> {
    desired
        .certificates
        .values()
        .filter_map(move |certificate| {
            let alarm = ExpiryAlarm::of(certificate.not_after, now)?;
            let (severity, reason, verb) = match alarm {
                ExpiryAlarm::Soon => (Severity::Warning, "certificate_expires", "ends"),
                ExpiryAlarm::VerySoon => (Severity::Error, "certificate_expires", "ends"),
                ExpiryAlarm::Over => (Severity::Error, "certificate_expired", "has ended"),
            };
            let end = certificate.not_after;
            Some(Condition {
                severity,
                object: ObjectKind::Certificate,
                name: certificate.name.clone(),
                uuid: Some(certificate.uuid),
                reason: reason.to_owned(),
                message: format!(
                    "it {verb} at {end}; replace it (`lbctl certificate rotate`), or delete it if \
                 nobody needs it"
                ),
                since: None,
            })
        })
}

fn draining(desired: &DesiredState) -> impl Iterator<Item = Condition> {
    desired.instances.values().filter_map(|instance| {
        let InstanceState::Draining {
            since, deadline, ..
        } = instance.state
        else {
            return None;
        };
        let deadline = deadline.replace_nanosecond(0).unwrap_or(deadline);
        Some(Condition {
            severity: Severity::Info,
            object: ObjectKind::Instance,
            name: instance.name.clone(),
            uuid: Some(instance.uuid),
            reason: "draining".to_owned(),
            message: format!(
                "takes no new connections; the established ones stay until {deadline}"
            ),
            since: Some(since),
        })
    })
}
