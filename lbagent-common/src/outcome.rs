//! Every reason that a packet can end with: counter index, metric label and operator's text.

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent on towards a backend or a client.
    Forwarded,
    /// Handed to the kernel.
    Passed,
    /// Answered by the data plane itself.
    Answered,
    /// Discarded.
    Dropped,
}

macro_rules! outcomes {
    ($( $(#[$doc:meta])+ $name:ident = $index:literal, $verdict:ident, $label:literal; )+) => {
        /// The one reason that a packet ends with; the discriminant indexes `OUTCOMES`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Outcome { $( $(#[$doc])+ $name = $index, )+ }

        impl Outcome {
            /// All outcomes, ordered by index.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// Metric label and `lbctl` text.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$name => $label, )+ }
            }

            /// What becomes of the packet.
            pub const fn verdict(self) -> Verdict {
                match self { $( Self::$name => Verdict::$verdict, )+ }
            }

            /// The outcome with this index.
            pub const fn from_index(index: u32) -> Option<Self> {
                match index { $( $index => Some(Self::$name), )+ _ => None }
            }
        }
    };
}

outcomes! {
    /// To a backend, out of the interface that it came in by.
    ForwardTx = 0, Forwarded, "forward_tx";
    /// To a backend through another interface.
    ForwardRedirect = 1, Forwarded, "forward_redirect";
    /// Rewritten for a backend whose link address is not known yet, or whose interface takes no
    /// frames from XDP: the kernel sends it on.
    ForwardKernel = 2, Forwarded, "forward_kernel";
    /// Reply restored and sent to the client.
    ReturnRedirect = 3, Forwarded, "return_redirect";
    /// Reply restored; the kernel routes it.
    ReturnKernel = 4, Forwarded, "return_kernel";
    /// Neither IPv4 nor IPv6 behind up to two VLAN tags.
    PassNotIp = 5, Passed, "pass_not_ip";
    /// Too short for the headers that it announces.
    PassTruncated = 6, Passed, "pass_truncated";
    /// Neither TCP nor UDP, or behind extension headers that are not walked; nor ICMP that concerns
    /// a VIP.
    PassProtocol = 7, Passed, "pass_protocol";
    /// A fragment of a datagram that is not balanced.
    PassFragment = 8, Passed, "pass_fragment";
    /// The destination is no published port; with policy `pass` also a VIP's unpublished one.
    PassNotVip = 9, Passed, "pass_not_vip";
    /// The VIP's port belongs to the terminator.
    PassTerminate = 10, Passed, "pass_terminate";
    /// From the backend side, and no reply of a backend.
    PassNotReply = 11, Passed, "pass_not_reply";
    /// A backend's packet to the gateway itself.
    PassLocal = 12, Passed, "pass_local";
    /// TTL or hop limit used up: the kernel answers.
    PassTtl = 13, Passed, "pass_ttl";
    /// A reply larger than the way to the client allows: the kernel tells the backend.
    PassTooBig = 14, Passed, "pass_too_big";
    /// A VIP's address on a port that nobody published, policy `drop`.
    DropUnpublished = 15, Dropped, "drop_unpublished";
    /// The service group has no backend that may take the flow.
    DropNoBackend = 16, Dropped, "drop_no_backend";
    /// No route to the backend; with `dsr-l2` also: it is on no link of the gateway, or its link
    /// address is not known yet.
    DropNoRoute = 17, Dropped, "drop_no_route";
    /// No free port to rewrite the source to, or no address; or the rewritten packet would have to
    /// go through the kernel, which takes none from its own address.
    DropNoSource = 18, Dropped, "drop_no_source";
    /// A flow had to be stored and its map took no entry.
    DropMapFull = 19, Dropped, "drop_map_full";
    /// The headers could not be rewritten.
    DropRewrite = 20, Dropped, "drop_rewrite";
    /// A map that must hold an entry does not: settings missing or slots out of range.
    DropNotConfigured = 21, Dropped, "drop_not_configured";
    /// Larger than the way to the backend allows.
    DropTooBig = 22, Dropped, "drop_too_big";
    /// The service group's policy refuses the source.
    DropSource = 23, Dropped, "drop_source";
    /// An echo request for a VIP, answered.
    AnswerEcho = 24, Answered, "answer_echo";
    /// Larger than the way to the backend allows: the client was told.
    AnswerTooBig = 25, Answered, "answer_too_big";
    /// An echo request or a packet that is too big, over the limit of answers.
    DropAnswerLimit = 26, Dropped, "drop_answer_limit";
    /// ICMP for a VIP that is no echo request and quotes no packet of a balanced flow.
    PassIcmp = 27, Passed, "pass_icmp";
    /// A later fragment for a VIP whose first fragment did not come, and which could not be held.
    DropFragment = 28, Dropped, "drop_fragment";
    /// There was no room for the outer header, or no address for it.
    DropEncapsulation = 29, Dropped, "drop_encapsulation";
    /// A later fragment for a VIP that came before the first one: handed to the agent until that has
    /// come; counted again then.
    HoldFragment = 30, Passed, "hold_fragment";
    /// The SYN of a connection to a port 80 that redirects, answered with a cookie.
    AnswerCookie = 31, Answered, "answer_cookie";
    /// A SYN for another port of the terminator, answered with a cookie because there were too many.
    AnswerShield = 32, Answered, "answer_shield";
    /// A request for a host name that redirects, answered: the client goes to HTTPS.
    AnswerRedirect = 33, Answered, "answer_redirect";
    /// The end of a connection that was answered, or data behind it, acknowledged.
    AnswerClose = 34, Answered, "answer_close";
    /// An acknowledgement that a connection answered here needs no answer to.
    AbsorbAck = 35, Answered, "absorb_ack";
    /// Part of a request whose beginning has not come yet: the client sends it again.
    DropUnordered = 36, Dropped, "drop_unordered";
    /// For a port 80 that redirects, and left to the terminator; `REDIRECT_COUNTERS` says why.
    PassRedirect = 37, Passed, "pass_redirect";
}

impl Outcome {
    /// Number of outcomes, the length of `OUTCOMES`.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}
