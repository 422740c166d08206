//! What reading heads of requests and of answers has in common.

use std::cell::RefCell;
use std::ops::Range;

use bytes::BytesMut;
use http::HeaderMap;

/// Most maps that are kept.
const MAX_SPARE: usize = 64;

/// Bytes that have memory of their own.
const LONG: usize = 1 << 10;

/// Bytes that share one piece of memory, which is there as long as one of them is.
const ROOM: usize = 4 << 10;

thread_local! {
    /// Memory of former heads' fields, so that those of the next cost no allocation.
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
    /// Room for what is read next.
    static NEXT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A copy of what was read: of a few short ones in turn there is one allocation.
pub fn keep(read: &[u8]) -> BytesMut {
    if read.len() >= LONG {
        return BytesMut::from(read);
    }
    NEXT.with_borrow_mut(|next| {
        if next.capacity() < read.len() {
            *next = BytesMut::with_capacity(ROOM);
        }
        next.extend_from_slice(read);
        next.split()
    })
}

/// Fields without any so far.
pub fn fields() -> HeaderMap {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of fields that are no longer needed.
pub fn give_back(mut fields: HeaderMap) {
    fields.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE {
            spare.push(fields);
        }
    });
}

/// Where a part of `whole` is in it.
pub fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// A number of decimal digits alone (RFC 9110, section 8.6).
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
