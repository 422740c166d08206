//! `cargo xtask build`: the BPF objects first, because the agent embeds one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::{self, progress};
use crate::setup::{self, Toolchain};
use crate::{pins, workspace};

/// Options of `build`.
#[derive(Args, Default)]
pub struct Options {
    /// Build the programs of the workspace with optimisations
    #[arg(long)]
    pub release: bool,
}

/// Builds everything.
pub fn run(options: &Options) -> Result<()> {
    bpf_objects()?;
    programs(options)
}

/// Builds the programs, and what shares its dependencies with them: these test binaries.
pub fn with_tests<'a>(binaries: impl IntoIterator<Item = &'a str>) -> Result<()> {
    bpf_objects()?;
    progress("building the workspace");
    let mut command = process::cargo();
    command.arg("build");
    workspace::choose_all(&mut command).arg("--bins");
    for binary in binaries {
        command.args(["--test", binary]);
    }
    process::run(&mut command)
}

/// Builds the BPF objects, unless a prebuilt one is named.
pub fn bpf_objects() -> Result<()> {
    if workspace::prebuilt_object().is_some() {
        return Ok(());
    }
    progress("building the BPF programs");
    process::run(bpf_cargo("build").args(["--bins"]))?;
    let built = workspace::bpf_build()
        .join(pins::BPF_TARGET)
        .join("release");
    let objects = workspace::bpf_objects();
    fs::create_dir_all(&objects).with_context(|| format!("can't create {}", objects.display()))?;
    for name in [
        workspace::AGENT_OBJECT,
        workspace::DECAP_OBJECT,
        workspace::BENCH_OBJECT,
    ] {
        publish(&built.join(name), &objects.join(name))?;
    }
    Ok(())
}

/// A cargo command for the BPF crate: its toolchain, target, linker and flags.
pub fn bpf_cargo(subcommand: &str) -> std::process::Command {
    // Functions and variables get BTF, so that the verifier's log and `bpftool` name them; it is
    // made from full debug information. `v3` is the newest instruction set of kernel 6.1.
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", setup::linker().display()),
    ];
    let mut command = Toolchain::chosen().command("cargo");
    command
        .current_dir(workspace::root().join(workspace::AGENT_OBJECT))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", workspace::bpf_build())
        // bpf-linker sees the whole program anyway; the profile's is for the host's programs.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .args([
            subcommand,
            "--release",
            "--package",
            workspace::AGENT_OBJECT,
        ])
        .args(["-Z", "build-std=core", "--target", pins::BPF_TARGET]);
    command
}

/// Copies an object, unless it is there already: an unchanged file keeps its time, so that the
/// agent is not compiled again.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    if bytes.is_empty() {
        bail!("bpf-linker wrote an empty {}", from.display());
    }
    if fs::read(to).ok().as_deref() == Some(&bytes) {
        return Ok(());
    }
    // Renamed into place, so that nobody embeds half an object.
    let unfinished = to.with_extension("new");
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, to))
        .with_context(|| format!("can't write {}", to.display()))
}

/// Builds the workspace's programs.
fn programs(options: &Options) -> Result<()> {
    progress("building the workspace");
    let mut command = process::cargo();
    command.args(["build", "--bins"]);
    if options.release {
        command.arg("--release");
    }
    process::run(&mut command)
}
