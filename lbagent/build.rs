//! Embeds the BPF objects, so that the agent is one file.
//!
//! `cargo check` must work where no BPF toolchain is installed; so a missing object embeds nothing
//! here, and the agent says at start what is missing.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Each object, and the variable that names another file to embed in its place.
const OBJECTS: [(&str, &str); 2] = [
    ("lbagent-ebpf", "LBAGENT_BPF_OBJECT"),
    ("lbagent-decap-ebpf", "LBAGENT_DECAP_BPF_OBJECT"),
];

fn main() {
    for (name, variable) in OBJECTS {
        embed(name, variable);
    }
}

fn embed(name: &str, variable: &str) {
    println!("cargo::rerun-if-env-changed={variable}");
    let embedded = Path::new(&required("OUT_DIR")).join(name);
    let named = env::var_os(variable).filter(|path| !path.is_empty());
    let object = match &named {
        Some(path) => PathBuf::from(path),
        None => {
            let workspace = Path::new(&required("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target").join("bpf").join(name)
        }
    };
    watch(&object);
    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if named.is_none() => {
            println!("lbagent embeds no {name}: {}: {error}", object.display());
            Vec::new()
        }
        Err(error) => panic!("{variable}={}: {error}", object.display()),
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
