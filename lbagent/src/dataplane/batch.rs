//! Reads a hash map in a few system calls, where one for each key and each value would take most of
//! a pass's time on a gateway with many backends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`, `include/uapi/linux/bpf.h` (Linux 5.6).
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries asked for at once by who wants all. One bucket of the kernel's table has to fit.
pub(super) const USUAL: usize = 4096;
/// No bucket of a table with as many buckets as entries is as long as this.
const LARGEST_BATCH: usize = 1 << 20;

/// The `batch` part of `union bpf_attr`.
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Entries of a map, and where the kernel goes on: at the number of a bucket.
pub(super) type Portion<K, V> = (Vec<(K, V)>, Option<u32>);

/// About so many entries of a hash map whose keys and values have these types. One that is added or removed meanwhile may be missing, or not.
pub(super) fn entries<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    count: usize,
) -> io::Result<Portion<K, V>> {
    let mut keys: Vec<K> = Vec::with_capacity(count);
    let mut values: Vec<V> = Vec::with_capacity(count);
    loop {
        let room = keys.capacity().min(values.capacity());
        let mut next = 0_u32;
        let mut attributes = LookupBatch {
            in_batch: from.as_ref().map_or(0, |from| &raw const *from as u64),
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads and writes `attributes`, reads the 4 bytes of `from`, writes
        // the 4 bytes of `next` and at most `count` keys and values, for which both vectors have
        // room: the map was found to have keys and values of these sizes when it was opened.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<LookupBatch>() as libc::c_uint,
            )
        };
        let error = (result != 0).then(io::Error::last_os_error);
        let errno = error.as_ref().and_then(io::Error::raw_os_error);
        if errno == Some(libc::ENOSPC) && room < LARGEST_BATCH {
            keys.reserve(room * 2);
            values.reserve(room * 2);
            continue;
        }
        let is_last = errno == Some(libc::ENOENT);
        if let Some(error) = error.filter(|_| !is_last) {
            return Err(error);
        }
        let count = (attributes.count as usize).min(room);
        // SAFETY: the kernel has written `count` keys and values, which fit; both are plain data.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        let found = keys.into_iter().zip(values).collect();
        return Ok((found, (!is_last).then_some(next)));
    }
}
