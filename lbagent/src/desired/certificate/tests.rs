use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};

use super::*;
use crate::desired::certificate::matching::covers;

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, key(&PKCS_ECDSA_P256_SHA256)).unwrap()
}

fn secret(key: &KeyPair) -> Secret {
    Secret::new(key.serialize_pem())
}

#[test]
fn each_kind_of_key_is_read_and_recognised() {
    let other = key(&PKCS_ECDSA_P256_SHA256);
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
        &PKCS_RSA_SHA256,
    ] {
        let own = key(algorithm);
        let pem = leaf(&["B.example.com", "a.example.com"])
            .self_signed(&own)
            .unwrap()
            .pem();
        let read = examine::examine(&pem, Some(&secret(&own))).unwrap();
        assert_eq!(read.names, ["a.example.com", "b.example.com"]);
        assert!(read.not_before < read.not_after);
        assert!(
            !read.serial_number.is_empty() && read.subject.contains("CN="),
            "{read:?}"
        );
        let error = examine::examine(&pem, Some(&secret(&other))).unwrap_err();
        assert_eq!(error, BadCertificate::OtherKey);
    }
}

#[test]
fn a_chain_goes_from_the_server_to_its_issuers() {
    let root = authority("root");
    let own = key(&PKCS_ECDSA_P256_SHA256);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "middle");
    let middle = CertifiedIssuer::signed_by(params, key(&PKCS_ED25519), &root).unwrap();
    // Of the same name, by another key.
    let impostor = authority("middle");
    let end = leaf(&["a.example.com"]).signed_by(&own, &middle).unwrap();
    let [end, middle, root, impostor] = [end.pem(), middle.pem(), root.pem(), impostor.pem()];
    let examine = |parts: &[&str]| examine::examine(&parts.concat(), Some(&secret(&own)));

    let read = examine(&["a comment\n", &end, "another\n", &middle, &root]).unwrap();
    assert!(!read.chain.contains("comment") && !read.chain.contains("another"));
    assert_eq!(read.chain.matches("BEGIN CERTIFICATE").count(), 3);
    assert_eq!(read.issuer, "CN=middle");
    assert!(
        examine(&[&read.chain]).is_ok(),
        "what is stored can be read"
    );

    #[track_caller]
    fn check(found: Result<Examined, BadCertificate>, expected: BadCertificate) {
        assert_eq!(found.unwrap_err(), expected);
    }
    check(
        examine(&[&end, &root]),
        BadCertificate::Order { position: 1 },
    );
    check(
        examine(&[&end, &impostor]),
        BadCertificate::Order { position: 1 },
    );
    check(
        examine(&[&end, &middle, &end]),
        BadCertificate::Order { position: 2 },
    );
    check(examine(&[&middle, &root]), BadCertificate::OtherKey);
    check(examine(&[]), BadCertificate::NoCertificate);
    check(examine(&["no PEM at all"]), BadCertificate::NoCertificate);
    check(
        examine(&[&end, &own.serialize_pem()]),
        BadCertificate::Foreign,
    );
    check(
        examine(&[&end.replacen("MII", "AAA", 1)]),
        BadCertificate::Damaged { position: 1 },
    );
    check(examine(&[&end.repeat(11)]), BadCertificate::TooMany);
    for text in ["", "no key", &end] {
        check(
            examine::examine(&end, Some(&Secret::new(text.to_owned()))),
            BadCertificate::NoKey,
        );
    }
}

#[test]
fn no_error_repeats_a_key() {
    let own = key(&PKCS_ECDSA_P256_SHA256);
    let pem = leaf(&["a.example.com"]).self_signed(&own).unwrap().pem();
    let mut damaged = own.serialize_pem();
    damaged.replace_range(60..64, "****");
    let error = examine::examine(&pem, Some(&Secret::new(damaged.clone()))).unwrap_err();
    for line in damaged.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!format!("{error:?} {error}").contains(line));
    }
}

#[test]
fn names_cover_domains() {
    for (name, fqdn, expected) in [
        ("a.example.com", "a.example.com", true),
        ("a.example.com", "b.example.com", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "*.example.com", true),
        ("*.example.com", "a.b.example.com", false),
        ("*.example.com", "example.com", false),
        ("a.example.com", "*.example.com", false),
        ("*.com", "*.example.com", false),
    ] {
        assert_eq!(covers(name, fqdn), expected, "{name} for {fqdn}");
    }
}
