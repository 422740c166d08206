//! How large a segment may be that still fits with the outer header.

/// Outer IPv6, the larger of the two.
const OUTER_IP: u32 = 40;
/// UDP; GUE variant 1 has no header of its own.
const OUTER_UDP: u32 = 8;
const TCP: u32 = 20;
const INNER_V4: u32 = 20 + TCP;
const INNER_V6: u32 = 40 + TCP;

/// A smaller MSS than every host must take (RFC 9293, section 3.7.1) is a mistake.
pub const SMALLEST: u16 = 536;

/// The largest MSS that clients are told, by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mss {
    /// Over IPv4.
    pub v4: u16,
    /// Over IPv6.
    pub v6: u16,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssSource {
    /// The interface's MTU, less all headers.
    #[default]
    Interface,
    /// This MTU, less all headers: where the way from the gateway has a smaller one.
    Mtu(u16),
    /// This value, for both families.
    Fixed(u16),
}

impl MssSource {
    /// The MSS on an interface of this MTU; `None` when there is no room.
    pub fn at(self, interface_mtu: u32) -> Option<Mss> {
        if let Self::Fixed(mss) = self {
            return Some(Mss { v4: mss, v6: mss });
        }
        let payload = self.mtu(interface_mtu).checked_sub(OUTER_IP + OUTER_UDP)?;
        let below = |headers: u32| {
            let mss = u16::try_from(payload.checked_sub(headers)?).unwrap_or(u16::MAX);
            (mss >= SMALLEST).then_some(mss)
        };
        Some(Mss {
            v4: below(INNER_V4)?,
            v6: below(INNER_V6)?,
        })
    }

    /// The MTU that counts.
    pub fn mtu(self, interface_mtu: u32) -> u32 {
        match self {
            Self::Mtu(mtu) => mtu.into(),
            Self::Interface | Self::Fixed(_) => interface_mtu,
        }
    }
}
