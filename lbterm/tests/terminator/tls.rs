//! Handshakes: certificates by name, alerts, versions, ALPN, tickets.

use std::net::SocketAddr;

use lbagent_api::terminator::{FaultyObject, ServiceKind, Snapshot, TerminatorCertificate};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, Error, ProtocolVersion};

use crate::agent::{Agent, Session, Sockets};
use crate::client::{self, Client, Handshake};
use crate::instances;
use crate::pki::{Authority, Kind};
use crate::process::Lbterm;
use crate::snapshots::{domain, group, snapshot, ticket_key};

/// A terminator, its agent, and an echo behind it.
struct World {
    agent: Agent,
    lbterm: Lbterm,
    session: Session,
    sockets: Sockets,
    address: SocketAddr,
    echo: SocketAddr,
    authority: Authority,
}

impl World {
    async fn new() -> Self {
        let agent = Agent::start();
        let lbterm = Lbterm::start(&agent);
        let (session, sockets) = agent.meet_first().await;
        Self {
            agent,
            lbterm,
            session,
            address: sockets.ipv4(),
            sockets,
            echo: instances::echo().await,
            authority: Authority::new(),
        }
    }

    /// A snapshot with a `tls` group for each list of names.
    fn snapshot(&self, names: &[&[&str]], certificates: &[&TerminatorCertificate]) -> Snapshot {
        let group = |names: &&[&str]| {
            let mut group = group(names[0], ServiceKind::Tls, self.address, &[self.echo]);
            group.domains = names.iter().map(|name| domain(name)).collect();
            group
        };
        let groups: Vec<_> = names.iter().map(group).collect();
        snapshot(1, &groups, certificates)
    }

    async fn handshake(&self, client: &Client, name: &str) -> Handshake {
        let handshake = client.exchange(self.address, name).await;
        handshake.unwrap_or_else(|error| panic!("{name}: {error}\n{}", self.lbterm.log()))
    }

    async fn alert(&self, client: &Client, name: &str) -> AlertDescription {
        let error = client.exchange(self.address, name).await.unwrap_err();
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::AlertReceived(alert)) => *alert,
            _ => panic!("{name}: {error}"),
        }
    }
}

fn der(certificate: &TerminatorCertificate) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes())
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn the_certificate_that_fits_a_name_best_is_shown() {
    let mut world = World::new().await;
    let exact = world.authority.issue(&["a.example.com"]);
    let wildcard = world.authority.issue(&["*.example.com"]);
    let bound = world.authority.issue(&["c.example.com", "*.example.org"]);
    let other = world.authority.issue(&["c.example.com"]);
    // A name that no certificate fits: clients judge what they get instead.
    let default = world.authority.issue(&["d.example.net"]);
    let mut wanted = world.snapshot(
        &[
            &["a.example.com", "b.example.com"],
            &["c.example.com", "d.example.net", "Z.example.org"],
            &["foreign.example.com"],
        ],
        &[&exact, &wildcard, &other, &bound],
    );
    wanted.groups[1].domains[0].certificate = Some(bound.uuid);
    wanted.groups[1].domains[0].alternatives.clear();
    // The agent knows whose the wildcard is.
    wanted.groups[2].domains[0].certificate = None;
    world.session.publish(&wanted).await;
    let client = Client::new(&world.authority);
    for (name, expected) in [
        ("a.example.com", &exact),
        ("b.example.com", &wildcard),
        ("c.example.com", &bound),
        ("z.example.org", &bound),
    ] {
        let handshake = world.handshake(&client, name).await;
        assert!(handshake.certificate == der(expected), "{name}");
    }
    for name in [
        // There is a certificate for it, and nobody who has it here.
        "y.example.com",
        // A wildcard stands for one label.
        "x.y.example.com",
        "example.com",
        "d.example.net",
        // What another account may have for it is not shown.
        "foreign.example.com",
    ] {
        let alert = world.alert(&client, name).await;
        assert_eq!(alert, AlertDescription::UnrecognisedName, "{name}");
    }

    wanted.generation = 2;
    wanted.default_certificate = Some(default.uuid);
    wanted.certificates.push(default.clone());
    // Only by the default can it be found now.
    wanted.certificates[4].names.clear();
    world.session.publish(&wanted).await;
    let handshake = world.handshake(&client, "d.example.net").await;
    assert!(handshake.certificate == der(&default));
    let report = world.session.report("failed handshakes", |report| {
        report.counters.get("handshake_unknown_name") == Some(&5)
    });
    assert_eq!(report.await.counters["handshakes"], 5);
}

#[tokio::test]
async fn a_client_that_names_no_server_gets_the_default_if_there_is_one() {
    let mut world = World::new().await;
    let certificate = world.authority.issue(&["a.example.com"]);
    let mut wanted = world.snapshot(&[&["a.example.com"]], &[&certificate]);
    world.session.publish(&wanted).await;
    let client = Client::new(&world.authority).without_sni();
    assert_eq!(
        world.alert(&client, "a.example.com").await,
        AlertDescription::MissingExtension
    );
    wanted.generation = 2;
    wanted.default_certificate = Some(certificate.uuid);
    world.session.publish(&wanted).await;
    let handshake = world.handshake(&client, "a.example.com").await;
    assert!(handshake.certificate == der(&certificate));
    // With a second group it is not clear any more whose bytes they are.
    let mut two = world.snapshot(&[&["a.example.com"], &["b.example.com"]], &[&certificate]);
    two.generation = 3;
    two.default_certificate = Some(certificate.uuid);
    world.session.publish(&two).await;
    assert_eq!(
        world.alert(&client, "a.example.com").await,
        AlertDescription::MissingExtension
    );
    let report = world.session.report("refusals without a name", |report| {
        report.counters.get("handshake_no_name") == Some(&2)
    });
    report.await;
}

#[tokio::test]
async fn a_name_with_both_kinds_of_keys_shows_ecdsa_to_those_who_take_it() {
    let mut world = World::new().await;
    let rsa = world.authority.issue_kind(Kind::Rsa, &["a.example.com"]);
    let ecdsa = world.authority.issue_kind(Kind::Ecdsa, &["a.example.com"]);
    world
        .session
        .publish(&world.snapshot(&[&["a.example.com"]], &[&rsa, &ecdsa]))
        .await;
    let handshake = world
        .handshake(&Client::new(&world.authority), "a.example.com")
        .await;
    assert!(handshake.certificate == der(&ecdsa));
    let handshake = world
        .handshake(&Client::rsa_only(&world.authority), "a.example.com")
        .await;
    assert!(handshake.certificate == der(&rsa));
}

#[tokio::test]
async fn versions_and_protocols_are_agreed_on() {
    let agent = Agent::start();
    let _lbterm = Lbterm::start(&agent);
    let mut session = agent.meet().await;
    let sockets = Sockets::open(2);
    session.welcome(&sockets).await;
    let [bytes, http] = sockets.addresses()[..] else {
        panic!("two sockets");
    };
    let authority = Authority::new();
    let echo = instances::echo().await;
    let certificate = authority.issue(&["a.example.com"]);
    let groups = [
        group("a.example.com", ServiceKind::Tls, bytes, &[echo]),
        group("a.example.com", ServiceKind::Https, http, &[echo]),
    ];
    session
        .publish(&snapshot(1, &groups, &[&certificate]))
        .await;
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let client = Client::version(&authority, version);
        let handshake = client.exchange(bytes, "a.example.com").await.unwrap();
        assert_eq!(handshake.version, Some(expected));
    }
    let [forwards, backwards] = [Client::new(&authority), Client::backwards(&authority)];
    let forwards = forwards.exchange(bytes, "a.example.com").await.unwrap();
    let backwards = backwards.exchange(bytes, "a.example.com").await.unwrap();
    assert_eq!(forwards.cipher, backwards.cipher, "the server chooses");
    let chosen = Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(forwards.cipher, chosen);
    for (address, offered, expected) in [
        (http, &["h2", "http/1.1"][..], Some("h2")),
        (http, &["http/1.1"], Some("http/1.1")),
        (http, &[], None),
        // What is inside is the instances' own.
        (bytes, &["h2", "http/1.1"], None),
    ] {
        let client = Client::new(&authority).alpn(offered);
        let stream = client.connect(address, "a.example.com").await.unwrap();
        assert_eq!(Handshake::of(&stream).alpn.as_deref(), expected);
    }
    let client = Client::new(&authority).alpn(&["spdy/1"]);
    let error = client.connect(http, "a.example.com").await.unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

#[tokio::test]
async fn a_snapshot_with_a_bad_certificate_is_refused_as_a_whole() {
    let mut world = World::new().await;
    let good = world.authority.issue(&["a.example.com"]);
    world
        .session
        .publish(&world.snapshot(&[&["a.example.com"]], &[&good]))
        .await;
    let other = world.authority.issue(&["b.example.com"]);
    let bad_key = TerminatorCertificate {
        key: good.key.clone(),
        ..other.clone()
    };
    let no_pem = TerminatorCertificate {
        chain: "nonsense".to_owned(),
        ..other.clone()
    };
    for (bad, reason) in [(bad_key, "cannot be used"), (no_pem, "no certificate")] {
        let mut wanted = world.snapshot(&[&["a.example.com"], &["b.example.com"]], &[&good, &bad]);
        wanted.generation = 2;
        wanted.default_certificate = Some(bad.uuid);
        let faults = world.session.offer(&wanted).await;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].object, FaultyObject::Certificate(other.uuid));
        assert!(faults[0].reason.contains(reason), "{}", faults[0].reason);
        assert!(!faults[0].reason.contains("PRIVATE"));
    }
    let mut keys = world.snapshot(&[&["a.example.com"]], &[&good]);
    keys.generation = 2;
    keys.ticket_keys[0].secret = lbagent_api::certificate::Secret::new("abc".to_owned());
    let faults = world.session.offer(&keys).await;
    assert_eq!(faults[0].object, FaultyObject::Gateway);
    assert!(!faults[0].reason.contains("abc"));
    // The former one is in force.
    let client = Client::new(&world.authority);
    world.handshake(&client, "a.example.com").await;
    let report = world
        .session
        .report("generation 1", |report| report.connections == 0)
        .await;
    assert_eq!(report.generation, Some(1));
}

#[tokio::test]
async fn certificates_change_without_a_dropped_connection() {
    let mut world = World::new().await;
    let names: &[&[&str]] = &[&["a.example.com"]];
    let old = world.authority.issue(names[0]);
    world.session.publish(&world.snapshot(names, &[&old])).await;
    let client = Client::new(&world.authority);
    let mut open = client
        .connect(world.address, "a.example.com")
        .await
        .unwrap();
    client::echo(&mut open, b"before").await.unwrap();
    let new = TerminatorCertificate {
        uuid: old.uuid,
        ..world.authority.issue(names[0])
    };
    let mut wanted = world.snapshot(names, &[&new]);
    wanted.generation = 2;
    world.session.publish(&wanted).await;
    client::echo(&mut open, b"after").await.unwrap();
    let fresh = Client::new(&world.authority);
    let handshake = world.handshake(&fresh, "a.example.com").await;
    assert!(handshake.certificate == der(&new));
    // The client from before goes on with its session, because the keys of tickets are the same.
    assert!(world.handshake(&client, "a.example.com").await.is_resumed);
    client::echo(&mut open, b"still").await.unwrap();
}

#[tokio::test]
async fn a_client_is_asked_for_another_key_exchange() {
    let mut world = World::new().await;
    let certificate = world.authority.issue(&["a.example.com"]);
    let wanted = world.snapshot(&[&["a.example.com"]], &[&certificate]);
    world.session.publish(&wanted).await;
    let client = Client::hesitant(&world.authority);
    let first = world.handshake(&client, "a.example.com").await;
    assert!(first.is_asked_again);
    assert!(world.handshake(&client, "a.example.com").await.is_resumed);
}

#[tokio::test]
async fn sessions_are_resumed_after_a_restart_until_their_key_is_gone() {
    for version in [&TLS12, &TLS13] {
        let mut world = World::new().await;
        let certificate = world.authority.issue(&["a.example.com"]);
        let mut wanted = world.snapshot(&[&["a.example.com"]], &[&certificate]);
        wanted.ticket_keys = vec![ticket_key(2), ticket_key(1)];
        world.session.publish(&wanted).await;
        let client = Client::version(&world.authority, version);
        assert!(!world.handshake(&client, "a.example.com").await.is_resumed);
        assert!(world.handshake(&client, "a.example.com").await.is_resumed);

        world.lbterm.signal(nix::sys::signal::Signal::SIGKILL);
        world.lbterm.ended().await;
        world.lbterm = Lbterm::start(&world.agent);
        world.session = world.agent.meet().await;
        world.session.welcome(&world.sockets).await;
        // A new key makes tickets; the former one still opens them.
        wanted.ticket_keys = vec![ticket_key(3), ticket_key(2)];
        world.session.publish(&wanted).await;
        assert!(world.handshake(&client, "a.example.com").await.is_resumed);

        wanted.generation = 2;
        wanted.ticket_keys = vec![ticket_key(5), ticket_key(4)];
        world.session.publish(&wanted).await;
        assert!(!world.handshake(&client, "a.example.com").await.is_resumed);

        wanted.generation = 3;
        wanted.ticket_keys.clear();
        world.session.publish(&wanted).await;
        assert!(!world.handshake(&client, "a.example.com").await.is_resumed);
        assert!(!world.handshake(&client, "a.example.com").await.is_resumed);
    }
}
