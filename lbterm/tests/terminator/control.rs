//! What terminator and agent say to each other.

use lbagent_api::terminator::{FromAgent, ListenerFamily, PROTOCOL_VERSION, Report, ServiceKind};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::agent::{Agent, Sockets};
use crate::client::{self, Client};
use crate::instances;
use crate::pki::Authority;
use crate::process::Lbterm;
use crate::snapshots::{group, snapshot};

const NAME: &str = "a.example.com";

#[tokio::test]
async fn it_waits_for_the_agent_and_introduces_itself() {
    let mut agent = Agent::away();
    let _lbterm = Lbterm::start_with(&agent, &["--workers", "3"]);
    agent.come();
    let (session, sockets) = agent.meet_first().await;
    assert_eq!(session.hello.protocol, PROTOCOL_VERSION);
    assert!(session.hello.software.starts_with("lbterm "));
    assert_eq!((session.hello.workers, session.hello.generation), (3, None));
    assert!(!session.hello.has_listeners);
    let of = |family| sockets.0.iter().filter(|(it, _)| *it == family).count();
    assert_eq!(of(ListenerFamily::Ipv4), 3);
    let ports: std::collections::BTreeSet<_> = sockets.addresses().into_iter().collect();
    assert!(ports.len() <= 2, "a group for each family: {ports:?}");
}

#[tokio::test]
async fn it_goes_on_without_the_agent_and_comes_back_with_its_sockets() {
    let mut agent = Agent::start();
    let _lbterm = Lbterm::start(&agent);
    let (mut session, sockets) = agent.meet_first().await;
    let authority = Authority::new();
    let client = Client::new(&authority);
    let echo = instances::echo().await;
    let address = sockets.ipv4();
    let group = group(NAME, ServiceKind::Tls, address, &[echo]);
    let mut wanted = snapshot(5, &[group], &[&authority.issue(&[NAME])]);
    session.publish(&wanted).await;
    let mut open = client.connect(address, NAME).await.unwrap();
    client::echo(&mut open, b"with the agent").await.unwrap();

    agent.go();
    drop((session, sockets));
    client::echo(&mut open, b"without the agent").await.unwrap();
    client.exchange(address, NAME).await.unwrap();

    agent.come();
    let mut session = agent.meet().await;
    assert!(session.hello.has_listeners);
    assert_eq!(session.hello.generation, Some(5));
    session.welcome(&Sockets::default()).await;
    assert_eq!(session.listeners().await.ipv4(), address);
    wanted.generation = 6;
    session.publish(&wanted).await;
    client::echo(&mut open, b"with the agent again")
        .await
        .unwrap();
    let report = session
        .report("the open connection", |report| report.connections == 1)
        .await;
    assert_eq!(report.generation, Some(6));
}

#[tokio::test]
async fn an_agent_that_refuses_or_speaks_otherwise_is_left_and_tried_again() {
    let agent = Agent::start();
    let lbterm = Lbterm::start(&agent);
    let mut session = agent.meet().await;
    let reason = "not you".to_owned();
    session.say(FromAgent::Refused { reason }).await;
    session.closed().await;
    let mut session = agent.meet().await;
    session.say(FromAgent::Drain { deadline_ms: 0 }).await;
    session.closed().await;
    let (mut session, sockets) = agent.meet_first().await;
    session.publish(&snapshot(1, &[], &[])).await;
    assert!(lbterm.log().contains("refuses this terminator: not you"));
    // Nothing is published: whoever comes is turned away at once.
    let turned_away = async {
        let mut stream = TcpStream::connect(sockets.ipv4()).await?;
        stream.read(&mut [0; 1]).await
    };
    let error = turned_away.await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let counted = |report: &Report| report.counters.get("refused_unpublished") == Some(&1);
    session.report("the refusal", counted).await;
}

#[tokio::test]
async fn both_families_are_served() {
    let agent = Agent::start();
    let _lbterm = Lbterm::start(&agent);
    let (mut session, sockets) = agent.meet_first().await;
    let authority = Authority::new();
    let echo = instances::echo().await;
    let mut group = group(NAME, ServiceKind::Tls, sockets.ipv4(), &[echo]);
    let Some(ipv6) = sockets.address(ListenerFamily::Ipv6) else {
        assert!(!std::path::Path::new("/proc/net/if_inet6").exists());
        return;
    };
    let mut service = group.services[0].clone();
    (service.vips, service.port) = (vec![ipv6.ip()], ipv6.port());
    group.services.push(service);
    session
        .publish(&snapshot(1, &[group], &[&authority.issue(&[NAME])]))
        .await;
    for address in [sockets.ipv4(), ipv6] {
        Client::new(&authority)
            .exchange(address, NAME)
            .await
            .unwrap();
    }
}
