//! The reader of requests against a reference: whatever it takes for a request that may be redirected,
//! httparse takes for the same request.

#[path = "../../tests/fuzz/src/redirect.rs"]
mod against;
#[path = "../../tests/fuzz/src/drive.rs"]
mod drive;

use lbagent_common::HostKey;
use lbagent_common::redirect::{LONGEST_ANSWER, Passed, answer_len};
use proptest::prelude::*;

use self::against::{agrees, read};

/// Words as the key that they are.
fn key(words: [u64; 8]) -> HostKey {
    let mut key = HostKey::default();
    for (bytes, word) in key.name.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    key
}

#[track_caller]
fn check(request: &str, expected: Result<(&str, &str), Passed>) {
    let read = read(request.as_bytes());
    let read = read.map(|(host, target, names)| {
        assert_eq!(
            Some(key(names.exact)),
            HostKey::of(&String::from_utf8_lossy(&host)),
            "the name of {request:?}"
        );
        (
            String::from_utf8(host).unwrap(),
            String::from_utf8(target).unwrap(),
        )
    });
    let read = match &read {
        Ok((host, target)) => Ok((&**host, &**target)),
        Err(reason) => Err(*reason),
    };
    assert_eq!(read, expected, "{request:?}");
}

#[test]
fn what_is_read() {
    check(
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        Ok(("a.example", "/")),
    );
    check(
        "HEAD /x?y=%20 HTTP/1.0\r\nhOsT:a\r\n\r\n",
        Ok(("a", "/x?y=%20")),
    );
    check(
        "GET / HTTP/1.1\r\nHost: A.example.:80 \t\r\nx: y\r\n\r\n",
        Ok(("A.example.", "/")),
    );
    check(
        "GET http://a.example/b HTTP/1.1\r\nAccept: */*\r\nHost: a.example\r\n\r\n",
        Ok(("a.example", "/b")),
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n",
        Ok(("a", "/")),
    );
    check("GET / HTTP/1.1\r\nHost: a\r\n", Err(Passed::Segmented));
    check("GET / HTTP/1.1\r\nHost: a\r\n\r", Err(Passed::Segmented));
    check("GET / HTTP/1.1\r\nHost: .a\r\n\r\n", Err(Passed::OddHost));
}

#[test]
fn names_are_looked_up_under_their_wildcard_too() {
    let wildcard = |host: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        key(read(request.as_bytes()).unwrap().2.wildcard)
    };
    let named = |name| HostKey::of(name).unwrap();
    assert_eq!(wildcard("WWW.Shop.example"), named("*.shop.example"));
    assert_eq!(wildcard("www.shop.example."), named("*.shop.example"));
    assert_eq!(wildcard("a.b.c"), named("*.b.c"));
    assert_eq!(wildcard("abcdefgh.b"), named("*.b"));
    for host in ["localhost", "localhost."] {
        assert_eq!(wildcard(host), HostKey::default(), "{host}");
    }
}

#[test]
fn names_as_long_as_a_key_fit_and_longer_ones_do_not() {
    let request = |len: usize, end: &str| {
        let host = "a".repeat(len);
        read(format!("GET / HTTP/1.1\r\nHost: {host}{end}\r\n\r\n").as_bytes())
    };
    let (host, _, names) = request(HostKey::MAX_LEN, "").unwrap();
    assert_eq!(key(names.exact).name[..], host[..]);
    assert_eq!(request(HostKey::MAX_LEN, "."), Err(Passed::TooLong));
    assert_eq!(request(HostKey::MAX_LEN + 1, ""), Err(Passed::TooLong));
}

#[test]
fn answers_are_as_long_as_they_may_be() {
    let request = |len: usize| {
        let target = "/".repeat(len);
        read(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
    };
    let most = (LONGEST_ANSWER - answer_len(1, 0)) as usize;
    assert_eq!(request(most).unwrap().1.len(), most);
    assert_eq!(request(most + 1), Err(Passed::TooLong));
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET ",
        "HEAD ",
        "POST ",
        "GET  ",
        "/",
        "*",
        "http://",
        "http://a.example",
        "https://a.example/",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        " HTTP/2.0\r\n",
        " HTTP/1.1\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "Host: a.example\r\n",
        "Host:a.example\r\n",
        "host: A.EXAMPLE.\r\n",
        "Host: a.example:80\r\n",
        "Host: a.example:8\r\n",
        "Host : a.example\r\n",
        " Host: b\r\n",
        "Host: [::1]\r\n",
        "Host:\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Accept: */*\r\n",
        "X: a\r\n b\r\n",
        "User-Agent: some thing that is longer than a word (of eight)\r\n",
        "\r\n\r\n",
        "Connection: close\r\n",
        "\0",
        "%00",
        "\u{e4}",
        "a.example",
        ":",
        "@",
        "#",
        "?",
        "Hos",
        "t: a\r\n",
    ]);
    prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

/// Requests with a few bytes changed, doubled or taken out.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    const REQUESTS: [&str; 4] = [
        "GET /path?query=1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
        "HEAD / HTTP/1.0\r\nAccept: text/html;q=0.9\r\nhOST:\t A.example.:80 \r\n\r\n",
        "GET http://a.example/x HTTP/1.1\r\nX-Long: 0123456789abcdefghijklmnopqrstuvwxyz\r\nHost: a.example\r\n\r\n",
        "GET /%41/~b/;c=d HTTP/1.1\r\nHost: www.a.example\r\nCookie: a=b; c=d\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..5u8);
    let changes = prop::collection::vec(change, 0..4);
    (prop::sample::select(REQUESTS.to_vec()), changes).prop_map(|(request, changes)| {
        let mut request = request.as_bytes().to_vec();
        for (place, byte, kind) in changes {
            let at = place.index(request.len());
            match kind {
                0 => request[at] = byte,
                1 => request.insert(at, byte),
                2 => request.insert(at, request[at]),
                3 => drop(request.remove(at)),
                _ => request[at] = b"\r\n \t:/.0aH"[usize::from(byte) % 10],
            }
        }
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn the_reference_reads_pieces_alike(pieces in prop::collection::vec(piece(), 0..12)) {
        let request = pieces.concat();
        if let Ok(read) = read(&request) {
            prop_assert_eq!(agrees(&request, &read), Ok(()));
        }
    }

    #[test]
    fn the_reference_reads_damaged_requests_alike(request in damaged()) {
        if let Ok(read) = read(&request) {
            prop_assert_eq!(agrees(&request, &read), Ok(()));
        }
    }

    /// All but bytes of a URI ends the target, so that nothing else can be in the answer.
    #[test]
    fn targets_are_made_of_uri_bytes(target in prop::collection::vec(any::<u8>(), 0..24)) {
        let request = [b"GET /", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let is_uri = target.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(byte)
        });
        match read(&request) {
            Ok((_, read, _)) => prop_assert!(is_uri && read[1..] == target[..]),
            // A space and the rest of a request may be within the target.
            Err(_) => prop_assert!(!is_uri),
        }
    }
}

#[test]
fn the_fuzz_target_stands_its_seeds() {
    drive::drive("redirect", against::redirect);
}
