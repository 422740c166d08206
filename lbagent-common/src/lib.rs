//! The ABI between lbagent's BPF programs and its user space.
//!
//! Every type here is a map key or a map value: `repr(C)`, integers only, padding named, no
//! `bool`, `enum` or `Option` field. Fields are private where their byte order matters; the
//! accessors speak host order. Both sides are built from this crate, and [`ABI_VERSION`] is
//! written into the pinned settings so that an agent never drives maps of another layout.

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod addr;
mod answer;
mod backend;
pub mod checksum;
mod conntrack;
mod counters;
pub mod decap;
mod event;
mod fragment;
pub mod hash;
mod hosts;
mod layouts;
pub mod limits;
mod maglev;
mod object;
mod outcome;
#[cfg(feature = "user")]
mod pod;
mod quic;
pub mod redirect;
mod returns;
mod settings;
mod source;
mod steer;
mod vip;

pub use addr::{Addr, Port, Protocol};
pub use answer::AnswerBudget;
pub use backend::{BackendEntry, BackendId};
pub use conntrack::{CONN_WAYS, ConnBucket, ConnEntry, NatFlowEntry, NatFlowKey, conn_tag};
pub use counters::{PacketCounter, TrafficCounter};
pub use event::{EventDraft, FlowEvent};
pub use fragment::{FragmentEntry, FragmentKey, HeldFragment};
pub use hosts::{HostEntry, HostKey};
pub use layouts::layout_since;
pub use maglev::{LADDER, Slot, table_len};
pub use object::{OBJECT_SECTION, ObjectInfo};
pub use outcome::{Outcome, Verdict};
pub use quic::{MAX_SERVER_ID, QuicServerKey};
pub use returns::{ReturnEntry, ReturnKey};
pub use settings::Settings;
pub use source::{SourceEntry, SourceKey};
pub use steer::{Steered, TERMINATOR_V4, TERMINATOR_V6};
pub use vip::{VipEntry, VipKey};

/// Version of every layout in this crate. Raised by any change of a key, a value, a map's name
/// or the meaning of a field, together with that map's row in `layouts.rs`. An agent makes maps of
/// its own beside pinned ones of another version, and loads objects of its own version only.
pub const ABI_VERSION: u32 = 3;
