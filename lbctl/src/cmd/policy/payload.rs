//! Bytes of a health check as an operator writes them.

use lbagent_api::health::Payload;

/// Text with `\r`, `\n`, `\t`, `\\` and `\xHH` (one byte in hexadecimal).
pub fn parse_bytes(text: &str) -> Result<Payload, String> {
    let wrong = || "expected text with \\r, \\n, \\t, \\\\ and \\xHH".to_owned();
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escape, tail) = rest.split_first().ok_or_else(wrong)?;
        rest = tail;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'\\' => b'\\',
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2).ok_or_else(wrong)?;
                rest = tail;
                let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            _ => return Err(wrong()),
        });
    }
    Payload::new(bytes).map_err(|error| error.to_string())
}
