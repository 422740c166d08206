//! What bytes may be, one by one and eight at once, the first one lowest.

/// Bytes that a URI may have in its path and query (RFC 3986, appendix A).
pub const URI: u8 = 1;
/// Bytes of a token (RFC 9110, section 5.6.2).
pub const TOKEN: u8 = 2;
/// Visible ASCII, space and tab: bytes of a field value.
pub const VALUE: u8 = 4;
/// Bytes of a host name.
pub const HOST: u8 = 8;

/// What a byte may be part of.
pub static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') {
            class |= HOST;
        }
        if class & HOST != 0
            || matches!(b, b'~' | b'%' | b':' | b'@' | b'/' | b'?')
            || matches!(
                b,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            )
        {
            class |= URI;
        }
        if b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
            || matches!(b, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if b == b'\t' || (b >= b' ' && b < 0x7f) {
            class |= VALUE;
        }
        classes[byte] = class;
        byte += 1;
    }
    classes
}

/// The end of a line.
pub const CRLF: u64 = u16::from_le_bytes(*b"\r\n") as u64;
/// Makes upper case letters lower, in eight bytes at once.
pub const LOWER: u64 = 0x2020_2020_2020_2020;

/// The first `count` of eight bytes.
#[inline(always)]
pub const fn first(count: u32, bytes: u64) -> u64 {
    bytes & (u64::MAX >> (64 - 8 * count))
}

/// Eight bytes of text as the reader sees them, shorter texts filled with zeros.
pub const fn eight(text: &[u8]) -> u64 {
    let mut word = 0;
    let mut at = text.len();
    while at > 0 {
        at -= 1;
        word = word << 8 | text[at] as u64;
    }
    word
}

/// Whether all of eight bytes are between space and tilde.
#[inline(always)]
pub const fn is_plain(bytes: u64) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const ONES: u64 = 0x0101_0101_0101_0101;
    // No byte of at least 0x80, none below 0x20, none of 0x7f: the last two show in the highest bits
    // of sums, which carry nothing from byte to byte while the first holds.
    let spaces = (bytes & !HIGH) + ONES * (0x80 - 0x20);
    let deletes = (bytes & !HIGH) + ONES;
    (bytes | !spaces | deletes) & HIGH == 0
}
