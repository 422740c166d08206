//! Embeds the BPF object, so that the agent is one file.
//!
//! `cargo check` must work where no BPF toolchain is installed; so a missing object embeds nothing
//! here, and the agent says at start what is missing.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names the object to embed.
const OVERRIDE: &str = "LBAGENT_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let embedded = Path::new(&required("OUT_DIR")).join("lbagent-ebpf");
    let object = match env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => {
            let workspace = Path::new(&required("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target").join("bpf").join("lbagent-ebpf")
        }
    };
    watch(&object);
    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if env::var_os(OVERRIDE).is_none_or(|path| path.is_empty()) => {
            println!(
                "lbagent embeds no BPF object: {}: {error}",
                object.display()
            );
            Vec::new()
        }
        Err(error) => panic!("{OVERRIDE}={}: {error}", object.display()),
    };
    // An unchanged file keeps its time, so that the agent is not compiled again.
    if fs::read(&embedded).ok().as_deref() != Some(&bytes) {
        fs::write(&embedded, bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", embedded.display()));
    }
}

/// Cargo runs this again at every build while a watched path is missing; so the directory is
/// watched until the object is there.
fn watch(object: &Path) {
    let directory = object.parent().unwrap_or(Path::new("."));
    let watched = if object.exists() || fs::create_dir_all(directory).is_err() {
        object
    } else {
        directory
    };
    println!("cargo::rerun-if-changed={}", watched.display());
}

fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|error| panic!("cargo sets {variable}: {error}"))
}
