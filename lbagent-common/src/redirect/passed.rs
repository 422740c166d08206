//! Why a packet for a port that redirects is the terminator's.

macro_rules! passed {
    ($( $(#[$doc:meta])+ $name:ident = $index:literal, $label:literal; )+) => {
        /// Why a packet for a port that redirects was left to the terminator; the discriminant
        /// indexes `REDIRECT_COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Passed { $( $(#[$doc])+ $name = $index, )+ }

        impl Passed {
            /// All of them, ordered by index.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// Metric label and `lbctl` text.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$name => $label, )+ }
            }

            /// The reason with this index.
            pub const fn from_index(index: u32) -> Option<Self> {
                match index { $( $index => Some(Self::$name), )+ _ => None }
            }
        }
    };
}

passed! {
    /// No SYN that may be answered with a cookie: the agent does not say so, there is no terminator,
    /// `net.ipv4.tcp_syncookies` is not 2, the terminator's queue is full, or the kernel still has a
    /// connection of this client's port.
    SynUnanswered = 0, "syn_unanswered";
    /// Of a connection that the kernel has, or resets.
    CookieInvalid = 1, "cookie_invalid";
    /// Flags, options, extension headers or fragments that are not expected here, or a wrong checksum.
    OddSegment = 2, "odd_segment";
    /// The request's head does not end within its first segment.
    Segmented = 3, "segmented";
    /// Neither GET nor HEAD.
    OtherMethod = 4, "other_method";
    /// A target of another form, or with a byte that no URI has.
    OddTarget = 5, "odd_target";
    /// Neither HTTP/1.1 nor HTTP/1.0, or not exactly as they are written.
    OddVersion = 6, "odd_version";
    /// A header line that is not as RFC 9112 wants it, or a byte that no header has.
    OddHeader = 7, "odd_header";
    /// A body is announced.
    HasBody = 8, "has_body";
    /// No host, several, another than the target's, an address, or a port that is not 80.
    OddHost = 9, "odd_host";
    /// Host name or target are too long for the answer.
    TooLong = 10, "too_long";
    /// Nobody has the host name on this VIP, or only a wildcard more than one label above it.
    UnknownHost = 11, "unknown_host";
    /// The host name's service group does not redirect on this VIP, or to another port.
    OtherHandler = 12, "other_handler";
    /// The frame could not be made as long as the answer.
    NoRoom = 13, "no_room";
}

impl Passed {
    /// How many there are, the length of `REDIRECT_COUNTERS`.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}
