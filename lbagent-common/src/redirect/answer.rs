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

/// A text as words, in the order of the wire, the last one filled up with zeros.
pub const fn words<const WORDS: usize>(text: &[u8]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    let mut at = text.len();
    while at > 0 {
        at -= 1;
        words[at / 8] = words[at / 8] << 8 | text[at] as u64;
    }
    let mut index = 0;
    while index < WORDS {
        words[index] = words[index].to_le();
        index += 1;
    }
    words
}
