//! Namespaces that live as long as their owner.
//!
//! A namespace is held by a descriptor, never by a name, so it goes when this process goes: after a
//! panic, after Ctrl-C and after `kill -9`. With it go its interfaces, its pinned BPF objects and
//! its files, because [`HostNs`] keeps all of them in a mount namespace of its own.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::net_link::Netlink;

/// A network namespace.
#[derive(Clone, Debug)]
pub struct NetNs {
    label: Arc<str>,
    file: Arc<File>,
}

impl NetNs {
    /// Makes a namespace with `lo` up. The label is for messages only.
    pub fn new(label: &str) -> Result<Self> {
        let file = in_thread(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("making a network namespace needs CAP_SYS_ADMIN: run as root")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        let namespace = Self {
            label: label.into(),
            file: Arc::new(file),
        };
        namespace.run(|| {
            prepare_sysctls()?;
            Netlink::open()?.set_up("lo")
        })?;
        Ok(namespace)
    }

    /// For messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The descriptor that keeps the namespace alive.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Enters the namespace on this thread, until the guard is dropped.
    pub fn enter(&self) -> Result<NetNsGuard> {
        let before = File::open("/proc/thread-self/ns/net")?;
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering network namespace {}", self.label))?;
        Ok(NetNsGuard {
            before,
            _not_send: PhantomData,
        })
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it returns stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            let _guard = self.enter().expect("the namespace is alive");
            work()
        })
    }

    /// A command that will run inside the namespace and end with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        enter_on_exec(
            &mut command,
            vec![(Arc::clone(&self.file), CloneFlags::CLONE_NEWNET)],
        );
        command
    }
}

/// Brings the thread back to the namespace that it came from.
#[derive(Debug)]
pub struct NetNsGuard {
    before: File,
    /// A namespace belongs to a thread, so the guard must not leave it.
    _not_send: PhantomData<*const ()>,
}

impl Drop for NetNsGuard {
    fn drop(&mut self) {
        let back = setns(&self.before, CloneFlags::CLONE_NEWNET);
        if !thread::panicking() {
            back.expect("the namespace that the thread came from is alive");
        }
    }
}

/// What [`HostNs`] mounts at `/sys/fs/bpf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfFs {
    /// A BPF file system, as systemd does on every host.
    Mounted,
    /// Nothing.
    Absent,
}

/// A network namespace with files of its own: `/sys` shows its interfaces, `/sys/fs/bpf` its pins;
/// `/run` and `/var/lib` start empty. What a daemon sees there is what it would see on a host.
#[derive(Clone, Debug)]
pub struct HostNs {
    /// The network half.
    pub net: NetNs,
    mounts: Arc<File>,
}

impl HostNs {
    /// Makes both namespaces.
    pub fn new(label: &str, bpf: BpfFs) -> Result<Self> {
        let net = NetNs::new(label)?;
        let mounts = net.run(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
            mount_on(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
            mount_on(Some("sysfs"), "/sys", MsFlags::empty())?;
            if bpf == BpfFs::Mounted {
                mount_on(Some("bpf"), "/sys/fs/bpf", MsFlags::empty())?;
            }
            mount_on(Some("tmpfs"), "/run", MsFlags::empty())?;
            mount_on(Some("tmpfs"), "/var/lib", MsFlags::empty())?;
            Ok(File::open("/proc/thread-self/ns/mnt")?)
        })?;
        Ok(Self {
            net,
            mounts: Arc::new(mounts),
        })
    }

    /// Runs `work` on a thread of its own that sees the host's files and interfaces.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            // A thread shares its root and working directory with the process until told not to,
            // and the kernel lets no such thread change its mount namespace.
            unshare(CloneFlags::CLONE_FS).expect("a thread may stop sharing its root");
            setns(&*self.mounts, CloneFlags::CLONE_NEWNS).expect("the namespace is alive");
            let _guard = self.net.enter().expect("the namespace is alive");
            work()
        })
    }

    /// A command that will run on the host and end with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespaces = vec![
            (Arc::clone(&self.net.file), CloneFlags::CLONE_NEWNET),
            (Arc::clone(&self.mounts), CloneFlags::CLONE_NEWNS),
        ];
        enter_on_exec(&mut command, namespaces);
        command
    }

    /// As [`HostNs::command`], without any capability: what an ordinary user can do, by a user who
    /// can read the binary wherever it is.
    pub fn command_without_capabilities(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command(program);
        let renounce = || {
            for capability in 0..64 {
                // SAFETY: `prctl` with this option takes integers and no pointers. It fails for
                // numbers that are no capability, which is as good.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
            Ok(())
        };
        // SAFETY: the closure makes one kind of system call and allocates nothing. It runs after
        // the one that enters the namespaces, which needs the capabilities.
        unsafe { command.pre_exec(renounce) };
        command
    }
}

/// Makes the child enter the namespaces between `fork` and `exec`, and die with its parent.
fn enter_on_exec(command: &mut Command, namespaces: Vec<(Arc<File>, CloneFlags)>) {
    let enter = move || {
        for (file, kind) in &namespaces {
            // SAFETY: `setns` takes a descriptor, which the captured `Arc` keeps open, and flags.
            if unsafe { libc::setns(file.as_raw_fd(), kind.bits()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `prctl` with this option takes an integer and no pointers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure makes two kinds of system call and allocates nothing, so it is fit to run
    // in a forked child of a process with several threads.
    unsafe { command.pre_exec(enter) };
}

fn mount_on(kind: Option<&str>, target: &str, flags: MsFlags) -> Result<()> {
    mount(kind, target, kind, flags, None::<&str>)
        .with_context(|| format!("mounting {} on {target}", kind.unwrap_or("nothing")))
}

/// Settings that make a fresh namespace quick and repeatable.
fn prepare_sysctls() -> Result<()> {
    const SYSCTLS: &[(&str, &str)] = &[
        // Containers often switch IPv6 off for new interfaces.
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        // Duplicate address detection takes two seconds and finds nothing here.
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/router_solicitations", "0"),
    ];
    SYSCTLS
        .iter()
        .try_for_each(|(key, value)| set_sysctl(key, value))?;
    // The host's default may be bbr, whose pacing makes throughput wander. A namespace may choose
    // cubic only where the host allows it to everybody; reno is allowed everywhere.
    const CONGESTION_CONTROL: &str = "net/ipv4/tcp_congestion_control";
    set_sysctl(CONGESTION_CONTROL, "cubic").or_else(|_| set_sysctl(CONGESTION_CONTROL, "reno"))
}

/// Writes a sysctl of this thread's network namespace, its name with slashes.
pub fn set_sysctl(key: &str, value: &str) -> Result<()> {
    std::fs::write(format!("/proc/sys/{key}"), value)
        .with_context(|| format!("setting {key} to {value}"))
}

/// Runs `work` on a thread of its own and hands on its result or its panic.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
