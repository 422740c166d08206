//! Addresses, ports and protocols as the maps hold them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address in its v4-mapped form (`::ffff:a.b.c.d`, RFC 4291
/// section 2.5.5.2). 16 bytes in network byte order, alignment 4: words, because programs load
/// and compare four bytes at a time.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct Addr([u32; 4]);

impl Addr {
    /// `::`, which no VIP or backend may have.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// The third word of a v4-mapped address.
    const V4_MARK: u32 = 0x0000_ffff_u32.to_be();

    /// From four words as they lie in a packet (network byte order, loaded without a swap).
    #[inline(always)]
    pub const fn from_wire(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Maps an IPv4 address as it lies in a packet (network byte order, loaded without a swap).
    #[inline(always)]
    pub const fn from_wire_v4(word: u32) -> Self {
        Self([0, 0, Self::V4_MARK, word])
    }

    /// Four words as they lie in memory and in a packet.
    #[inline(always)]
    pub const fn wire(&self) -> [u32; 4] {
        self.0
    }

    /// The IPv4 address as it lies in a packet, if [`is_v4`](Self::is_v4).
    #[inline(always)]
    pub const fn wire_v4(&self) -> u32 {
        self.0[3]
    }

    /// Whether this is a v4-mapped address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[2] == Self::V4_MARK && self.0[0] == 0 && self.0[1] == 0
    }

    /// All 16 bytes in network byte order.
    pub fn octets(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// A mask of `prefix_len` leading ones (of 128, so 96 + n for an IPv4 prefix of n).
    pub const fn mask(prefix_len: u8) -> Self {
        let ones = if prefix_len >= 128 {
            u128::MAX
        } else {
            !(u128::MAX >> prefix_len)
        };
        Self([
            ((ones >> 96) as u32).to_be(),
            ((ones >> 64) as u32).to_be(),
            ((ones >> 32) as u32).to_be(),
            (ones as u32).to_be(),
        ])
    }

    /// Whether two addresses are the same where a mask has ones.
    #[inline(always)]
    pub const fn agrees(&self, other: &Self, mask: &Self) -> bool {
        let (a, b, m) = (&self.0, &other.0, &mask.0);
        ((a[0] ^ b[0]) & m[0])
            | ((a[1] ^ b[1]) & m[1])
            | ((a[2] ^ b[2]) & m[2])
            | ((a[3] ^ b[3]) & m[3])
            == 0
    }

    /// The address as two 64-bit numbers, most significant first.
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        let [a, b, c, d] = self.0;
        (
            (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64,
            (u32::from_be(c) as u64) << 32 | u32::from_be(d) as u64,
        )
    }
}

impl PartialEq for Addr {
    /// Word by word: a derived comparison becomes a call of `memcmp` in BPF.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }
}

impl core::hash::Hash for Addr {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Addr {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.halves().cmp(&other.halves())
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_wire_v4(u32::from(v4).to_be()),
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                Self([96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be()))
            }
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        if address.is_v4() {
            Self::V4(u32::from_be(address.wire_v4()).into())
        } else {
            Self::V6(Ipv6Addr::from(address.octets()))
        }
    }
}

/// A TCP or UDP port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// From host order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// In host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// As it stands in a packet: network byte order, read with a host-order load.
    #[inline(always)]
    pub const fn wire(self) -> u16 {
        self.0
    }

    /// From a packet's field, loaded without a swap.
    #[inline(always)]
    pub const fn from_wire(port: u16) -> Self {
        Self(port)
    }
}

/// A transport protocol number (IANA protocol numbers: 6 and 17). 0 in a [`crate::VipKey`]
/// stands for the VIP address itself.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Any protocol: the key of a VIP's address entry.
    pub const ANY: Self = Self(0);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// An IPv4 packet inside (RFC 2003).
    pub const IPIP: Self = Self(4);
    /// An IPv6 packet inside (RFC 2473).
    pub const IPV6: Self = Self(41);
}
