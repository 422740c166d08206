//! The head of an answer as text, and how the body after it is marked out: byte by byte what hyper
//! makes of them. Pure.

use std::cell::RefCell;
use std::io::Write;
use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode, response};
use httpdate::HttpDate;
use hyper::ext::ReasonPhrase;

use crate::heads::decimal;
use crate::http::write_line;

/// What is known of a body before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Known(u64),
    /// Perhaps what the head says.
    Unknown,
}

/// How what follows the head is marked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// By its length.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// An answer whose length is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

/// Which answers have a body and a length, by their status and by what was asked (RFC 9112, section
/// 6.3).
#[derive(Clone, Copy, Debug)]
struct Kind {
    is_head: bool,
    has_no_length: bool,
}

impl Kind {
    fn has_body(self) -> bool {
        !self.is_head && !self.has_no_length
    }
}

/// Writes the head of an answer, to a HEAD or to anything else, and says how its body is to be
/// written.
pub fn write(
    parts: &response::Parts,
    body: Body,
    is_head: bool,
    text: &mut Vec<u8>,
) -> Result<Extent, Unfit> {
    let headers = &parts.headers;
    let kind = Kind {
        is_head,
        has_no_length: matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ),
    };
    let (mut extent, mut has_date) = (None, false);
    write_status(parts, text);
    for (name, value) in headers {
        match *name {
            header::CONTENT_LENGTH if extent.is_none() => {
                extent = length(headers, body, kind)?;
                if extent.is_some() {
                    write_line(text, name, value);
                }
            }
            // Said once, and never by what an instance said of its connection.
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING => {}
            header::TRAILER if !kind.has_body() => {}
            header::TRAILER | header::CONNECTION => write_joined(headers, name, value, text),
            _ => {
                has_date |= name == header::DATE;
                write_line(text, name, value);
            }
        }
    }
    let extent = extent.unwrap_or_else(|| write_extent(body, kind, text));
    if !has_date {
        write_date(text);
    }
    text.extend_from_slice(b"\r\n");
    match kind.has_body() {
        true => Ok(extent),
        false => Ok(Extent::Length(0)),
    }
}

fn write_status(parts: &response::Parts, text: &mut Vec<u8>) {
    let reason = parts.extensions.get::<ReasonPhrase>();
    if parts.status == StatusCode::OK && reason.is_none() {
        text.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(parts.status.as_str().as_bytes());
    text.push(b' ');
    let usual = parts.status.canonical_reason().unwrap_or("<none>");
    text.extend_from_slice(reason.map_or(usual.as_bytes(), ReasonPhrase::as_bytes));
    text.extend_from_slice(b"\r\n");
}

/// What a `Content-Length` that is there means; none if it is not to be sent.
fn length(headers: &HeaderMap, body: Body, kind: Kind) -> Result<Option<Extent>, Unfit> {
    match body {
        // Of what would have come.
        Body::None if kind.is_head => Ok(Some(Extent::Length(0))),
        Body::None => Ok(None),
        Body::Known(length) => Ok(Some(Extent::Length(length))),
        Body::Unknown => {
            let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
            let mut lengths = lengths.by_ref().map(|value| decimal(value.as_bytes()));
            let first = lengths.next().flatten().ok_or(Unfit)?;
            match lengths.all(|length| length == Some(first)) {
                true => Ok(Some(Extent::Length(first))),
                false => Err(Unfit),
            }
        }
    }
}

/// Says how far the body goes, where the head does not.
fn write_extent(body: Body, kind: Kind, text: &mut Vec<u8>) -> Extent {
    match body {
        Body::Unknown => {
            if kind.has_body() {
                text.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            Extent::Chunked
        }
        Body::None | Body::Known(0) => {
            if kind.has_body() {
                text.extend_from_slice(b"content-length: 0\r\n");
            }
            Extent::Length(0)
        }
        Body::Known(length) => {
            if !kind.has_no_length {
                // Writing to memory does not fail.
                let _ = write!(text, "content-length: {length}\r\n");
            }
            Extent::Length(length)
        }
    }
}

/// All values of a field as one line, at the first of them.
fn write_joined(headers: &HeaderMap, name: &HeaderName, value: &HeaderValue, text: &mut Vec<u8>) {
    let mut values = headers.get_all(name).iter();
    if !values
        .next()
        .is_some_and(|first| std::ptr::eq(first, value))
    {
        return;
    }
    text.extend_from_slice(name.as_str().as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value.as_bytes());
    for value in values {
        text.extend_from_slice(b", ");
        text.extend_from_slice(value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
}

/// RFC 9110, section 6.6.1: the line is made once a second.
fn write_date(text: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH);
    let second = second.map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, line)| {
        if *last != second || line.is_empty() {
            *last = second;
            *line = format!("date: {}\r\n", HttpDate::from(now));
        }
        text.extend_from_slice(line.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    /// The head of an answer with these fields, without its date.
    #[track_caller]
    fn check(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: Body,
        is_head: bool,
        expected: Result<(&str, Extent), Unfit>,
    ) {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        let mut text = Vec::new();
        let found = write(&parts, body, is_head, &mut text).map(|extent| {
            let text = String::from_utf8(text).unwrap();
            let lines = text.split_inclusive("\r\n");
            let kept = lines.filter(|line| !line.starts_with("date: "));
            (kept.collect::<String>().replace("\r\n", "|"), extent)
        });
        let expected = expected.map(|(text, extent)| (text.to_owned(), extent));
        assert_eq!(found, expected, "{status} {fields:?} {body:?}");
    }

    #[test]
    fn bodies_are_marked_out() {
        let length = ("content-length", "3");
        let ok = "HTTP/1.1 200 OK|";
        let none = Extent::Length(0);
        for (body, is_head, line, extent) in [
            (Body::None, false, "content-length: 0|", none),
            (Body::Known(0), false, "content-length: 0|", none),
            (
                Body::Known(7),
                false,
                "content-length: 7|",
                Extent::Length(7),
            ),
            (
                Body::Unknown,
                false,
                "transfer-encoding: chunked|",
                Extent::Chunked,
            ),
            (Body::None, true, "", none),
            (Body::Known(7), true, "content-length: 7|", none),
            (Body::Unknown, true, "", none),
        ] {
            check(
                200,
                &[],
                body,
                is_head,
                Ok((&format!("{ok}{line}|"), extent)),
            );
        }
        let said = format!("{ok}content-length: 3||");
        check(
            200,
            &[length],
            Body::Known(3),
            false,
            Ok((&said, Extent::Length(3))),
        );
        check(
            200,
            &[length],
            Body::Unknown,
            false,
            Ok((&said, Extent::Length(3))),
        );
        check(
            200,
            &[length, length],
            Body::Unknown,
            false,
            Ok((&said, Extent::Length(3))),
        );
        check(200, &[length], Body::None, true, Ok((&said, none)));
        let empty = format!("{ok}content-length: 0||");
        check(200, &[length], Body::None, false, Ok((&empty, none)));
        check(
            204,
            &[length],
            Body::None,
            false,
            Ok(("HTTP/1.1 204 No Content||", none)),
        );
        check(
            304,
            &[],
            Body::Unknown,
            false,
            Ok(("HTTP/1.1 304 Not Modified||", none)),
        );
        let other = ("content-length", "4");
        check(200, &[length, other], Body::Unknown, false, Err(Unfit));
        check(
            200,
            &[("content-length", "x")],
            Body::Unknown,
            false,
            Err(Unfit),
        );
    }

    #[test]
    fn fields_are_written_in_their_order() {
        check(
            299,
            &[
                ("x", "1"),
                ("trailer", "a"),
                ("x", "2"),
                ("transfer-encoding", "gzip"),
                ("trailer", "b"),
                ("y", "3"),
                ("connection", "close"),
            ],
            Body::None,
            false,
            Ok((
                "HTTP/1.1 299 <none>|x: 1|x: 2|trailer: a, b|y: 3|connection: close|content-length: 0||",
                Extent::Length(0),
            )),
        );
    }

    #[test]
    fn a_date_is_added_where_there_is_none() {
        let mut text = Vec::new();
        write_date(&mut text);
        let line = String::from_utf8(text).unwrap();
        let date = line
            .strip_prefix("date: ")
            .and_then(|it| it.strip_suffix("\r\n"));
        let date = httpdate::parse_http_date(date.unwrap()).unwrap();
        let age = SystemTime::now().duration_since(date).unwrap();
        assert!(age.as_secs() < 60, "{line}");
        let (mut parts, ()) = Response::new(()).into_parts();
        parts
            .headers
            .insert("date", HeaderValue::from_static("then"));
        let mut text = Vec::new();
        assert!(write(&parts, Body::None, false, &mut text).is_ok());
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\ndate: then\r\ncontent-length: 0\r\n\r\n"
        );
    }
}
