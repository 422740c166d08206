//! System calls that no safe wrapper offers: opening a pinned BPF object without knowing its type,
//! detaching a link, sending a frame out of an interface, and having a program handle one.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Commands of `enum bpf_cmd`, `include/uapi/linux/bpf.h`.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens a pinned map, program or link.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the kernel reads `size_of::<ObjectGet>()` bytes of `attributes` and the
    // zero-terminated `path`, both alive until the call returns, and writes to neither.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const attributes,
            size_of::<ObjectGet>() as libc::c_uint,
        )
    };
    let fd = i32::try_from(fd)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a result that is not negative is a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the program of a pinned link off its interface now. Removing the pin alone leaves that to
/// a worker of the kernel, some time later.
pub(super) fn detach_link(path: &Path) -> io::Result<()> {
    let link = open_pinned(path)?;
    let link_fd = link.as_raw_fd();
    // SAFETY: the kernel reads the four bytes of `link_fd`, which is alive until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_DETACH,
            &raw const link_fd,
            size_of_val(&link_fd) as libc::c_uint,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program of a pinned link by a pinned program: each packet meets one of the two.
pub(super) fn update_link(link: &Path, program: &Path) -> io::Result<()> {
    let (link, program) = (open_pinned(link)?, open_pinned(program)?);
    let attributes = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the kernel reads `size_of::<LinkUpdate>()` bytes of `attributes`, which is alive until
    // the call returns, and takes references of its own from the two open descriptors.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_UPDATE,
            &raw const attributes,
            size_of::<LinkUpdate>() as libc::c_uint,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The part of `union bpf_attr` that `BPF_PROG_TEST_RUN` reads.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// Has an XDP program handle a frame as if it came in now, and does what the program says with it
/// (Linux 5.18); `context` is a `struct xdp_md`.
pub(super) fn run_live(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> io::Result<()> {
    const LIVE_FRAMES: u32 = 1 << 1;
    let mut attributes = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ctx_size_in: context.len() as u32,
        ctx_in: context.as_ptr() as u64,
        flags: LIVE_FRAMES,
        batch_size: 1,
        ..TestRun::default()
    };
    // SAFETY: the kernel reads and writes `size_of::<TestRun>()` bytes of `attributes`, and reads as
    // many bytes of `frame` and `context` as it is told; all are alive until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attributes,
            size_of::<TestRun>() as libc::c_uint,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The interface that a pinned link is attached to; 0 when the interface is gone.
pub(super) fn pinned_link_ifindex(path: &Path) -> io::Result<u32> {
    describe_link(path, "ifindex", "not a link of a network interface")
}

/// The inode number of the network namespace that a pinned link is attached to; 0 when the
/// namespace is gone.
pub(super) fn pinned_link_namespace(path: &Path) -> io::Result<u64> {
    describe_link(path, "netns_ino", "not a link of a network namespace")
}

fn describe_link<T: FromStr>(path: &Path, name: &str, missing: &'static str) -> io::Result<T> {
    let link = open_pinned(path)?;
    let description = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    field(&description, name).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, missing))
}

/// A number in the `name:\tvalue` lines of `/proc/…/fdinfo`.
fn field<T: FromStr>(description: &str, name: &str) -> Option<T> {
    description.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(':')?
            .trim()
            .parse()
            .ok()
    })
}

/// The kernel's name of the network namespace that a socket is of (Linux 5.14).
pub(crate) fn socket_namespace(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes as many bytes to `cookie` as `length` says at most, and four bytes to
    // `length`; both are alive until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends one Ethernet frame.
pub(super) fn send_frame(ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the kernel reads `frame.len()` bytes of `frame` and one `sockaddr_ll`, both alive
    // until the call returns, and writes to neither.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_fdinfo() {
        #[track_caller]
        fn check(description: &str, expected: Option<u32>) {
            assert_eq!(field(description, "ifindex"), expected, "{description:?}");
        }
        check(
            "pos:\t0\nlink_type:\txdp\nlink_id:\t7\nifindex:\t12\n",
            Some(12),
        );
        check("ifindex:\t0\n", Some(0));
        check("prog_id:\t3\n", None);
        check("ifindex:\tnone\n", None);
    }
}
