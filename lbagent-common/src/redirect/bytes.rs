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

/// The highest bit of each of eight bytes.
const HIGH: u64 = 0x80 * ONES;
/// A byte in all of eight.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Marks bytes of at least `least`, by their highest bits; all have to be below 0x80, so that nothing is
/// carried from one to the next.
#[inline(always)]
const fn from(bytes: u64, least: u8) -> u64 {
    bytes + ONES * (0x80 - least as u64)
}

/// Marks bytes of a range likewise.
#[inline(always)]
const fn within(bytes: u64, least: u8, most: u8) -> u64 {
    from(bytes, least) & !from(bytes, most + 1)
}

/// Marks bytes that are this one likewise.
#[inline(always)]
const fn equal(bytes: u64, byte: u8) -> u64 {
    !((bytes ^ (ONES * byte as u64)) + ONES * 0x7f)
}

/// How many bytes there are before the first marked one: 8 where none is.
#[inline(always)]
pub const fn before(marks: u64) -> u32 {
    let first = marks & marks.wrapping_neg();
    // The lowest bits of all bytes below the mark, added up in the highest byte.
    (((first >> 7).wrapping_sub(1) & ONES).wrapping_mul(ONES) >> 56) as u32
}

/// Marks bytes that are not between space and tilde.
#[inline(always)]
pub const fn odd_in_value(bytes: u64) -> u64 {
    (bytes | !within(bytes & !HIGH, b' ', b'~')) & HIGH
}

/// Marks letters and digits among eight bytes of ASCII.
#[inline(always)]
const fn alphanumeric(ascii: u64) -> u64 {
    within(ascii | LOWER, b'a', b'z') | within(ascii, b'0', b'9')
}

/// Marks bytes that are not of the usual ones in a field's name: letters, digits and `-`.
#[inline(always)]
pub const fn odd_in_name(bytes: u64) -> u64 {
    let ascii = bytes & !HIGH;
    (bytes | !(alphanumeric(ascii) | equal(ascii, b'-'))) & HIGH
}

/// Marks bytes that are not of the usual ones in a host name: the same and dots.
#[inline(always)]
pub const fn odd_in_host(bytes: u64) -> u64 {
    let ascii = bytes & !HIGH;
    (bytes | !(alphanumeric(ascii) | within(ascii, b'-', b'.'))) & HIGH
}

/// Marks bytes that are not of the usual ones in a target: of [`URI`] all but `!`, `_` and `~`.
#[inline(always)]
pub const fn odd_in_target(bytes: u64) -> u64 {
    let ascii = bytes & !HIGH;
    let usual = within(ascii, b'$', b';')
        | within(ascii, b'?', b'Z')
        | within(ascii, b'a', b'z')
        | equal(ascii, b'=');
    (bytes | !usual) & HIGH
}

/// Eight bytes in lower case.
#[inline(always)]
pub const fn lower_case(bytes: u64) -> u64 {
    // The marks of capitals, moved to where they differ from small letters.
    bytes | (within(bytes & !HIGH, b'A', b'Z') & !bytes & HIGH) >> 2
}
