//! The answer: prefix, host, target, suffix. The same as the terminator's, but for its date.

/// Before the host name.
pub const PREFIX: &[u8; 51] = b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://";
/// Behind the target.
pub const SUFFIX: &[u8; 42] = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// The longest answer, in bytes: within the least that every host takes in one segment (536, RFC
/// 9293, section 3.7.1), and what one call of `bpf_csum_diff` takes.
pub const LONGEST_ANSWER: u32 = 512;

/// Length of the answer, in bytes.
#[inline(always)]
pub const fn answer_len(host_len: u32, target_len: u32) -> u32 {
    (PREFIX.len() + SUFFIX.len()) as u32 + host_len + target_len
}
