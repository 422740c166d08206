//! The lines after the last chunk of a body, as hyper reads them: each ends with CR LF and with nothing
//! less, whatever else it holds, and an empty one ends them all.

use super::{Lengths, State};

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Trailers {
    /// A line, or the CR of the empty one.
    #[default]
    Start,
    /// The rest of a line.
    Line,
    /// The LF of a line.
    LineEnd,
    /// The LF of the empty line.
    End,
}

impl Trailers {
    /// Takes bytes, of which there is one at least; returns what comes then, and what is left.
    pub(super) fn read(self, bytes: &[u8]) -> (State, &[u8]) {
        if let Self::Line = self {
            return match memchr::memchr(b'\r', bytes) {
                Some(end) => (State::Trailers(Self::LineEnd), &bytes[end + 1..]),
                None => (State::Trailers(self), &[]),
            };
        }
        let next = match (self, bytes[0]) {
            (Self::Start, b'\r') => State::Trailers(Self::End),
            (Self::Start, _) => State::Trailers(Self::Line),
            (Self::LineEnd, b'\n') => State::Trailers(Self::Start),
            (Self::End, b'\n') => State::Head(Lengths::default()),
            _ => State::Beyond,
        };
        (next, &bytes[1..])
    }
}
