//! The reader of requests for port 80 against httparse: nothing is redirected that httparse takes for
//! another request.

use lbagent_common::redirect::{Head, HostNames, Passed, Text};

/// What a fuzzer sends is a first segment.
pub fn redirect(input: &[u8]) {
    if let Ok(found) = read(input)
        && let Err(difference) = agrees(input, &found)
    {
        panic!("{difference}: {:?}", String::from_utf8_lossy(input));
    }
}

/// Host as written, target, and the names that are looked up.
pub type Read = (Vec<u8>, Vec<u8>, HostNames);

/// What the programs do, with a call a byte at most.
pub fn read(request: &[u8]) -> Result<Read, Passed> {
    let len = u32::try_from(request.len()).expect("a short input");
    if len > Text::LONGEST {
        return Err(Passed::TooLong);
    }
    let mut text = Text::of(request);
    // What an earlier and longer segment left there.
    for word in &mut text.words[request.len() / 8 + 1..] {
        *word = u64::from_ne_bytes(*b"Host: x\r");
    }
    text.end_at(len);
    let (mut head, mut names) = (Head::default(), HostNames::default());
    head.begin(&text, len, 0);
    for _ in 0..len {
        if !head.step(&text) {
            break;
        }
    }
    for index in 0..head.name_words() {
        head.name(&text, &mut names, index);
    }
    head.end()?;
    let part = |at: u32, len: u32| request[at as usize..(at + len) as usize].to_vec();
    let host = part(head.host_at(), head.host_len());
    Ok((host, part(head.target_at(), head.target_len()), names))
}

/// Whether the reference agrees that this is what a request says.
pub fn agrees(request: &[u8], (host, target, _): &Read) -> Result<(), String> {
    let mut fields = [httparse::EMPTY_HEADER; 2048];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        other => return Err(format!("the reference says {other:?}")),
    }
    if !matches!(parsed.method, Some("GET" | "HEAD")) {
        return Err(format!("the method is {:?}", parsed.method));
    }
    let has = |name: &str| {
        let mut found = parsed.headers.iter();
        found.any(|field| field.name.eq_ignore_ascii_case(name))
    };
    if has("content-length") || has("transfer-encoding") {
        return Err("there is a body".into());
    }
    let hosts: Vec<_> = parsed
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"))
        .collect();
    let [field] = hosts[..] else {
        return Err(format!("{} hosts", hosts.len()));
    };
    let value = field.value.trim_ascii();
    let name = value.strip_suffix(b":80").or(value.strip_suffix(b":"));
    if name.unwrap_or(value) != host {
        return Err("another host".into());
    }
    let path = parsed.path.unwrap_or_default().as_bytes();
    let relative = match path.strip_prefix(b"http://") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b'/');
            let end = end.ok_or("no path")?;
            if &rest[..end] != host {
                return Err("another authority".into());
            }
            &rest[end..]
        }
        None => path,
    };
    if relative != target || !relative.starts_with(b"/") {
        return Err("another target".into());
    }
    Ok(())
}
