//! (desired, settings, health, actual, now) → steps. Pure: no clock, no I/O, no map.
//!
//! A plan never leaves a dangling reference behind at any step: what is named is written before
//! the name, and removed after it. Tables are copied on write: a change fills a region that no
//! VIP names and then points the VIPs at it, so no packet sees half a table.

mod backends;
pub mod choose;
mod condition;
mod diff;
pub mod drain;
mod groups;
mod health;
mod hosts;
mod ids;
mod in_use;
mod links;
pub mod maglev;
mod publish;
mod regions;
mod returns;
pub mod settle;
mod tables;
mod terminator;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lbagent_common::{ABI_VERSION, Addr, Protocol, Settings};
use time::OffsetDateTime;

use crate::dataplane::{ActualState, Capacity, Region, Step};
use crate::desired::{DesiredState, Transport};

pub use backends::group_tag;
pub use condition::{Condition, Object, Reason};
pub use health::{CheckedAddress, Fitness, Health, Target, check_of, targets};
pub use hosts::host_keys;
pub use ids::IdCursor;
pub use in_use::{InUse, gives_cookies};
pub use links::{Link, links};
pub use publish::Elsewhere;
pub(crate) use publish::vips_of;
pub use regions::{named_regions, previous_region, table_region};
pub use terminator::{Terminator, TerminatorView, WithoutTerminator};

/// The part of the agent's configuration that the data plane needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Addresses that services are published on.
    pub vips: BTreeSet<IpAddr>,
    /// What happens to packets for a VIP on a port that nobody published.
    pub unpublished_ports: UnpublishedPorts,
    /// Key of the flow hash and of the Maglev tables.
    pub hash_seed: u64,
    /// Silence after which a UDP flow counts as new.
    pub udp_idle: Duration,
    /// Silence after which a flow of a changed slot counts as gone: its entry is forgotten, and the
    /// slot may settle.
    pub settle_after: Duration,
    /// First port for rewritten sources.
    pub source_port_first: u16,
    /// How many ports there are.
    pub source_port_count: u16,
    /// What becomes of connections to a port with handlers while no terminator is registered.
    pub without_terminator: WithoutTerminator,
    /// Echo replies and "too big" messages that each CPU may send in a second.
    pub answers_per_second: u32,
    /// Whether clients of ports with the handler `redirect` are answered before the kernel has seen them.
    pub redirect_at_nic: bool,
    /// Why they are not, though the configuration has nothing against it.
    pub not_at_nic: Option<String>,
    /// When SYNs to ports with handlers are answered with cookies.
    pub syn_shield: SynShield,
    /// Why they are not, though the configuration has nothing against it.
    pub without_shield: Option<String>,
}

impl GatewaySettings {
    /// Default of [`source_port_first`](Self::source_port_first): above Linux's default range for
    /// local connections (32768 to 60999).
    pub const SOURCE_PORT_FIRST: u16 = 61_000;
    /// Default of [`source_port_count`](Self::source_port_count): up to port 65535.
    pub const SOURCE_PORT_COUNT: u16 = 4_536;

    /// Default of [`settle_after`](Self::settle_after): 2 h 4 min (RFC 5382, REQ-5).
    pub const SETTLE_AFTER: Duration = Duration::from_secs(7_440);
    /// Default of [`answers_per_second`](Self::answers_per_second).
    pub const ANSWERS_PER_SECOND: u32 = 1_000;

    /// [`settle_after`](Self::settle_after) in ticks of the data plane's clock.
    pub fn settle_after_ticks(&self) -> u32 {
        ticks(self.settle_after)
    }

    /// As the maps hold it.
    pub fn entry(&self, capacity: &Capacity) -> Settings {
        Settings {
            hash_seed: self.hash_seed,
            abi_version: ABI_VERSION,
            unpublished: match self.unpublished_ports {
                UnpublishedPorts::Pass => Settings::UNPUBLISHED_PASS,
                UnpublishedPorts::Drop => Settings::UNPUBLISHED_DROP,
            },
            udp_idle_ticks: ticks(self.udp_idle),
            conn_idle_ticks: self.settle_after_ticks(),
            source_port_first: self.source_port_first,
            source_port_count: self.source_port_count,
            conn_mask: capacity.conn_buckets() - 1,
            answers_per_tick: self.answers_per_second,
            unsteered: match self.without_terminator {
                WithoutTerminator::Reset => Settings::UNSTEERED_RESET,
                WithoutTerminator::Pass => Settings::UNSTEERED_PASS,
            },
            shield_mode: match self.syn_shield {
                SynShield::Off => Settings::SHIELD_OFF,
                SynShield::Above { .. } => Settings::SHIELD_AUTO,
                SynShield::Always => Settings::SHIELD_ON,
            },
            shield_per_tick: match self.syn_shield {
                SynShield::Above { per_second } => per_tick(per_second),
                SynShield::Off | SynShield::Always => 0,
            },
            ..Settings::default()
        }
    }
}

/// A time of silence in ticks of the data plane's clock, of 2^30 ns each. Rounding up keeps a flow
/// rather longer.
fn ticks(silence: Duration) -> u32 {
    let ticks = silence.as_nanos().div_ceil(1 << 30).max(1);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// A number a second as one a tick of 2^30 ns.
fn per_tick(per_second: u32) -> u32 {
    let per_tick = (u64::from(per_second) << 30) / 1_000_000_000;
    u32::try_from(per_tick).unwrap_or(u32::MAX)
}

/// When SYNs to ports with handlers are answered with cookies before the kernel has seen them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynShield {
    /// Never.
    Off,
    /// While a VIP gets more.
    Above {
        /// SYNs in a second.
        per_second: u32,
    },
    /// Always.
    Always,
}

impl SynShield {
    /// SYNs for one VIP in a second that are left to the kernel unless configured otherwise.
    pub const PER_SECOND: u32 = 10_000;
}

impl Default for SynShield {
    fn default() -> Self {
        Self::Above {
            per_second: Self::PER_SECOND,
        }
    }
}

/// Policy for packets to a VIP on a port that nobody published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnpublishedPorts {
    /// The kernel answers.
    #[default]
    Pass,
    /// Dropped and counted.
    Drop,
}

/// Address family of a VIP and of the backend addresses that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Family of an address.
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Family of an address as the maps hold it.
    pub const fn of_addr(address: &Addr) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }

    /// Whether this is IPv4.
    pub const fn is_v4(self) -> bool {
        matches!(self, Self::V4)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The protocol number of a published port.
pub const fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::TCP,
        Transport::Udp => Protocol::UDP,
    }
}

/// Everything that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// What was asked for.
    pub desired: &'a DesiredState,
    /// The agent's configuration.
    pub gateway: &'a GatewaySettings,
    /// What the health checks say.
    pub health: &'a Health,
    /// Who takes connections to ports with handlers.
    pub terminator: Terminator,
    /// Ports with handlers of groups that `desired` leaves out, among those that `actual` has.
    pub elsewhere: &'a Elsewhere,
    /// What there is.
    pub actual: &'a ActualState,
    /// Regions that VIPs named until a moment ago: packets in flight may still read them.
    pub retired: &'a BTreeSet<Region>,
    /// Where the search for free ids goes on, from the plan before.
    pub cursor: IdCursor,
    /// Decides which draining is over.
    pub now: OffsetDateTime,
}

/// What to write, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order.
    pub steps: Vec<Step>,
    /// Objects that are not as they were asked for, ordered by object.
    pub conditions: Vec<Condition>,
    /// Something found no room that this plan, or the end of a region's retirement, makes: plan
    /// again soon.
    pub awaits_room: bool,
    /// For the next plan.
    pub cursor: IdCursor,
}

/// Addresses whose paths [`ActualState`] must hold: every address that the plan may send to.
pub fn backend_addresses(desired: &DesiredState) -> BTreeSet<IpAddr> {
    desired
        .instances
        .values()
        .filter(|instance| instance.service_group.is_some())
        .flat_map(|instance| Family::ALL.map(|family| instance.address(family.is_v4())))
        .flatten()
        .collect()
}

/// Plans the way from the actual to the desired state.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    plan_part(input, &InUse::of(input.actual))
}

/// Plans some groups: what a plan of everything would say about them, provided that
///
/// * `desired` and `actual` hold all that is of these groups, and the entries of the VIP addresses;
/// * no other group shares a [`Link`] with them, and none needs a change;
/// * `in_use` is of everything, these groups included.
pub fn plan_part(input: &PlanInput<'_>, in_use: &InUse) -> Plan {
    let published = publish::publish(input);
    let mut target = groups::build_target(input, in_use, &published);
    let steps = diff::steps(input.actual, &mut target);
    let frees = !input.retired.is_empty() || steps.iter().any(diff::is_deletion);
    let awaits_room = frees
        && target
            .conditions
            .iter()
            .any(|condition| condition.reason.is_capacity());
    let mut conditions = target.conditions;
    conditions.extend(published.conditions);
    conditions.sort();
    conditions.dedup();
    Plan {
        steps,
        conditions,
        awaits_room,
        cursor: target.cursor,
    }
}
