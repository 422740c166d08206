//! Variants of the agent's BPF object: another that does the same, and some that cannot be loaded.

use anyhow::{Context, Result};
use lbagent_common::{ABI_VERSION, OBJECT_SECTION, limits};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// Size of a BPF instruction.
const INSTRUCTION: usize = 8;
/// `r = imm`, 64 and 32 bits wide; the second clears the upper half.
const MOVE: [u8; 2] = [0xb7, 0xb4];
/// `r = imm` of 64 bits, which takes two instructions.
const LOAD_IMMEDIATE: u8 = 0x18;

/// The bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFile(pub Vec<u8>);

impl ObjectFile {
    /// The object that the agent embeds.
    pub fn embedded() -> Self {
        Self(lbagent::dataplane::embedded_object().to_vec())
    }

    /// Does the same with another instruction, so it has another tag: a constant that is moved into
    /// a register as 64 bits is moved as 32.
    pub fn with_other_code(mut self) -> Result<Self> {
        let range = self.section("xdp")?;
        let code = &mut self.0[range];
        let mut at = 0;
        while at < code.len() {
            let [operation, .., sign] = &mut code[at..at + INSTRUCTION] else {
                break;
            };
            if *operation == MOVE[0] && *sign < 0x80 {
                *operation = MOVE[1];
                return Ok(self);
            }
            at += INSTRUCTION * if *operation == LOAD_IMMEDIATE { 2 } else { 1 };
        }
        anyhow::bail!("no constant is moved anywhere")
    }

    /// Says that it was built for another ABI version.
    pub fn with_other_abi(mut self) -> Result<Self> {
        let start = self.section(OBJECT_SECTION)?.start + 8;
        self.0[start..start + 4].copy_from_slice(&(ABI_VERSION + 40).to_le_bytes());
        Ok(self)
    }

    /// `lb_return` begins with a read through a register that holds nothing. (`lb_ingress` passes
    /// the verifier before it.)
    pub fn unverifiable(mut self) -> Result<Self> {
        let file = object::File::parse(&*self.0)?;
        let symbol = file
            .symbols()
            .find(|symbol| symbol.name() == Ok(limits::PROGRAM_RETURN))
            .context("no such program")?;
        let at = self.section("classifier")?.start + usize::try_from(symbol.address())?;
        // r0 = *(u64 *)(r9 + 0)
        self.0[at..at + INSTRUCTION].copy_from_slice(&[0x79, 0x90, 0, 0, 0, 0, 0, 0]);
        Ok(self)
    }

    /// The first half.
    pub fn truncated(mut self) -> Self {
        self.0.truncate(self.0.len() / 2);
        self
    }

    fn section(&self, name: &str) -> Result<std::ops::Range<usize>> {
        let file = object::File::parse(&*self.0)?;
        let section = file
            .section_by_name(name)
            .with_context(|| format!("no section {name}"))?;
        let (start, length) = section.file_range().context("an empty section")?;
        let start = usize::try_from(start)?;
        Ok(start..start + usize::try_from(length)?)
    }
}
