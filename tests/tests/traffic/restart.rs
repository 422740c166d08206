//! The data plane outlives the agent: killed, stopped, started again.

use std::net::SocketAddr;
use std::time::Duration;

use lbagent_tests::client::{Connection, Transport};
use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIP6, VIPS};
use lbagent_tests::transfer::{Direction, LONG, Transfer};

#[test]
fn a_transfer_survives_kill_and_restart() {
    #[track_caller]
    fn check(gateway: &mut Gateway, direction: Direction) {
        let to = SocketAddr::new(VIP4, PORT);
        let pace = Duration::from_secs(5);
        let client = gateway.topology.client.clone();
        let transfer = Transfer::start(&client, to, direction, LONG, pace).unwrap();
        transfer.wait_for(0.2).unwrap();
        gateway.agent.kill().unwrap();
        gateway
            .probe()
            .expect("new connections while the agent is dead");
        gateway.agent.launch().unwrap();
        transfer.ensure_running().unwrap();
        gateway.probe().expect("new connections after the restart");
        transfer.finish().unwrap();
    }
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    check(&mut gateway, Direction::Download);
    check(&mut gateway, Direction::Upload);
}

#[test]
fn connections_keep_their_backends_over_restarts() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Bridged, 3).unwrap();
    let client = gateway.topology.client.clone();
    let open = |vip| Connection::open(&client, SocketAddr::new(vip, PORT)).unwrap();
    let mut connections: Vec<_> = (0..20).flat_map(|_| VIPS.map(open)).collect();
    for connection in &mut connections {
        connection.command("echo").unwrap();
    }
    let mut check = |what: &str| {
        for connection in &mut connections {
            connection
                .echo(what)
                .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
    };
    gateway.agent.kill().unwrap();
    check("killed");
    gateway.agent.launch().unwrap();
    check("restarted after kill");
    let status = gateway.agent.terminate().unwrap();
    assert!(status.success(), "SIGTERM ended the agent with {status}");
    check("terminated");
    gateway
        .probe()
        .expect("SIGTERM leaves the data plane forwarding");
    gateway.agent.launch().unwrap();
    check("restarted after SIGTERM");
}

#[test]
fn a_restart_changes_nothing() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    gateway.stop("b3", Duration::from_secs(3600)).unwrap();
    gateway.spread(Transport::Tcp, VIP6, 20).unwrap();
    gateway.wait_until_quiet().unwrap();
    let are_known = || {
        let vips = gateway.agent.vips().unwrap();
        let mut rows = vips.iter().flat_map(|vip| &vip.backends);
        rows.all(|row| row.next_hop.is_some())
    };
    poll_until("every next hop to be known", SOON, are_known).unwrap();
    let before = gateway.agent.vips().unwrap();
    gateway.agent.kill().unwrap();
    let written = gateway.agent.log().unwrap().len();
    gateway.agent.launch().unwrap();
    // Equal in every row: ids, slots, states, and counters, which a rewritten entry would lose.
    assert_eq!(before, gateway.agent.vips().unwrap());
    let log = gateway.agent.log().unwrap()[written..].to_owned();
    let steps: Vec<&str> = log.lines().filter(|line| line.contains("steps=")).collect();
    assert!(!steps.is_empty(), "the log tells of no pass:\n{log}");
    assert!(
        steps.iter().all(|line| line.contains("steps=0")),
        "{steps:#?}"
    );
}

#[test]
fn what_changed_meanwhile_is_put_right() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    // The agent dies while b1 drains; the deadline passes without it.
    gateway.stop("b1", Duration::from_millis(300)).unwrap();
    gateway.agent.kill().unwrap();
    gateway.probe().unwrap();
    gateway.agent.launch().unwrap();
    let spread = gateway.spread(Transport::Udp, VIP4, 60).unwrap();
    assert_eq!(spread.into_keys().collect::<Vec<_>>(), ["b2", "b3"]);
    poll_until("b1 to stop", SOON, || {
        let data = gateway
            .agent
            .call("GET", "/v1/instances?name=b1", None)
            .unwrap();
        data["instances"][0]["state"] == "stopped"
    })
    .unwrap();
}
