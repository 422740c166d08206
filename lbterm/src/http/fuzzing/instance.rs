//! Bytes of an instance.

use std::cell::RefCell;

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};

use crate::upstream::chunks::{Chunks, Part};
use crate::upstream::head::{self, Extent, Head};

/// What a client is told of an answer.
#[derive(Debug, Default, PartialEq)]
struct Told {
    heads: Vec<(StatusCode, HeaderMap)>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// It came to its end, and nothing of what follows was taken.
    left: Option<Vec<u8>>,
}

/// Bytes of an instance: the same answer however they come in parts. The first byte says how large the
/// parts are.
pub fn answer(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    for method in [Method::GET, Method::HEAD] {
        let mut whole = told(&method, bytes, bytes.len());
        let mut parts = told(&method, bytes, usize::from(*size));
        if whole.left.is_none() {
            // Of what is malformed or breaks off, the body goes as far as it came before that was seen.
            let length = whole.body.len().min(parts.body.len());
            whole.body.truncate(length);
            parts.body.truncate(length);
        }
        assert_eq!(whole, parts, "{method}");
        assert!(whole.body.len() <= bytes.len());
        let mut statuses = whole.heads.iter().map(|(status, _)| *status);
        let last = statuses.next_back();
        assert!(statuses.all(|status| status.is_informational()));
        assert!(whole.left.is_none() || last.is_some_and(|it| !it.is_informational()));
    }
}

fn told(method: &Method, bytes: &[u8], size: usize) -> Told {
    let told = RefCell::new(Told::default());
    let tell = |status: StatusCode, fields: &HeaderMap| {
        told.borrow_mut().heads.push((status, fields.clone()));
    };
    let mut read = BytesMut::new();
    let mut extent: Option<Extent> = None;
    let mut chunks = Chunks::default();
    for part in bytes.chunks(size.max(1)) {
        if let Some(left) = &mut told.borrow_mut().left {
            left.extend_from_slice(part);
            continue;
        }
        read.extend_from_slice(part);
        if extent.is_none() {
            match head::parse(&mut read, method, tell) {
                Ok(Some(Head {
                    response,
                    extent: found,
                    ..
                })) => {
                    tell(response.status(), response.headers());
                    extent = Some(found);
                }
                Ok(None) => continue,
                Err(_) => break,
            }
        }
        let mut told = told.borrow_mut();
        let is_over = match extent.as_mut() {
            Some(Extent::Length(left)) => {
                let taken = usize::try_from(*left).map_or(read.len(), |it| it.min(read.len()));
                told.body.extend_from_slice(&read.split_to(taken));
                *left -= taken as u64;
                *left == 0
            }
            Some(Extent::Chunked) => match take_chunks(&mut chunks, &mut read, &mut told) {
                Some(is_over) => is_over,
                None => break,
            },
            Some(Extent::UntilClose) | None => {
                told.body.extend_from_slice(&read.split());
                false
            }
        };
        if is_over {
            told.left = Some(read.split().to_vec());
        }
    }
    told.into_inner()
}

/// Whether it is over; none, if it is malformed.
fn take_chunks(chunks: &mut Chunks, read: &mut BytesMut, told: &mut Told) -> Option<bool> {
    loop {
        match chunks.next(read).ok()? {
            None => return Some(false),
            Some(Part::Data(data)) => told.body.extend_from_slice(&data),
            Some(Part::Trailers(trailers)) => told.trailers = Some(trailers),
            Some(Part::End) => return Some(true),
        }
    }
}
