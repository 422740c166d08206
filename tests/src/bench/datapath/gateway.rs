//! The gateway under test: service groups of every forwarding mode, and some whose slots have all
//! changed hands.

use anyhow::Result;
use lbagent::dataplane::Capacity;
use lbagent::desired::{ForwardingMode, InstanceState, Transport};
use uuid::Uuid;

use crate::prog_run::Rig;

/// Instances of each group that own its slots.
pub(super) const BACKENDS: u32 = 100;
/// In the names of instances that owned a group's slots before.
pub(super) const OLD: &str = "-old-";

/// A service group, with one port of TCP and UDP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Forwarding mode, as figures name it.
    pub(super) mode: &'static str,
    /// The published port.
    pub(super) port: u16,
    /// Bytes that packets to the group grow by, in IPv4 and IPv6.
    pub(super) growth: [u32; 2],
    forwarding: ForwardingMode,
}

impl Group {
    const fn new(
        mode: &'static str,
        port: u16,
        growth: [u32; 2],
        forwarding: ForwardingMode,
    ) -> Self {
        Self {
            mode,
            port,
            growth,
            forwarding,
        }
    }
}

/// Groups whose slots never had another owner.
pub(super) const SETTLED: [Group; 4] = [
    Group::new("nat", 80, [0; 2], ForwardingMode::Nat),
    Group::new("ipip", 81, [20, 40], ForwardingMode::DsrIpip),
    Group::new("gue", 82, [28, 48], ForwardingMode::DsrGue),
    Group::new("l2", 83, [0; 2], ForwardingMode::DsrL2),
];

/// Groups all of whose slots changed hands.
pub(super) const CHANGED: [Group; 2] = [
    Group::new("nat", 90, [0; 2], ForwardingMode::Nat),
    Group::new("ipip", 91, [20, 40], ForwardingMode::DsrIpip),
];

/// Publishes all of them.
pub(super) fn build() -> Result<Rig> {
    let mut rig = Rig::with_capacity(Capacity::default())?;
    let mut subnets = 0..;
    let mut subnet = move || subnets.next().unwrap_or_default();
    for group in &SETTLED {
        let uuid = publish(&mut rig, group);
        add(&mut rig, uuid, &format!("{}-", group.mode), subnet())?;
    }
    let mut changing = Vec::new();
    for group in &CHANGED {
        let uuid = publish(&mut rig, group);
        let old = add(&mut rig, uuid, &format!("{}{OLD}", group.mode), subnet())?;
        changing.push((group, uuid, old));
    }
    rig.reconcile()?;
    let since = rig.now;
    let deadline = since + time::Duration::hours(1);
    for (group, uuid, old) in changing {
        for instance in old {
            rig.set_state(instance, InstanceState::draining(since, deadline));
        }
        add(&mut rig, uuid, &format!("{}-new-", group.mode), subnet())?;
    }
    rig.reconcile()?;
    Ok(rig)
}

fn publish(rig: &mut Rig, group: &Group) -> Uuid {
    // Only NAT can rewrite the port.
    let destination = match group.forwarding {
        ForwardingMode::Nat => 8000 + group.port,
        _ => group.port,
    };
    let services =
        [Transport::Tcp, Transport::Udp].map(|transport| (group.port, destination, transport));
    let uuid = rig.group(&format!("bench-{}", group.port), &services);
    rig.set_mode(uuid, group.forwarding);
    uuid
}

/// Adds instances with addresses of both families, in a subnet of their own.
fn add(rig: &mut Rig, group: Uuid, name: &str, subnet: u32) -> Result<Vec<Uuid>> {
    (2..2 + BACKENDS)
        .map(|number| {
            let v4 = format!("10.66.{subnet}.{number}");
            let v6 = format!("fd66::{subnet:x}:{number:x}");
            rig.instance(&format!("{name}{number}"), group, &[&v4, &v6])
        })
        .collect()
}
