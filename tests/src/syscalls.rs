//! The few system calls that no safe crate wraps: offload switches, an `XDP_PASS` program, and raw
//! frames on an interface.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::mem::{size_of, size_of_val, zeroed};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// An offload that a test switches; the value is the `ethtool` command that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Offload {
    /// `ethtool -K IF tx`: off, packets leave with complete checksums, as they do on a wire.
    TxChecksum = 0x17,
    /// `ethtool -K IF txvlan`: off, frames leave with their tags in them, as they do on a wire. The
    /// command sets `rxvlan`, `rxhash`, `ntuple` and `lro` as well, and all of them off.
    TxVlan = 0x26,
    /// `ethtool -K IF gro`: on, a veth accepts frames that XDP redirects to its peer.
    Gro = 0x2c,
}

/// Switches an offload of an interface of this thread's network namespace.
pub fn set_offload(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let mut value = EthtoolValue {
        command: offload as u32,
        data: u32::from(on),
    };
    // SAFETY: an all-zero `ifreq` is a valid value: integers, byte arrays and null pointers.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let room = request.ifr_name.len();
    if interface.len() >= room {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "interface name too long",
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: `request` names a terminated interface and points at `value`, which outlives the
    // call; the kernel reads and writes 8 bytes there for these two commands.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
    Ok(())
}

/// Attaches a program that passes every frame, in native mode. A veth delivers what its peer sends
/// by `XDP_TX` only if it has a program of its own. Closing the descriptor detaches it.
pub fn attach_xdp_pass(ifindex: u32) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    const LINK_CREATE: libc::c_long = 28;
    const PROG_TYPE_XDP: u32 = 6;
    const ATTACH_XDP: u32 = 37;
    const FLAG_HAS_FRAGS: u32 = 1 << 5;
    const XDP_MODE_NATIVE: u32 = 1 << 2;
    // r0 = XDP_PASS; exit
    const PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

    #[repr(C)]
    struct ProgLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let licence = CString::new("Dual MIT/GPL")?;
    let load = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: PROGRAM.len() as u32,
        insns: PROGRAM.as_ptr() as u64,
        license: licence.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        // Without it the kernel would switch off segmentation offload at the other end.
        prog_flags: FLAG_HAS_FRAGS,
        prog_name: *b"lb_test_pass\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: ATTACH_XDP,
    };
    let program = bpf(PROG_LOAD, &load)?;
    let link = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: ATTACH_XDP,
        flags: XDP_MODE_NATIVE,
    };
    bpf(LINK_CREATE, &link)
}

/// How many TC programs are linked to an interface's ingress.
pub fn count_tc_ingress_programs(ifindex: u32) -> io::Result<u32> {
    const PROG_QUERY: libc::c_long = 16;
    const TCX_INGRESS: u32 = 46;
    #[repr(C)]
    struct ProgQuery {
        target_ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        padding: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut query = ProgQuery {
        target_ifindex: ifindex,
        attach_type: TCX_INGRESS,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        count: 0,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    let (pointer, size) = (&raw mut query, size_of::<ProgQuery>());
    // SAFETY: `query` is a live prefix of `union bpf_attr` of the size that is passed; without
    // buffers for ids the kernel writes the count only.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, pointer, size) } as libc::c_int)?;
    Ok(query.count)
}

/// Flag of an array that can be mapped into memory.
pub const MMAPABLE: u32 = 1 << 10;

/// Sets every byte of a mappable array to zero.
pub fn zero_mapped(map: BorrowedFd<'_>, entries: u32, value_size: u32) -> io::Result<()> {
    // The kernel keeps values eight bytes apart (`array_map_alloc()`).
    let length = entries as usize * value_size.next_multiple_of(8) as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses where the mapping goes, so it replaces no other.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            protection,
            libc::MAP_SHARED,
            map.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `length` bytes long, which the kernel has checked against the map.
    // Nobody else uses the map of an idle data plane.
    unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 0, length) };
    // SAFETY: the mapping is the one made above, and nothing refers to it any more.
    check(unsafe { libc::munmap(memory, length) }).map(drop)
}

/// Sets every entry of an array to zero; the value is that of all CPUs together.
pub fn zero_entries(map: BorrowedFd<'_>, entries: u32, value_size: usize) -> io::Result<()> {
    const MAP_UPDATE_BATCH: libc::c_long = 26;
    const CHUNK: u32 = 1 << 14;
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let values = vec![0u64; (CHUNK.min(entries) as usize * value_size).div_ceil(8)];
    for first in (0..entries).step_by(CHUNK as usize) {
        let keys: Vec<u32> = (first..entries.min(first + CHUNK)).collect();
        let batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        bpf_plain(MAP_UPDATE_BATCH, &batch)?;
    }
    Ok(())
}

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;

/// Of a map, for the three commands above.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    /// Or the value.
    next_key: u64,
    flags: u64,
}

impl Element {
    fn of(map: BorrowedFd<'_>, key: u64, next_key: u64) -> Self {
        Self {
            map_fd: map.as_raw_fd() as u32,
            padding: 0,
            key,
            next_key,
            flags: 0,
        }
    }
}

/// Deletes every entry of a hash map or trie.
pub fn delete_entries(map: BorrowedFd<'_>, key_size: usize) -> io::Result<()> {
    let mut found = vec![0u64; key_size.div_ceil(8)];
    let place = found.as_mut_ptr() as u64;
    loop {
        // Without a key to start from, the first one is found.
        match bpf_plain(MAP_GET_NEXT_KEY, &Element::of(map, 0, place)) {
            Ok(()) => bpf_plain(MAP_DELETE_ELEM, &Element::of(map, place, 0))?,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Entries of a hash map or trie.
pub fn count_entries(map: BorrowedFd<'_>, key_size: usize) -> io::Result<usize> {
    let mut found = vec![0u64; key_size.div_ceil(8)];
    let place = found.as_mut_ptr() as u64;
    for count in 0.. {
        let from = if count == 0 { 0 } else { place };
        match bpf_plain(MAP_GET_NEXT_KEY, &Element::of(map, from, place)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => return Err(error),
        }
    }
    unreachable!("a map has an end")
}

/// Entries of an array that are not zeros.
pub fn count_used(map: BorrowedFd<'_>, entries: u32, value_size: usize) -> io::Result<usize> {
    let mut value = vec![0u64; value_size.div_ceil(8)];
    let mut count = 0;
    for index in 0..entries {
        let key = (&raw const index) as u64;
        bpf_plain(
            MAP_LOOKUP_ELEM,
            &Element::of(map, key, value.as_mut_ptr() as u64),
        )?;
        count += usize::from(value.iter().any(|word| *word != 0));
    }
    Ok(count)
}

/// `bpf(2)` for the commands that return nothing.
fn bpf_plain<T>(command: libc::c_long, attributes: &T) -> io::Result<()> {
    let (pointer, size) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: `attributes` is a live prefix of `union bpf_attr` of the size that is passed, and the
    // pointers within refer to buffers of the caller, as long as the map's keys and values are.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) } as libc::c_int).map(drop)
}

/// `bpf(2)` for the commands that return a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let (pointer, size) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: `attributes` is a live prefix of `union bpf_attr` of the size that is passed, and the
    // pointers within refer to locals of the caller.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) };
    let fd = check(fd as libc::c_int)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends and receives whole Ethernet frames on one interface.
#[derive(Debug)]
pub struct FrameSocket {
    file: File,
}

impl FrameSocket {
    /// Opens a socket on an interface of this thread's network namespace.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        const SOL_PACKET: libc::c_int = 263;
        const PACKET_AUXDATA: libc::c_int = 8;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: `socket` takes no pointers.
        let fd = check(unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol.into(),
            )
        })?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        // SAFETY: an all-zero `sockaddr_ll` is a valid value: integers and a byte array.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex as i32;
        let length = size_of_val(&address) as u32;
        // SAFETY: `address` is live and of the length that is passed.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
        let one: libc::c_int = 1;
        let length = size_of_val(&one) as u32;
        // SAFETY: `one` is live and of the length that is passed.
        check(unsafe {
            libc::setsockopt(
                fd,
                SOL_PACKET,
                PACKET_AUXDATA,
                (&raw const one).cast(),
                length,
            )
        })?;
        Ok(Self { file })
    }

    /// Hears no frames that this host sends.
    pub fn ignore_sent(&self) -> io::Result<()> {
        const SOL_PACKET: i32 = 263;
        const PACKET_IGNORE_OUTGOING: i32 = 23;
        set_int_option(self.file.as_fd(), SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    }

    /// Sends one frame as it is.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write_all(frame)
    }

    /// The next frame, sent ones included, within `timeout`; `None` when none came. A VLAN tag that
    /// the kernel took off is put back.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        let mut wait = libc::pollfd {
            fd: self.file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `wait` is one live `pollfd`.
        let ready = check(unsafe { libc::poll(&raw mut wait, 1, timeout.as_millis() as i32) })?;
        if ready == 0 {
            Ok(None)
        } else {
            self.receive_ready().map(Some)
        }
    }

    fn receive_ready(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0u8; 70_000];
        let mut control = [0u64; 16];
        let mut part = libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        // SAFETY: an all-zero `msghdr` is a valid value: null pointers and zero lengths.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` points at `part` and `control`, both live and of the lengths given.
        let received = unsafe { libc::recvmsg(self.file.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(check(received as libc::c_int)? as usize);
        // SAFETY: `message` was filled by `recvmsg` and its control buffer is live and aligned.
        if let Some([tci, tpid]) = unsafe { vlan_tag(&message) } {
            let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
            frame.splice(12..12, tag);
        }
        Ok(frame)
    }
}

/// The tag that the kernel moved out of the frame: its TCI and TPID.
///
/// # Safety
/// `message` was filled by `recvmsg`, and its control buffer is still live.
unsafe fn vlan_tag(message: &libc::msghdr) -> Option<[u16; 2]> {
    const STATUS_VLAN_VALID: u32 = 1 << 4;
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct AuxData {
        status: u32,
        len: u32,
        snaplen: u32,
        mac: u16,
        net: u16,
        vlan_tci: u16,
        vlan_tpid: u16,
    }
    // SAFETY: the caller vouches for `message`.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return None;
    }
    // SAFETY: not null, so it lies in the control buffer with room for its data; the only control
    // message that was asked for is `PACKET_AUXDATA`.
    let data = unsafe { libc::CMSG_DATA(header).cast::<AuxData>().read_unaligned() };
    (data.status & STATUS_VLAN_VALID != 0).then_some([data.vlan_tci, data.vlan_tpid])
}

/// The interface's index in this thread's network namespace.
pub fn interface_index(name: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(name).map_err(io::Error::from)
}

/// The interface's link address in this thread's network namespace.
pub fn link_address(name: &str) -> io::Result<[u8; 6]> {
    let found = nix::ifaddrs::getifaddrs()
        .map_err(io::Error::from)?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| {
            entry
                .address
                .and_then(|address| address.as_link_addr()?.addr())
        });
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}")))
}

/// Sets an option of a socket that is a C `int`.
pub fn set_int_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: `pointer` leads to a live `int`, which is as long as `size` says.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, size) })?;
    Ok(())
}

/// Reads an option of a socket that is a C `int`.
pub fn int_option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw mut value).cast();
    // SAFETY: `pointer` leads to a live `int`, which is as long as `size` says; the kernel writes no
    // more, and how much it wrote to `size`.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, pointer, &raw mut size) })?;
    Ok(value)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
