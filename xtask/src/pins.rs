//! Versions of everything that is fetched to build the BPF objects, and the kernels of the virtual
//! machines: their only source.

/// The nightly that compiles the BPF programs: the branch point of the stable release that the
/// workspace uses is older, but bpf-linker must be built for the LLVM of this compiler.
pub const BPF_TOOLCHAIN: &str = "nightly-2026-05-20";

/// `core` is compiled for the BPF target, and its sources are a component of their own; clippy
/// checks the BPF code.
pub const BPF_COMPONENTS: [&str; 2] = ["rust-src", "clippy"];

/// Links LLVM bitcode into a BPF object. This version speaks LLVM 22, as the nightly does.
pub const BPF_LINKER: &str = "0.10.3";

/// Runs fuzz targets, with the same nightly.
pub const CARGO_FUZZ: &str = "0.13.2";

/// Little-endian BPF; both architectures that the agent supports are.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Names a rustup toolchain, or the directory of a compiler, to use instead of the pinned one.
pub const TOOLCHAIN_OVERRIDE: &str = "LBAGENT_BPF_TOOLCHAIN";
/// Names a bpf-linker to use instead of the pinned one.
pub const LINKER_OVERRIDE: &str = "LBAGENT_BPF_LINKER";
/// Names a prebuilt BPF object; nothing is fetched or built for BPF then.
pub const OBJECT_OVERRIDE: &str = "LBAGENT_BPF_OBJECT";

/// A kernel of `cargo xtask vm`.
#[derive(Clone, Copy, Debug)]
pub struct VmKernel {
    /// The versions that it stands for.
    pub series: &'static str,
    /// The same to compare with.
    pub version: (u32, u32),
    /// Debian's package that depends on the newest kernel of the series. Archives drop a kernel
    /// soon after the next one is out, so no version is named here.
    pub package: &'static str,
}

/// The oldest kernel that the agent supports, and the long-term one after it.
pub const VM_KERNELS: [VmKernel; 2] = [
    VmKernel {
        series: "6.1",
        version: (6, 1),
        package: "linux-image-cloud-amd64",
    },
    VmKernel {
        series: "6.12",
        version: (6, 12),
        package: "linux-image-6.12-cloud-amd64",
    },
];

/// The archive that has both.
pub const VM_SUITE: &str = "bookworm-security";
/// Where it is.
pub const VM_MIRROR: &str = "http://deb.debian.org/debian-security";
/// Names another mirror of it.
pub const VM_MIRROR_OVERRIDE: &str = "LBAGENT_VM_MIRROR";
/// The keys that sign it, from the package `debian-archive-keyring`.
pub const VM_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
