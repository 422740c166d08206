//! `QUIC_SERVERS`: which backend chose a connection id.

/// Longest server id (draft-ietf-quic-load-balancers, section 3).
pub const MAX_SERVER_ID: usize = 15;

/// A server id of one policy. Size 20, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicServerKey {
    /// [`crate::VipEntry::policy_id`].
    pub policy_id: u32,
    /// Bytes of the server id.
    pub len: u8,
    /// The server id, then zeros.
    pub id: [u8; MAX_SERVER_ID],
}
