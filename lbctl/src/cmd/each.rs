//! Several objects, one request for each.

use serde::Serialize;

use crate::error::CtlError;
use crate::output::{Format, print};

/// What is printed about one of several objects.
#[derive(Serialize)]
struct Named<'a, T> {
    name: &'a str,
    #[serde(flatten)]
    what: &'a T,
}

/// Does `act` for each word and prints what came of it. What fails is a line on stderr, and keeps no
/// other from being done, unless the agent cannot be reached at all.
pub fn each<T: Serialize>(
    words: &[String],
    format: Format,
    mut act: impl FnMut(&str) -> Result<T, CtlError>,
    render: impl Fn(&str, &T) -> String,
    between: &str,
) -> Result<(), CtlError> {
    if let [word] = words {
        let done = act(word)?;
        return print(format, &done, || render(word, &done));
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let mut end = None;
    for word in words {
        match act(word) {
            Ok(what) => done.push((word, what)),
            Err(error @ (CtlError::Unreachable { .. } | CtlError::Token { .. })) => {
                end = Some(error);
                break;
            }
            Err(error) => failed.push(about(word, &error.to_string())),
        }
    }
    let named = done.iter().map(|(name, what)| Named { name, what });
    print(format, &named.collect::<Vec<_>>(), || {
        let texts = done.iter().map(|(word, what)| render(word, what));
        texts.collect::<Vec<_>>().join(between)
    })?;
    match end {
        Some(error) => Err(error),
        None if failed.is_empty() => Ok(()),
        None => Err(CtlError::Changes(failed)),
    }
}

fn about(word: &str, message: &str) -> String {
    match message.contains(word) {
        true => message.to_owned(),
        false => format!("{word}: {message}"),
    }
}
