//! `cargo xtask setup`: the BPF compiler, its linker, and the few programs that the tests call.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, progress};
use crate::{capabilities, pins, workspace};

/// Programs that the harness calls, and the Debian packages that bring them.
const HOST_PROGRAMS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("haproxy", "haproxy"),
    ("nghttp", "nghttp2-client"),
    ("openssl", "openssl"),
    ("systemd-analyze", "systemd"),
    ("testssl", "testssl.sh"),
    ("wrk", "wrk"),
];

/// What one test takes that has a browser, and not every distribution has: a test that skips itself without.
const BROWSER_PROGRAMS: [(&str, &str); 2] = [
    ("chromium-headless-shell", "chromium-headless-shell"),
    ("certutil", "libnss3-tools"),
];

/// Packages that bring a service of their own name.
const SERVICES: [&str; 3] = ["haproxy", "nftables", "nginx"];
/// What Debian's packages ask before they start a service.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Programs that make and boot virtual machines, and the Debian packages that bring them.
const VM_PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
];

/// Installs what is missing.
pub fn run() -> Result<()> {
    ensure_host_programs()?;
    if let Some(object) = workspace::prebuilt_object() {
        if !object.is_file() {
            bail!(
                "{}={}: there is no such file",
                pins::OBJECT_OVERRIDE,
                object.display()
            );
        }
        progress(format_args!("using the BPF object {}", object.display()));
        return Ok(());
    }
    ensure_toolchain()?;
    ensure_linker()
}

/// The compiler of the BPF programs.
pub enum Toolchain {
    /// A name that rustup knows.
    Named(String),
    /// The directory above `bin/cargo`.
    Directory(PathBuf),
}

impl Toolchain {
    /// The pinned one, or what the override names.
    pub fn chosen() -> Self {
        match workspace::variable(pins::TOOLCHAIN_OVERRIDE) {
            Some(path) if path.contains('/') => Self::Directory(path.into()),
            Some(name) => Self::Named(name),
            None => Self::Named(pins::BPF_TOOLCHAIN.to_owned()),
        }
    }

    /// A command of this toolchain, free of what the outer cargo set for its own compiler.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match self {
            Self::Named(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, program]);
                command
            }
            Self::Directory(directory) => {
                let bin = directory.join("bin");
                let mut command = Command::new(bin.join(program));
                command.env("PATH", path_with(&bin));
                command
            }
        };
        scrub(&mut command);
        command
    }
}

/// `PATH` with a directory in front.
pub fn path_with(directory: &Path) -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(directory.to_owned()).chain(env::split_paths(&path));
    // Only a directory with a colon in its name can fail here, and it can't be on a PATH at all.
    env::join_paths(directories).unwrap_or(path)
}

/// bpf-linker: the installed one, or what the override names.
pub fn linker() -> PathBuf {
    match workspace::variable(pins::LINKER_OVERRIDE) {
        Some(path) => path.into(),
        None => workspace::tools().join("bin/bpf-linker"),
    }
}

/// Removes what cargo and rustup hand to their children, so that an inner cargo chooses anew.
fn scrub(command: &mut Command) {
    const NAMES: [&str; 12] = [
        "CARGO",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_TARGET_DIR",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
        "LD_LIBRARY_PATH",
    ];
    for name in NAMES {
        command.env_remove(name);
    }
}

fn ensure_host_programs() -> Result<()> {
    // Building and unit tests do without them; the rings say so themselves.
    ensure_packages("the tests in namespaces", &missing_packages(&HOST_PROGRAMS))
}

/// Installs a browser, where packages have one. Sixty megabytes: only where it is tested with.
pub fn ensure_browser() {
    let missing = missing_packages(&BROWSER_PROGRAMS);
    // Ubuntu's Chromium is a snap, and so is not for this. Other distributions are not asked either: to
    // ask for what is not there costs an update of all package lists, each time.
    if missing.is_empty() || !is_debian() {
        return;
    }
    if let Err(error) = ensure_packages("the browser's test", &missing) {
        progress(format_args!("no browser, its test skips itself: {error:#}"));
    }
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian")
}

/// Installs what virtual machines take and this host lacks.
pub fn ensure_vm_programs() -> Result<()> {
    let mut missing = missing_packages(&VM_PROGRAMS);
    if !Path::new(pins::VM_KEYRING).is_file() {
        missing.push("debian-archive-keyring");
    }
    ensure_packages("virtual machines", &missing)
}

/// The packages of those programs that are not installed.
pub fn missing_packages(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs
        .iter()
        .filter(|(program, _)| !process::is_installed(program))
        .map(|(_, package)| *package)
        .collect()
}

/// Installs Debian packages, where this process may; else it says which are missing. No service of
/// theirs is started or enabled on this host.
pub fn ensure_packages(purpose: &str, missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !capabilities::is_root() || !process::is_installed("apt-get") {
        progress(format_args!("{purpose} need these packages: {packages}"));
        return Ok(());
    }
    progress(format_args!("installing {packages}"));
    let forbids = !Path::new(SERVICE_POLICY).exists();
    if forbids {
        fs::write(SERVICE_POLICY, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(SERVICE_POLICY, Permissions::from_mode(0o755)))
            .with_context(|| format!("can't write {SERVICE_POLICY}"))?;
    }
    let installed = install(missing);
    if forbids {
        fs::remove_file(SERVICE_POLICY)
            .with_context(|| format!("can't remove {SERVICE_POLICY}"))?;
    }
    installed.with_context(|| format!("install the packages {packages} by hand"))
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    let install = || {
        process::run(
            apt()
                .args(["install", "--yes", "--no-install-recommends"])
                .args(packages),
        )
    };
    // A new machine has no package lists yet.
    install().or_else(|_| process::run(apt().arg("update")).and_then(|()| install()))?;
    // The programs are run in namespaces: no service of theirs is to come with the next boot either.
    if Path::new("/run/systemd/system").is_dir() {
        for service in packages.iter().filter(|name| SERVICES.contains(name)) {
            process::run(Command::new("systemctl").args(["--quiet", "disable", service]))?;
        }
    }
    Ok(())
}

fn ensure_toolchain() -> Result<()> {
    let toolchain = Toolchain::chosen();
    let named = match &toolchain {
        Toolchain::Directory(directory) => {
            if process::output_of(toolchain.command("rustc").arg("--version")).is_none() {
                bail!(
                    "{}={}: there is no working bin/rustc in it",
                    pins::TOOLCHAIN_OVERRIDE,
                    directory.display()
                );
            }
            return Ok(());
        }
        Toolchain::Named(name) => name,
    };
    let mut list = Command::new("rustup");
    scrub(&mut list);
    list.args(["component", "list", "--installed", "--toolchain", named]);
    let installed = process::output_of(&mut list).unwrap_or_default();
    let is_missing = |component: &&str| {
        !installed.lines().any(|line| {
            line == *component
                || line
                    .strip_prefix(*component)
                    .is_some_and(|l| l.starts_with('-'))
        })
    };
    if !installed.is_empty() && !pins::BPF_COMPONENTS.iter().any(is_missing) {
        return Ok(());
    }
    progress(format_args!(
        "installing {named} with {}",
        pins::BPF_COMPONENTS.join(", ")
    ));
    let mut install = Command::new("rustup");
    scrub(&mut install);
    install.args([
        "toolchain",
        "install",
        named,
        "--profile",
        "minimal",
        "--no-self-update",
    ]);
    for component in pins::BPF_COMPONENTS {
        install.args(["--component", component]);
    }
    process::run(&mut install).with_context(|| {
        format!(
            "the compiler of the BPF programs can't be installed; name another nightly in {} \
             (a rustup toolchain or a directory with bin/cargo), or a prebuilt object in {}",
            pins::TOOLCHAIN_OVERRIDE,
            pins::OBJECT_OVERRIDE
        )
    })
}

fn ensure_linker() -> Result<()> {
    let linker = linker();
    let version = process::output_of(Command::new(&linker).arg("--version"));
    if workspace::variable(pins::LINKER_OVERRIDE).is_some() {
        return match version {
            Some(_) => Ok(()),
            None => bail!(
                "{}={} does not run",
                pins::LINKER_OVERRIDE,
                linker.display()
            ),
        };
    }
    if version.is_some_and(|text| text.split_whitespace().any(|word| word == pins::BPF_LINKER)) {
        return Ok(());
    }
    progress(format_args!(
        "building bpf-linker {} (once; three to seven minutes on two cores)",
        pins::BPF_LINKER
    ));
    install_tool("bpf-linker", pins::BPF_LINKER).with_context(|| {
        format!(
            "bpf-linker can't be installed; name one of version {} in {}, or a prebuilt object \
             in {}",
            pins::BPF_LINKER,
            pins::LINKER_OVERRIDE,
            pins::OBJECT_OVERRIDE
        )
    })
}

/// Installs what fuzzing takes.
pub fn ensure_fuzzer() -> Result<()> {
    ensure_toolchain()?;
    let fuzzer = workspace::tools().join("bin/cargo-fuzz");
    let version = process::output_of(Command::new(fuzzer).arg("--version"));
    if version.is_some_and(|text| text.split_whitespace().any(|word| word == pins::CARGO_FUZZ)) {
        return Ok(());
    }
    progress(format_args!("building cargo-fuzz {}", pins::CARGO_FUZZ));
    install_tool("cargo-fuzz", pins::CARGO_FUZZ)
}

/// Builds a program below `target/tools`.
fn install_tool(name: &str, version: &str) -> Result<()> {
    let mut install = process::cargo();
    for name in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"] {
        install.env_remove(name);
    }
    install.args(["install", name, "--locked", "--force", "--version", version]);
    install.arg("--root").arg(workspace::tools());
    process::run(&mut install)
}
