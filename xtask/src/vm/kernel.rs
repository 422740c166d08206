//! Debian's kernels: fetched by apt with lists and keys of its own, unpacked below `target/vm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::directory;
use crate::process::{self, progress};
use crate::{pins, workspace};

/// An unpacked kernel package.
pub struct Kernel {
    /// `6.1`
    pub series: &'static str,
    /// `6.1.0-56-cloud-amd64`
    pub release: String,
    root: PathBuf,
}

impl Kernel {
    /// Fetches and unpacks the newest kernel of the series, unless one is there already.
    pub fn ensure(pinned: &pins::VmKernel) -> Result<Self> {
        let root = directory().join("kernels").join(pinned.series);
        if !root.exists() {
            fetch(pinned, &root)?;
        }
        let boot = root.join("boot");
        let names = fs::read_dir(&boot)
            .with_context(|| format!("{}; delete {}", boot.display(), root.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let release = names
            .filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))
            .next()
            .with_context(|| {
                format!("no kernel in {}; delete {}", boot.display(), root.display())
            })?;
        Ok(Self {
            series: pinned.series,
            release,
            root,
        })
    }

    /// The file that boots.
    pub fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The modules of these names and all that they depend on, in the order of loading: name and
    /// content. Built-in ones are left out; those of `sometimes` may be missing, because they are
    /// no modules of every kernel.
    pub fn modules(&self, names: &[&str], sometimes: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let directory = ["lib", "usr/lib"]
            .map(|lib| self.root.join(lib).join("modules").join(&self.release))
            .into_iter()
            .find(|path| path.is_dir())
            .with_context(|| format!("no modules of kernel {}", self.release))?;
        let mut files = Vec::new();
        collect(&directory, &mut files)?;
        let built_in = fs::read_to_string(directory.join("modules.builtin"))
            .context("reading the list of built-in modules")?;
        let built_in = built_in.lines().map(|line| module_name(Path::new(line)));
        let mut loader = Loader {
            files,
            built_in: built_in.collect(),
            loaded: Vec::new(),
        };
        for name in sometimes {
            if loader.knows(name) {
                loader.load(name)?;
            }
        }
        names.iter().try_for_each(|name| loader.load(name))?;
        Ok(loader.loaded)
    }
}

/// Puts modules in order.
struct Loader {
    files: Vec<PathBuf>,
    built_in: Vec<String>,
    loaded: Vec<(String, Vec<u8>)>,
}

impl Loader {
    fn knows(&self, name: &str) -> bool {
        self.files.iter().any(|path| module_name(path) == name)
    }

    fn load(&mut self, name: &str) -> Result<()> {
        let is_loaded = self.loaded.iter().any(|(loaded, _)| loaded == name);
        if is_loaded || self.built_in.iter().any(|built_in| built_in == name) {
            return Ok(());
        }
        let file = self
            .files
            .iter()
            .find(|path| module_name(path) == name)
            .with_context(|| format!("this kernel has no module {name}"))?;
        let module = read_module(file)?;
        for dependency in dependencies(&module) {
            self.load(&dependency)?;
        }
        self.loaded.push((name.to_owned(), module));
        Ok(())
    }
}

/// `ip6_tunnel` for `…/ip6_tunnel.ko.xz`. In names, `-` and `_` are the same.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("reading {}", path.display());
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(what);
    }
    // Not every kernel that has compressed modules can unpack them itself.
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .with_context(what)?;
    if !output.status.success() {
        bail!("{}: {}", what(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// What a module says that it depends on: one entry `depends=a,b` of its `.modinfo`, whose entries
/// end with zero bytes.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(start) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else {
        return Vec::new();
    };
    let list = &module[start + FIELD.len()..];
    let end = list.iter().position(|byte| *byte == 0).unwrap_or(0);
    let list = String::from_utf8_lossy(&list[..end]);
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let entry = entry.with_context(|| directory.display().to_string())?;
        let kind = entry
            .file_type()
            .with_context(|| entry.path().display().to_string())?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Downloads and unpacks. apt checks the archive's signature and the package's checksum.
fn fetch(pinned: &pins::VmKernel, root: &Path) -> Result<()> {
    progress(format_args!("fetching Debian's kernel {}", pinned.series));
    let apt = Apt::prepare()?;
    process::run(apt.command("apt-get").args(["-qq", "update"]))
        .context("reading the list of Debian's kernels")?;
    let shown = process::output_of(apt.command("apt-cache").args([
        "show",
        "--no-all-versions",
        pinned.package,
    ]))
    .with_context(|| format!("Debian has no package {}", pinned.package))?;
    let package = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))
        .and_then(|list| list.split([' ', ',']).next())
        .with_context(|| format!("{} names no kernel", pinned.package))?;
    let unfinished = root.with_extension("new");
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).with_context(|| unfinished.display().to_string())?;
    process::run(
        apt.command("apt-get")
            .args(["-qq", "download", package])
            .current_dir(&unfinished),
    )?;
    let archive = fs::read_dir(&unfinished)
        .with_context(|| unfinished.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    process::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&archive, &unfinished]),
    )?;
    fs::remove_file(&archive)
        .and_then(|()| fs::rename(&unfinished, root))
        .with_context(|| format!("moving {} into place", root.display()))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    Ok(())
}

/// apt as it would be on a Debian host with nothing but the kernels' archive: the host's own
/// sources, lists and packages stay as they are, and the host may be another distribution.
struct Apt {
    config: PathBuf,
}

impl Apt {
    fn prepare() -> Result<Self> {
        if !Path::new(pins::VM_KEYRING).is_file() {
            bail!(
                "{} is missing: install the package debian-archive-keyring",
                pins::VM_KEYRING
            );
        }
        let home = directory().join("apt");
        for path in ["lists/partial", "cache/archives/partial"] {
            let path = home.join(path);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        let mirror = workspace::variable(pins::VM_MIRROR_OVERRIDE);
        let mirror = mirror.as_deref().unwrap_or(pins::VM_MIRROR);
        let sources = home.join("sources.list");
        let entry = format!(
            "deb [arch=amd64 signed-by={}] {mirror} {} main\n",
            pins::VM_KEYRING,
            pins::VM_SUITE
        );
        let settings = [
            ("Dir::Etc::sourcelist", sources.clone()),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", home.join("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", home.join("cache")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            // Its own user can't write below every home directory.
            ("APT::Sandbox::User", "root".into()),
            ("Acquire::Languages", "none".into()),
        ];
        let settings = settings.map(|(name, value)| format!("{name} \"{}\";\n", value.display()));
        let config = home.join("apt.conf");
        fs::write(&sources, entry)
            .and_then(|()| fs::write(&config, settings.concat()))
            .with_context(|| format!("can't write to {}", home.display()))?;
        Ok(Self { config })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_tell_what_they_depend_on() {
        #[track_caller]
        fn check(module: &[u8], expected: &[&str]) {
            assert_eq!(dependencies(module), expected);
        }
        check(b"no module", &[]);
        check(b"\x7fELF\0license=GPL\0depends=\0name=a\0", &[]);
        check(b"\x7fELF\0depends=tunnel4\0name=a\0", &["tunnel4"]);
        check(
            b"\x7fELF\0depends=ip-tunnel,tunnel4\0",
            &["ip_tunnel", "tunnel4"],
        );
    }

    #[test]
    fn names_of_modules_come_from_their_files() {
        assert_eq!(
            module_name(Path::new("kernel/net/ipv6/ip6_tunnel.ko.xz")),
            "ip6_tunnel"
        );
        assert_eq!(
            module_name(Path::new("kernel/crypto/ghash-generic.ko")),
            "ghash_generic"
        );
    }
}
