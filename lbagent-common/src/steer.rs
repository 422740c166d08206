//! How connections to terminated ports reach a terminator's listening socket.

/// Index into `TERMINATORS` of the socket that takes IPv4 connections.
pub const TERMINATOR_V4: u32 = 0;
/// Index into `TERMINATORS` of the socket that takes IPv6 connections.
pub const TERMINATOR_V6: u32 = 1;

/// What became of a connection to a terminated port; the discriminant indexes `STEER_COUNTERS`. What
/// is counted is the kernel's lookups of a socket: one for a connection, and one for each repetition
/// of its first packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Steered {
    /// A terminator's socket took it.
    ToTerminator = 0,
    /// No terminator is registered: the client gets a reset.
    MissedReset = 1,
    /// No terminator is registered: left to whatever is bound to the port on the host.
    MissedPassed = 2,
    /// The kernel would not use the socket, or another program had chosen one: left to the host.
    Refused = 3,
}

impl Steered {
    /// All of them, ordered by index.
    pub const ALL: [Self; 4] = [
        Self::ToTerminator,
        Self::MissedReset,
        Self::MissedPassed,
        Self::Refused,
    ];
    /// How many there are, the length of `STEER_COUNTERS`.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Metric label and `lbctl` text.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ToTerminator => "to_terminator",
            Self::MissedReset => "missed_reset",
            Self::MissedPassed => "missed_passed",
            Self::Refused => "refused",
        }
    }
}
