//! Per-CPU counters.

/// `OUTCOMES`: packets and bytes that ended with one reason. Size 16, alignment 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCounter {
    /// Packets (a GSO super-packet counts once).
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// `VIP_COUNTERS` and `BACKEND_COUNTERS`: traffic of one VIP or backend. Size 40, alignment 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounter {
    /// New flows: TCP SYNs, first packets of UDP flows.
    pub flows: u64,
    /// Packets towards backends.
    pub in_packets: u64,
    /// Bytes towards backends.
    pub in_bytes: u64,
    /// Packets towards clients.
    pub out_packets: u64,
    /// Bytes towards clients.
    pub out_bytes: u64,
}
