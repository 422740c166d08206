//! Addresses, ports and protocols as the maps hold them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address in its v4-mapped form (`::ffff:a.b.c.d`, RFC 4291
/// section 2.5.5.2). Network byte order, 16 bytes, alignment 4.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr([u8; 16]);

impl Addr {
    /// `::`, which no VIP or backend may have.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// Wraps the 16 bytes of an IPv6 address in network byte order.
    #[inline(always)]
    pub const fn from_v6_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Maps the 4 bytes of an IPv4 address in network byte order.
    #[inline(always)]
    pub const fn from_v4_bytes(b: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]])
    }

    /// All 16 bytes in network byte order.
    #[inline(always)]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The last 4 bytes: the IPv4 address, if [`is_v4`](Self::is_v4).
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Whether this is a v4-mapped address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [high, middle, mark, _] = self.words();
        high == 0 && middle == 0 && mark == 0x0000_ffff_u32.to_be()
    }

    /// Four words as they lie in memory (network byte order read with host-order loads).
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let b = &self.0;
        [
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ]
    }

    /// Whether the first `prefix_len` bits (of 128, so 96 + n for an IPv4 prefix of n) agree.
    #[inline(always)]
    pub const fn shares_prefix(&self, other: &Self, prefix_len: u8) -> bool {
        let (a, b) = (self.halves(), other.halves());
        let (high, low) = (a.0 ^ b.0, a.1 ^ b.1);
        if prefix_len >= 64 {
            let rest = prefix_len as u32 - 64;
            high == 0 && (rest == 0 || rest <= 64 && low >> (64 - rest) == 0)
        } else {
            prefix_len == 0 || high >> (64 - prefix_len as u32) == 0
        }
    }

    /// The address as two 64-bit numbers, most significant first.
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        let b = &self.0;
        (
            u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        )
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4_bytes(address.octets())
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        if address.is_v4() {
            Self::V4(address.v4_bytes().into())
        } else {
            Self::V6(Ipv6Addr::from(address.0))
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
}
