//! Marks the ABI types as plain old data for aya.

use crate::{
    BackendEntry, ConnEntry, ConnKey, NatFlowEntry, NatFlowKey, PacketCounter, ReturnEntry,
    ReturnKey, Settings, Slot, TrafficCounter, VipEntry, VipKey,
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
    BackendEntry,
    ConnEntry,
    ConnKey,
    NatFlowEntry,
    NatFlowKey,
    PacketCounter,
    ReturnEntry,
    ReturnKey,
    Settings,
    Slot,
    TrafficCounter,
    VipEntry,
    VipKey,
);
