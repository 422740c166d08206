//! What a BPF object says about itself, so that user space can tell before it loads anything.

/// ELF section of an object that holds one [`ObjectInfo`].
pub const OBJECT_SECTION: &str = "lbagent";

/// First bytes of that section.
const MAGIC: [u8; 8] = *b"lbagent\0";

/// Identity of an object. Size 36, alignment 4, byte order of the object.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    magic: [u8; 8],
    abi_version: u32,
    version: [u8; 24],
}

impl ObjectInfo {
    /// For an object built now, of this version; a version longer than 24 bytes is cut.
    pub const fn new(version: &str) -> Self {
        let mut padded = [0; 24];
        let bytes = version.as_bytes();
        let mut index = 0;
        while index < bytes.len() && index < padded.len() {
            padded[index] = bytes[index];
            index += 1;
        }
        Self {
            magic: MAGIC,
            abi_version: crate::ABI_VERSION,
            version: padded,
        }
    }

    /// Reads the section's content; `None` when it is none of ours.
    pub fn parse(section: &[u8]) -> Option<Self> {
        let (magic, rest) = section.split_first_chunk::<8>()?;
        let (abi_version, rest) = rest.split_first_chunk::<4>()?;
        let (version, _) = rest.split_first_chunk::<24>()?;
        (*magic == MAGIC).then_some(Self {
            magic: MAGIC,
            abi_version: u32::from_le_bytes(*abi_version),
            version: *version,
        })
    }

    /// [`crate::ABI_VERSION`] that the object was built with.
    pub const fn abi_version(&self) -> u32 {
        self.abi_version
    }

    /// Version of the lbagent that it belongs to.
    pub fn version(&self) -> &str {
        let end = self.version.iter().position(|byte| *byte == 0);
        core::str::from_utf8(&self.version[..end.unwrap_or(self.version.len())]).unwrap_or("?")
    }
}
