//! The data plane's choice of a backend, as a pure function: what `lbctl trace` explains and what
//! the tests of the tables hold their histories against. It must say what `lb_ingress` does.

use lbagent_common::hash::slot_index;
use lbagent_common::{BackendId, Slot};

/// What the tables say about one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Owner of new flows; 0 for none.
    pub current: BackendId,
    /// Owner of flows that are not stored; 0 when it is gone.
    pub previous: BackendId,
    /// The tables alone tell the owner: no flow of this slot is stored.
    pub settled: bool,
}

impl Owners {
    /// Looks a flow's hash up in the table and, after a change of the table's size, in the former
    /// one. `None` when the table has no slots.
    pub fn lookup(hash: u64, table: &[Slot], former: Option<&[Slot]>) -> Option<Self> {
        let slot = slot_of(hash, table)?;
        let Some(former) = former.and_then(|former| slot_of(hash, former)) else {
            return Some(Self {
                current: slot.current,
                previous: slot.previous(),
                settled: slot.is_settled(),
            });
        };
        Some(Self {
            current: slot.current,
            previous: match former.previous() {
                0 => slot.previous(),
                owner => owner,
            },
            settled: slot.is_settled() && former == Slot::settled(slot.current),
        })
    }
}

fn slot_of(hash: u64, table: &[Slot]) -> Option<Slot> {
    let len = u32::try_from(table.len()).ok()?;
    table.get(slot_index(hash, len) as usize).copied()
}

/// Why a flow goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The slot's owner has not changed.
    Settled,
    /// The connection table names the owner.
    Stored,
    /// New flow: the current owner.
    New,
    /// Not stored, so from before the slot's first change: the previous owner.
    Previous,
    /// The same, but the previous owner is gone: the current owner.
    Orphan,
    /// Its bucket has no room, so it is treated as an unstored flow with every packet.
    Refused,
}

/// The chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the packet goes; 0 for nowhere.
    pub backend: BackendId,
    /// Why.
    pub why: Why,
}

impl Choice {
    /// Whether the data plane stores the flow with this choice.
    pub const fn is_stored(&self) -> bool {
        self.backend != 0 && !matches!(self.why, Why::Settled | Why::Stored | Why::Refused)
    }
}

/// Chooses the backend of a packet. `stored` is the connection table's entry of the flow, unless it
/// was not used for [`lbagent_common::Settings::conn_idle_ticks`];
/// `is_new` holds for a TCP SYN and for UDP after a time of silence.
pub fn choose(
    owners: Owners,
    stored: Option<BackendId>,
    is_new: bool,
    is_alive: impl Fn(BackendId) -> bool,
) -> Choice {
    let chosen = |backend, why| Choice { backend, why };
    if owners.settled {
        return chosen(owners.current, Why::Settled);
    }
    if is_new {
        return chosen(owners.current, Why::New);
    }
    match stored {
        Some(backend) if is_alive(backend) => return chosen(backend, Why::Stored),
        _ => {}
    }
    if owners.previous != 0 && is_alive(owners.previous) {
        chosen(owners.previous, Why::Previous)
    } else {
        chosen(owners.current, Why::Orphan)
    }
}
