//! Marks the ABI types as plain old data for aya.

use crate::{
    AnswerBudget, BackendEntry, ConnBucket, ConnEntry, EventDraft, FlowEvent, FragmentEntry,
    FragmentKey, HostEntry, HostKey, NatFlowEntry, NatFlowKey, PacketCounter, QuicServerKey,
    ReturnEntry, ReturnKey, Settings, Slot, SourceEntry, SourceKey, TrafficCounter, VipEntry,
    VipKey,
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => { $(
        // SAFETY: `repr(C)`, integers only, every padding byte is a named field (the assertions
        // in tests/abi.rs add the sizes of the fields up), so all bit patterns are valid and no
        // byte is uninitialised.
        unsafe impl aya::Pod for $name {}
    )+ };
}

pod!(
    AnswerBudget,
    BackendEntry,
    ConnBucket,
    ConnEntry,
    EventDraft,
    FlowEvent,
    FragmentEntry,
    FragmentKey,
    HostEntry,
    HostKey,
    NatFlowEntry,
    NatFlowKey,
    PacketCounter,
    QuicServerKey,
    ReturnEntry,
    ReturnKey,
    Settings,
    Slot,
    SourceEntry,
    SourceKey,
    TrafficCounter,
    VipEntry,
    VipKey,
);

pod!(crate::Addr, crate::decap::DecapSettings);
