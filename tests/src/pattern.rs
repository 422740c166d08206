//! Bytes that tell where they belong, so that a transfer shows what it lost, moved or changed.

use anyhow::{Result, ensure};

/// Bytes that are made and checked at a time.
pub const CHUNK: usize = 64 * 1024;

/// A stream of a given length in which every 8 bytes depend on their offset.
#[derive(Clone, Debug)]
pub struct Pattern {
    offset: u64,
    length: u64,
}

impl Pattern {
    /// The stream from its start.
    pub fn new(length: u64) -> Self {
        Self { offset: 0, length }
    }

    /// Length of the next chunk; 0 at the end.
    pub fn next_len(&self) -> usize {
        (self.length - self.offset).min(CHUNK as u64) as usize
    }

    /// Writes the next chunk and returns its length; 0 at the end.
    pub fn fill(&mut self, chunk: &mut [u8]) -> usize {
        let length = self.next_len();
        write_words(self.offset, &mut chunk[..length]);
        self.offset += length as u64;
        length
    }

    /// Compares a whole chunk with the one that should come next.
    pub fn check(&mut self, chunk: &[u8]) -> Result<()> {
        let mut expected = [0; CHUNK];
        let expected = &mut expected[..chunk.len()];
        write_words(self.offset, expected);
        let wrong = expected
            .iter()
            .zip(chunk)
            .position(|(expected, found)| expected != found);
        ensure!(
            wrong.is_none(),
            "byte {} is wrong",
            self.offset + wrong.unwrap_or(0) as u64
        );
        self.offset += chunk.len() as u64;
        Ok(())
    }
}

fn write_words(offset: u64, chunk: &mut [u8]) {
    for (index, word) in chunk.chunks_mut(8).enumerate() {
        // An odd multiplier makes every word of the stream differ from every other.
        let value = (offset / 8 + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Pattern};

    #[test]
    fn every_change_is_found() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Vec<u8>), intact: bool) {
            let mut bytes = vec![0; CHUNK];
            Pattern::new(u64::MAX).fill(&mut bytes);
            change(&mut bytes);
            assert_eq!(Pattern::new(u64::MAX).check(&bytes).is_ok(), intact);
        }
        check(|_| {}, true);
        check(|bytes| bytes[CHUNK - 1] ^= 1, false);
        check(|bytes| bytes.rotate_left(8), false);
        check(|bytes| bytes.swap(9, 17), false);
    }
}
