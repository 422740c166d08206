//! Errors follow the flows that they are about, and are no packets of theirs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lbagent::desired::Transport;
use lbagent_tests::packet_builder::{Segment, icmp, tcp, udp};
use lbagent_tests::prog_run::Side;
use lbagent_tests::require_root;

use super::{REST, families, rig};

/// A flow whose slot changed hands: its errors go where it goes, and leave no trace.
#[test]
fn errors_follow_a_flow_of_a_changed_slot() {
    require_root!();
    let mut rig = rig();
    let group = *rig.desired.service_groups.keys().next().unwrap();
    rig.instance("b", group, &["10.66.0.12", "fd66::12"])
        .unwrap();
    rig.reconcile().unwrap();
    for family in families() {
        let (vip, _) = family.service(Transport::Tcp);
        let mut owners = BTreeMap::<String, u32>::new();
        for port in 20_000..20_064 {
            let client = SocketAddr::new(family.client.ip(), port);
            let quoted = tcp(vip, client, Segment::Ack, b"")[14..].to_vec();
            let error = icmp((family.router, vip.ip()), family.errors[0], REST, &quoted);
            // As of a flow from before the change; had it been stored, a SYN would be the same flow's.
            let ran = rig.run(Side::Client, &error).unwrap();
            assert_eq!(ran.backend.as_deref(), Some("a"), "port {port}");
            let syn = rig
                .run(Side::Client, &tcp(client, vip, Segment::Syn, b""))
                .unwrap();
            let owner = syn.backend.unwrap();
            let ran = rig.run(Side::Client, &error).unwrap();
            assert_eq!(ran.backend.as_ref(), Some(&owner), "port {port}");
            *owners.entry(owner).or_default() += 1;
        }
        assert_eq!(owners.len(), 2, "no slot changed hands: {owners:?}");
    }
}

/// An error is no packet of the flow: a UDP flow that starts after it is new.
#[test]
fn an_error_starts_no_udp_flow() {
    require_root!();
    let mut rig = rig();
    let [family, _] = families();
    let (vip, client) = (family.service(Transport::Udp).0, family.client);
    let quoted = udp(vip, client, b"answer")[14..].to_vec();
    let error = icmp((family.router, vip.ip()), [3, 3], REST, &quoted);
    rig.run(Side::Client, &error).unwrap();
    assert_eq!(rig.backends().unwrap()["a"].flows, 0);
    rig.run(Side::Client, &udp(client, vip, b"query")).unwrap();
    assert_eq!(rig.backends().unwrap()["a"].flows, 1);
}
