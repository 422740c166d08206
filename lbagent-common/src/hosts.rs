//! `HOSTS`: the host names that port 80 of the VIPs is published under.

/// A host name. Size 64, alignment 1.
///
/// Lower case, without a dot at its end, then zeros. A wildcard `*.example.com` is `.example.com`: what
/// stands in a name from its first dot on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostKey {
    /// The name, then zeros.
    pub name: [u8; Self::MAX_LEN],
}

impl HostKey {
    /// Longest name that the map holds, in bytes; connections for longer ones are the terminator's.
    pub const MAX_LEN: usize = 64;

    /// The key of a name or a wildcard, whatever its case; none for one that is too long.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let name = match name {
            [b'*', parent @ ..] => parent,
            name => name,
        };
        let mut key = Self::default();
        let place = key
            .name
            .get_mut(..name.len())
            .filter(|place| !place.is_empty())?;
        place.copy_from_slice(name);
        place.make_ascii_lowercase();
        Some(key)
    }

    /// The name as it is written, with the asterisk of a wildcard.
    pub fn text(&self) -> impl core::fmt::Display {
        let end = self.name.iter().position(|byte| *byte == 0);
        Text(self.name, end.unwrap_or(Self::MAX_LEN))
    }
}

/// A name to be shown.
struct Text([u8; HostKey::MAX_LEN], usize);

impl core::fmt::Display for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = &self.0[..self.1];
        if name.first() == Some(&b'.') {
            f.write_str("*")?;
        }
        name.escape_ascii().fmt(f)
    }
}

impl Default for HostKey {
    fn default() -> Self {
        Self {
            name: [0; Self::MAX_LEN],
        }
    }
}

/// Where a host name is served on port 80. Size 16, alignment 8. Bits are those of
/// [`crate::VipEntry::bit`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostEntry {
    /// VIPs on which some service group has the name, with whatever handlers. On others the name is
    /// as good as absent, and a wildcard above it counts.
    pub serves: u64,
    /// Those among them on which its clients are sent to `https://` with the same name, without a port.
    pub redirects: u64,
}
