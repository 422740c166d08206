//! `lbctl certificate`, and certificates in files, against the real daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lbagent_tests::require_root;

use crate::desk::Desk;

/// Writes `NAME.pem` and `NAME.key`, and returns the key's lines.
fn make(desk: &Desk, name: &str, domains: &[&str]) -> Vec<String> {
    let domains: Vec<String> = domains.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(domains).unwrap();
    desk.write(&format!("{name}.pem"), &made.cert.pem());
    let key = made.signing_key.serialize_pem();
    desk.write(&format!("{name}.key"), &key);
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    lines.map(str::to_owned).collect()
}

#[test]
fn certificates_are_stored_rotated_and_removed() {
    require_root!();
    let desk = Desk::new();
    let mut keys = make(&desk, "old", &["www.example.com", "example.com"]);
    keys.extend(make(&desk, "new", &["www.example.com"]));
    keys.extend(make(&desk, "other", &["other.example.com"]));
    let run = |line: &str, code: i32| {
        let (ended, stdout, stderr) = desk.run(line);
        let said = stdout + &stderr;
        assert_eq!(ended, code, "lbctl {line}: {said}");
        for line in &keys {
            assert!(!said.contains(line.as_str()), "a key is told: {said}");
        }
        said
    };
    let made = run(
        "certificate create -n www --chain old.pem --pkey old.key",
        0,
    );
    assert!(made.contains("common name:    www.example.com"), "{made}");
    let serial = run("cert ls -f serial_number --no-headers", 0);

    run(
        "service create -n web 443:8080/tls+http -d www.example.com",
        0,
    );
    let listed = run("certs ls", 0);
    assert!(listed.contains("www   www.example.com  valid"), "{listed}");
    assert!(listed.trim_end().ends_with("web"), "{listed}");
    let used = run("cert rm www", 1);
    assert!(
        used.contains("is used by service group 'web'; create its successor"),
        "{used}"
    );

    run("cert rotate www --chain new.pem --pkey new.key", 0);
    assert_ne!(run("cert ls -f serial_number --no-headers", 0), serial);
    for (line, told) in [
        (
            "cert rotate www --chain new.pem --pkey old.key",
            "not that of the chain's first",
        ),
        (
            "cert create --chain new.key --pkey new.pem",
            "holds no certificate",
        ),
        (
            "cert create --chain no.pem --pkey new.key",
            "cannot read 'no.pem'",
        ),
        ("cert create --chain - --pkey -", "stdin holds one of both"),
        (
            "cert create -n a--b --chain new.pem --pkey new.key",
            "Invalid name 'a--b'",
        ),
    ] {
        let said = run(line, 2);
        assert!(said.contains(told), "lbctl {line}: {said}");
    }
    for (line, told) in [
        (
            "cert create --cn a.net --chain new.pem --pkey new.key",
            "not for 'a.net'",
        ),
        (
            "cert create -n www --chain new.pem --pkey new.key",
            "already exists",
        ),
        (
            "cert rotate wwww --chain new.pem --pkey new.key",
            "did you mean 'www'?",
        ),
        ("cert get wwww", "did you mean 'www'?"),
    ] {
        let said = run(line, 1);
        assert!(said.contains(told), "lbctl {line}: {said}");
    }
    for format in ["json", "yaml", "kv", "raw", "wide", "quiet"] {
        run(&format!("cert ls -o {format}"), 0);
        run(&format!("cert get www -o {format}"), 0);
    }
    run("service rm web", 0);
    assert_eq!(run("cert rm www", 0), "www removed\n");
}

const SHOP: &str = "\
kind: ServiceGroup
name: shop
services: [443:8080/tls+http]
domains: [{name: shop.example.com, certificate: shop}, www.example.com]
---
kind: Certificate
name: shop
chain_file: keys/shop.pem
pkey_file: keys/shop.key
";

#[test]
fn certificates_are_applied() {
    require_root!();
    let desk = Desk::new();
    fs::create_dir(desk.path("keys")).unwrap();
    let mut keys = make(&desk, "keys/shop", &["shop.example.com", "www.example.com"]);
    desk.write("shop.yaml", SHOP);
    assert_eq!(
        desk.check("check -f shop.yaml", 0),
        "2 objects, nothing wrong\n"
    );
    let difference = desk.check("diff -f shop.yaml", 1);
    assert!(difference.contains("\n+serial_number: "), "{difference}");
    let applied = "certificate shop created\nservice shop created\n";
    assert_eq!(desk.check("apply -f shop.yaml", 0), applied);
    assert_eq!(desk.check("diff -f shop.yaml --prune", 0), "");
    let uuid = desk.check("cert ls -f uuid --no-headers", 0);

    // Another certificate takes the first one's place, and its users stay.
    keys.extend(make(&desk, "keys/shop", &["shop.example.com"]));
    let difference = desk.check("diff -f shop.yaml", 1);
    assert!(
        !keys.iter().any(|line| difference.contains(line.as_str())),
        "{difference}"
    );
    let applied = desk.check("apply -f shop.yaml", 0);
    assert_eq!(
        applied,
        "certificate shop changed\nservice shop unchanged\n"
    );
    assert_eq!(desk.check("cert ls -f uuid --no-headers", 0), uuid);
    assert_eq!(desk.check("diff -f shop.yaml", 0), "");
    let group = desk.check("service get shop -o yaml", 0);
    assert!(group.contains("certificate: shop\n"), "{group}");

    // What is saved holds no key, and says so; an agent that has the key takes the certificate back.
    let (code, _, stderr) = desk.run("save state.json");
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("1 certificate saved without private keys"),
        "{stderr}"
    );
    let state = fs::read_to_string(desk.path("state.json")).unwrap();
    assert!(
        !keys.iter().any(|line| state.contains(line.as_str())),
        "{state}"
    );
    desk.check("service rm shop", 0);
    desk.check("restore state.json --yes", 0);
    assert_eq!(desk.check("diff -f shop.yaml --prune", 0), "");

    // With its key a certificate comes back to an agent that has none, and nobody else can read it.
    desk.write("secret.json", "");
    let public = fs::Permissions::from_mode(0o644);
    fs::set_permissions(desk.path("secret.json"), public).unwrap();
    let (code, stdout, stderr) = desk.run("save --private-keys secret.json");
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    let written = desk.path("secret.json");
    let mode = fs::metadata(&written).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(written).unwrap()).unwrap();
    let saved = secret["certificates"][0]["private_key"].as_str().unwrap();
    let key = fs::read_to_string(desk.path("keys/shop.key")).unwrap();
    assert_eq!(saved.trim(), key.trim());
    desk.check("service rm shop", 0);
    desk.check("cert rm shop", 0);
    let (code, _, stderr) = desk.run("restore state.json --yes");
    assert_ne!(code, 0, "{stderr}");
    assert!(
        stderr.contains("no private keys of these certificates"),
        "{stderr}"
    );
    let (code, shown, stderr) = desk.run("restore secret.json --yes");
    assert_eq!(code, 0, "{stderr}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert_eq!(desk.check("cert ls -f uuid --no-headers", 0), uuid);
    assert_eq!(desk.check("diff -f shop.yaml --prune", 0), "");

    // Groups go before the certificates that they use.
    desk.write(
        "none.yaml",
        "kind: Certificate\nname: last\nchain_file: keys/shop.pem\npkey_file: keys/shop.key\n",
    );
    desk.check("service rm shop", 0);
    let applied = desk.check("apply -f none.yaml --prune --yes", 0);
    assert_eq!(
        applied,
        "certificate last created\ncertificate shop pruned\n"
    );
}
