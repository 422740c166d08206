//! Versions of everything that is fetched to build the BPF objects: their only source.

/// The nightly that compiles the BPF programs: the branch point of the stable release that the
/// workspace uses is older, but bpf-linker must be built for the LLVM of this compiler.
pub const BPF_TOOLCHAIN: &str = "nightly-2026-05-20";

/// `core` is compiled for the BPF target, and its sources are a component of their own; clippy
/// checks the BPF code.
pub const BPF_COMPONENTS: [&str; 2] = ["rust-src", "clippy"];

/// Links LLVM bitcode into a BPF object. This version speaks LLVM 22, as the nightly does.
pub const BPF_LINKER: &str = "0.10.3";

/// Little-endian BPF; both architectures that the agent supports are.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Names a rustup toolchain, or the directory of a compiler, to use instead of the pinned one.
pub const TOOLCHAIN_OVERRIDE: &str = "LBAGENT_BPF_TOOLCHAIN";
/// Names a bpf-linker to use instead of the pinned one.
pub const LINKER_OVERRIDE: &str = "LBAGENT_BPF_LINKER";
/// Names a prebuilt BPF object; nothing is fetched or built for BPF then.
pub const OBJECT_OVERRIDE: &str = "LBAGENT_BPF_OBJECT";
