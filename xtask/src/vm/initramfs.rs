//! The machine's files: an archive in cpio's "newc" format, which the kernel unpacks into memory
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::directory;
use super::kernel::Kernel;
use crate::{process, workspace};

/// The program that the kernel starts.
pub const INIT: &str = "lb-vm-init";

/// Modules of the kernel that the tests need, where they are not built in. Each brings the modules
/// that it depends on.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "8021q",
    "dummy",
    "sch_ingress",
    "cls_bpf",
    "ipip",
    "sit",
    "ip6_tunnel",
    "fou",
    "fou6",
];

/// A module until Linux 6.9, then a part of every kernel.
const UNIX_SOCKETS: &str = "unix";

/// Where the init looks for its orders and programs.
const HOME: &str = "lb";

/// Directories that are mounted upon, or that programs expect.
const DIRECTORIES: [&str; 7] = ["proc", "sys", "dev", "run", "tmp", "var/lib", "etc"];

/// File types and permissions, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// Writes the archive and returns where it is.
pub fn build(kernel: &Kernel, programs: &[PathBuf], runs: &[String]) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for path in DIRECTORIES {
        archive.add_directory(path);
    }
    let mut plan = String::new();
    for (name, module) in kernel.modules(MODULES, &[UNIX_SOCKETS])? {
        archive.add_file(&format!("{HOME}/{name}.ko"), &module);
        plan += &format!("module {name}.ko\n");
    }
    for run in runs {
        plan += &format!("run {run}\n");
    }
    archive.add_file(&format!("{HOME}/plan"), plan.as_bytes());
    let mut libraries = BTreeSet::new();
    for program in programs {
        let name = name_of(program);
        let path = match name.as_str() {
            INIT => "init".to_owned(),
            name => format!("{HOME}/{name}"),
        };
        archive.add_file(&path, &stripped(program, &name)?);
        libraries.extend(shared_libraries(program)?);
    }
    for library in libraries {
        let content = fs::read(&library).with_context(|| library.clone())?;
        archive.add_file(library.trim_start_matches('/'), &content);
    }
    // In the machine no test may skip itself, so the list of those that may is empty.
    let skips = workspace::root().join("tests/skips.txt");
    let skips = skips.to_string_lossy();
    archive.add_file(skips.trim_start_matches('/'), b"");
    let path = directory().join(format!("{}.cpio", kernel.series));
    fs::write(&path, archive.finish())
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}

/// `traffic` for `…/deps/traffic-0123456789abcdef`: a program's name without cargo's hash.
pub fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match name.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 => name.to_owned(),
        _ => name.into_owned(),
    }
}

/// The program without its debug information, which is most of it.
fn stripped(program: &Path, name: &str) -> Result<Vec<u8>> {
    let small = directory().join(name);
    process::run(Command::new("strip").arg("-o").args([&small, program]))
        .context("install the package binutils")?;
    fs::read(&small).with_context(|| small.display().to_string())
}

/// Paths of the shared libraries and of the loader that a program needs.
fn shared_libraries(program: &Path) -> Result<Vec<String>> {
    let listed = process::output_of(Command::new("ldd").arg(program))
        .with_context(|| format!("ldd can't read {}", program.display()))?;
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), missing.trim());
    }
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"
    let words = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(str::to_owned).collect())
}

/// An archive in the making.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a directory and those above it, once.
    fn add_directory(&mut self, path: &str) {
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.add_directory(above);
        }
        self.add_entry(path, DIRECTORY, &[]);
        self.directories.insert(path.to_owned());
    }

    /// Adds a file, which everybody may run, and the directories above it.
    fn add_file(&mut self, path: &str, content: &[u8]) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.add_directory(above);
        }
        self.add_entry(path, FILE, content);
    }

    fn add_entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device and its minor, the same for a
        // device file, length of the name with its zero byte, checksum.
        let size = u32::try_from(content.len()).expect("programs are smaller than 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("paths are short");
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Names and contents end at multiples of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add_entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_directories_before_their_files() {
        let mut archive = Archive::default();
        archive.add_file("a/b/c", b"12345");
        archive.add_file("a/b/d", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let names = ["a\0", "a/b\0", "a/b/c\0", "a/b/d\0", "TRAILER!!!\0"];
        let places: Vec<_> = names.iter().map(|name| text.find(name).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        // The third entry: five bytes of content behind a name of six.
        let entry = &text[places[2] - 110..];
        assert!(entry.starts_with("07070100000003000081ed"), "{entry}");
        assert_eq!(&entry[54..62], "00000005");
        assert_eq!(&entry[94..102], "00000006");
        assert_eq!(&entry[116..124], "12345\0\0\0");
    }

    #[test]
    fn programs_lose_cargos_hash() {
        assert_eq!(
            name_of(Path::new("/t/deps/traffic-39802b13e8b1a378")),
            "traffic"
        );
        assert_eq!(name_of(Path::new("/t/lb-vm-init")), "lb-vm-init");
    }
}
