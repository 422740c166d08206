//! The stack that chains of calls take in a BPF object, counted as the oldest kernel counts it.
//!
//! A kernel that is newer accepts more, so a program that loads here may be refused there. What a
//! function takes is read off its instructions: the lowest address that it makes from `r10`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use object::{
    File, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind,
};

/// The most that a chain may take (`MAX_BPF_STACK`).
pub const LIMIT: u32 = 512;
/// Kernels before 6.9 count each function in steps of 32 bytes, at least one
/// (`check_max_stack_depth()`); newer ones count in steps of 16.
const STEP: u32 = 32;

/// A program's calls that take most, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Names and bytes, before they are rounded up.
    pub frames: Vec<(String, u32)>,
    /// Their sum as the kernel counts.
    pub bytes: u32,
}

/// Where a function begins: its section and the offset in it.
type Place = (SectionIndex, u64);

/// One function.
struct Function {
    name: String,
    frame: u32,
    calls: Vec<Place>,
}

/// The deepest chain of every program of an object.
pub fn deepest_chains(object: &[u8]) -> Result<Vec<Chain>> {
    let (functions, programs) = read(object)?;
    programs
        .iter()
        .map(|place| deepest(&functions, *place, 0))
        .collect()
}

/// The functions that call one of those which compilers put in for copies and fillings: in BPF they
/// go byte by byte.
pub fn callers_of_byte_loops(object: &[u8]) -> Result<Vec<String>> {
    const BYTE_LOOPS: [&str; 4] = ["memset", "memcpy", "memmove", "memcmp"];
    let (functions, _) = read(object)?;
    let is_loop = |place: &Place| {
        functions
            .get(place)
            .is_some_and(|function| BYTE_LOOPS.contains(&function.name.as_str()))
    };
    Ok(functions
        .values()
        .filter(|function| function.calls.iter().any(is_loop))
        .map(|function| function.name.clone())
        .collect())
}

/// All functions of an object, and where its programs begin.
fn read(object: &[u8]) -> Result<(HashMap<Place, Function>, Vec<Place>)> {
    let file = File::parse(object).context("no ELF file")?;
    let mut functions = HashMap::new();
    let mut programs = Vec::new();
    for symbol in file.symbols() {
        let (SymbolKind::Text, Some(index)) = (symbol.kind(), symbol.section_index()) else {
            continue;
        };
        let section = file.section_by_index(index)?;
        if section.kind() != SectionKind::Text || symbol.size() == 0 {
            continue;
        }
        // Functions that are called share one section; each program has a section of its own.
        if section.name()? != ".text" {
            programs.push((index, symbol.address()));
        }
        let (address, end) = (symbol.address(), symbol.address() + symbol.size());
        let code = section.data()?;
        let code = code
            .get(address as usize..end as usize)
            .context("a function outside of its section")?;
        let relocated = relocated_calls(&file, &section)?;
        let calls = code.chunks_exact(8).zip((address..).step_by(8));
        let calls = calls.filter_map(|(instruction, at)| {
            let steps = call(instruction)?;
            // The distance counts from the next instruction; a relocated call's from one before
            // its symbol, so both are one step more than they say.
            let (section, from) = relocated.get(&at).copied().unwrap_or((index, at));
            Some((section, from.wrapping_add_signed(8 * (steps + 1))))
        });
        let function = Function {
            // Without the hash of its crate.
            name: format!("{:#}", rustc_demangle::demangle(symbol.name()?)),
            frame: frame(code),
            calls: calls.collect(),
        };
        functions.insert((index, address), function);
    }
    ensure!(!programs.is_empty(), "the object has no program");
    Ok((functions, programs))
}

/// Where the symbols of relocations lie, by the offset of the instruction.
fn relocated_calls<'a>(
    file: &File<'a>,
    section: &impl ObjectSection<'a>,
) -> Result<HashMap<u64, Place>> {
    let mut symbols = HashMap::new();
    for (offset, relocation) in section.relocations() {
        if let RelocationTarget::Symbol(target) = relocation.target() {
            let target = file.symbol_by_index(target)?;
            if let Some(index) = target.section_index() {
                symbols.insert(offset, (index, target.address()));
            }
        }
    }
    Ok(symbols)
}

/// The stack that a function uses, without what it calls.
fn frame(code: &[u8]) -> u32 {
    const CLASS: u8 = 0x07;
    const LOAD: u8 = 0x01;
    const STORE: [u8; 2] = [0x02, 0x03];
    const COPY: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const FRAME_POINTER: u8 = 10;
    let mut lowest = 0i32;
    let mut copied_to = None;
    for instruction in code.chunks_exact(8) {
        let (to, from) = (instruction[1] & 0xf, instruction[1] >> 4);
        let offset = i32::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let number = i32::from_le_bytes([4, 5, 6, 7].map(|at: usize| instruction[at]));
        let class = instruction[0] & CLASS;
        let is_access = (class == LOAD && from == FRAME_POINTER)
            || (STORE.contains(&class) && to == FRAME_POINTER);
        if is_access {
            lowest = lowest.min(offset);
        } else if instruction[0] == ADD && copied_to == Some(to) {
            lowest = lowest.min(number);
        }
        copied_to = (instruction[0] == COPY && from == FRAME_POINTER).then_some(to);
    }
    lowest.unsigned_abs()
}

/// The distance that a call of a function goes, in instructions; `None` for everything else.
fn call(instruction: &[u8]) -> Option<i64> {
    const CALL: u8 = 0x85;
    const OF_FUNCTION: u8 = 1;
    let is_call = instruction[0] == CALL && instruction[1] >> 4 == OF_FUNCTION;
    let steps = i32::from_le_bytes([4, 5, 6, 7].map(|at: usize| instruction[at]));
    is_call.then_some(steps.into())
}

fn deepest(functions: &HashMap<Place, Function>, place: Place, depth: u32) -> Result<Chain> {
    // The kernel allows eight, and refuses recursion.
    ensure!(depth < 8, "more than eight functions call each other");
    let function = functions.get(&place).context("a call into the middle")?;
    let mut below = Chain {
        frames: Vec::new(),
        bytes: 0,
    };
    for call in &function.calls {
        let chain = deepest(functions, *call, depth + 1)?;
        if chain.bytes > below.bytes {
            below = chain;
        }
    }
    let mut frames = vec![(function.name.clone(), function.frame)];
    frames.extend(below.frames);
    Ok(Chain {
        frames,
        bytes: below.bytes + function.frame.max(1).next_multiple_of(STEP),
    })
}
