//! What bytes may be, one by one and eight at once, the first one lowest.

/// Bytes that a URI may have in its path and query (RFC 3986, appendix A).
pub const URI: u8 = 1;
/// Bytes of a token (RFC 9110, section 5.6.2).
pub const TOKEN: u8 = 2;
/// Visible ASCII, space and tab: bytes of a field value.
pub const VALUE: u8 = 4;
/// Bytes of a host name.
pub const HOST: u8 = 8;
/// The same but for dots.
pub const LABEL: u8 = 16;

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
            if b != b'.' {
                class |= LABEL;
            }
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
    // Twice, because a shift by 64 is none.
    bytes & !(u64::MAX << (4 * count) << (4 * count))
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

/// How many of the first `most` bytes of eight are of a class, up to the first one that is not.
#[inline(always)]
pub fn run(bytes: u64, most: u32, class: u8) -> u32 {
    let mut count = 0;
    while count < most && CLASSES[(bytes >> (8 * (count & 7)) & 0xff) as usize] & class != 0 {
        count += 1;
    }
    count
}

/// Eight bytes of ASCII in lower case.
#[inline(always)]
pub const fn lower_case(bytes: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let from_a = bytes + ONES * (0x80 - b'A' as u64);
    let behind_z = bytes + ONES * (0x80 - b'Z' as u64 - 1);
    // The highest bits of capitals, moved to where they differ from small letters.
    bytes | (from_a & !behind_z & (ONES << 7)) >> 2
}
