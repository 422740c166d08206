//! Host names of port 80: where each is served, and where its clients are sent to HTTPS.

use lbagent_api::service_group::Handler;
use lbagent_common::{HostEntry, HostKey};
use proptest::prelude::*;

use super::*;
use crate::desired::Service;
use crate::plan::Link;
use crate::plan::testing::changes::{Change, NAMES, change_of_anything, make};

const HTTP: [Handler; 1] = [Handler::Http];
const REDIRECT: [Handler; 2] = [Handler::Http, Handler::Redirect];

/// Two VIPs and a terminator that takes connections to both.
fn gateway() -> World {
    let mut world = World::new(&[v4(250), v6(250)]);
    world.terminator = Terminator { v4: true, v6: true };
    world
}

/// A group with a name and port 80.
fn add(world: &mut World, group: u8, name: &str, handlers: &[Handler]) {
    world.add_group(group, &[(80, 443)]);
    let services = &mut of(world, group).services;
    services[0].handlers = handlers.to_vec();
    world.name(group, name);
}

fn of(world: &mut World, group: u8) -> &mut crate::desired::ServiceGroup {
    let groups = &mut world.desired.service_groups;
    groups.get_mut(&group_uuid(group)).expect("a group")
}

fn host(world: &World, name: &str) -> Option<HostEntry> {
    let key = HostKey::of(name).expect("short enough");
    world.dataplane.hosts.get(&key).copied()
}

const fn on(serves: u64, redirects: u64) -> Option<HostEntry> {
    Some(HostEntry { serves, redirects })
}

fn flags(world: &World, vip: IpAddr, port: u16) -> u32 {
    world.dataplane.vips[&key(vip, port)].flags
}

#[test]
fn names_say_where_they_are_served_and_ports_that_somebody_looks() {
    let mut world = gateway();
    add(&mut world, 1, "*.shop.example", &REDIRECT);
    add(&mut world, 2, "Plain.Shop.example", &HTTP);
    of(&mut world, 2).services[0].ip = Some(v6(250));
    world.converge();
    // The IPv4 address is the first one.
    assert_eq!(host(&world, "*.shop.example"), on(0b11, 0b11));
    assert_eq!(host(&world, "plain.shop.example"), on(0b10, 0));
    let redirect = VipEntry::FLAG_REDIRECT | VipEntry::FLAG_SHIELD;
    assert_eq!(flags(&world, v4(250), 80), redirect);
    assert_eq!(world.dataplane.vips[&key(v6(250), 80)].bit(), 0b10);

    world.desired.remove_group(group_uuid(1));
    assert_eq!(kinds(&world.converge()), ["-host", "+vip", "-vip"]);
    assert_eq!(flags(&world, v6(250), 80), VipEntry::FLAG_SHIELD);
}

#[test]
fn a_terminator_that_leaves_takes_the_flags_and_no_names() {
    let mut world = gateway();
    add(&mut world, 1, "a.example", &REDIRECT);
    world.converge();
    world.terminator.v4 = false;
    assert_eq!(kinds(&world.converge()), ["+vip"]);
    assert_eq!(
        world.dataplane.vips[&key(v4(250), 80)],
        VipEntry::TERMINATED
    );
    world.terminator.v4 = true;
    assert_eq!(kinds(&world.converge()), ["+vip"]);
}

#[test]
fn what_is_switched_off_leaves_nothing() {
    let mut world = gateway();
    add(&mut world, 1, "a.example", &REDIRECT);
    world.gateway.redirect_at_nic = false;
    world.converge();
    assert_eq!(flags(&world, v4(250), 80), VipEntry::FLAG_SHIELD);
    assert!(world.dataplane.hosts.is_empty());
    world.gateway.syn_shield = SynShield::Off;
    world.converge();
    assert_eq!(
        world.dataplane.vips[&key(v4(250), 80)],
        VipEntry::TERMINATED
    );
    assert_eq!(world.dataplane.settings.shield_mode, Settings::SHIELD_OFF);
}

#[test]
fn where_https_has_another_port_the_terminator_redirects() {
    let mut world = gateway();
    add(&mut world, 1, "a.example", &REDIRECT);
    let https = Service {
        port: 8443,
        handlers: vec![Handler::Tls, Handler::Http],
        ip: Some(v4(250)),
        ..of(&mut world, 1).services[0].clone()
    };
    of(&mut world, 1).services.push(https.clone());
    world.converge();
    assert_eq!(host(&world, "a.example"), on(0b11, 0));
    of(&mut world, 1)
        .services
        .push(Service { port: 443, ..https });
    world.converge();
    assert_eq!(host(&world, "a.example"), on(0b11, 0b11));
}

#[test]
fn names_without_port_80_or_that_are_too_long_are_left_out() {
    let mut world = gateway();
    let long = format!("{}.example", "x".repeat(57));
    add(&mut world, 1, &long, &REDIRECT);
    world.add_group(2, &[(443, 443)]);
    of(&mut world, 2).services[0].handlers = vec![Handler::Tls];
    world.name(2, "b.example");
    world.converge();
    assert!(world.dataplane.hosts.is_empty());
    // The longest that fits.
    world.name(1, &long[1..]);
    world.converge();
    assert_eq!(world.dataplane.hosts.len(), 1);
}

#[test]
fn a_vip_keeps_its_bit() {
    let mut world = gateway();
    add(&mut world, 1, "a.example", &REDIRECT);
    world.converge();
    // A VIP that comes before the others, and one that goes.
    world.gateway.vips = [v4(1), v6(250)].into();
    world.converge();
    let bit = |world: &World, vip| world.dataplane.vips[&key(vip, 80)].bit();
    assert_eq!((bit(&world, v4(1)), bit(&world, v6(250))), (0b01, 0b10));
    world.gateway.vips = (0..70).map(v4).chain([v6(250)]).collect();
    let plan = world.converge();
    assert_eq!(bit(&world, v6(250)), 0b10);
    let left: Vec<_> = reasons(&plan).into_iter().map(|(_, code)| code).collect();
    assert_eq!(left, ["redirect_at_terminator"; 71 - 64]);
    let entry = host(&world, "a.example").expect("an entry");
    assert_eq!(entry.redirects, u64::MAX);
    let flagged = world.dataplane.vips.values();
    let flagged = flagged.filter(|entry| entry.flags & VipEntry::FLAG_REDIRECT != 0);
    assert_eq!(flagged.count(), 64);
}

#[test]
fn too_many_names_leave_all_redirects_to_the_terminator() {
    let mut world = gateway();
    world.dataplane.capacity.hosts = 2;
    add(&mut world, 1, "*.example", &REDIRECT);
    add(&mut world, 2, "plain.example", &HTTP);
    world.converge();
    assert_eq!(world.dataplane.hosts.len(), 2);
    world.name(2, "other.example");
    let plan = world.converge();
    assert_eq!(reasons(&plan), [(Object::Gateway, "map_full")]);
    // One that is missing below the wildcard would be redirected.
    assert!(world.dataplane.hosts.is_empty());
    assert_eq!(flags(&world, v4(250), 80), VipEntry::FLAG_SHIELD);
    world.desired.remove_group(group_uuid(1));
    assert_eq!(reasons(&world.converge()), []);
}

#[test]
fn damaged_entries_are_put_right() {
    let mut world = gateway();
    add(&mut world, 1, "a.example", &REDIRECT);
    world.converge();
    let whole = world.dataplane.hosts.clone();
    let stray = HostKey::of("stray.example").expect("short");
    let entry = whole.values().next().copied().expect("an entry");
    world.dataplane.hosts.insert(stray, entry);
    let key = HostKey::of("a.example").expect("short");
    world.dataplane.hosts.insert(key, HostEntry::default());
    assert_eq!(kinds(&world.converge()), ["-host", "+host"]);
    assert_eq!(world.dataplane.hosts, whole);
}

#[test]
fn a_group_that_redirects_says_so_beside_sharing_the_port() {
    let mut world = gateway();
    add(&mut world, 1, "a.example", &REDIRECT);
    let links = crate::plan::links(
        &world.desired,
        &world.gateway,
        group_uuid(1),
        std::iter::empty::<&crate::desired::Instance>(),
    );
    assert!(links.contains(&Link::Redirected(key(v4(250), 80))));
    assert!(links.contains(&Link::Terminated(key(v4(250), 80))));
}

/// What the programs do: the name itself, else the wildcard one label above it.
fn redirects(world: &World, vip: IpAddr, name: &str) -> bool {
    let Some(entry) = world.dataplane.vips.get(&key(vip, 80)) else {
        return false;
    };
    let serves = |found: &Option<HostEntry>| found.is_some_and(|it| it.serves & entry.bit() != 0);
    let parent = name.split_once('.').map_or(name, |(_, parent)| parent);
    let found = Some(host(world, name))
        .filter(serves)
        .unwrap_or_else(|| host(world, &format!("*.{parent}")));
    entry.flags & VipEntry::FLAG_REDIRECT != 0
        && found.is_some_and(|found| found.redirects & entry.bit() != 0)
}

/// What the terminator does: the group with the name itself, else with the longest wildcard.
fn is_sent_to_https(world: &World, vip: IpAddr, name: &str) -> bool {
    let group_of = |name: &str| {
        let mut groups = world.desired.service_groups.values();
        groups.find_map(|group| {
            let has_name = group.domains.iter().any(|domain| domain.fqdn == name);
            let services = group.placed();
            let mut services = services.iter().filter(|service| {
                service.port == 80 && !service.is_raw() && service.protocol == Transport::Tcp
            });
            let service = services.find(|service| service.ip.is_none_or(|ip| ip == vip))?;
            has_name.then(|| service.handlers.contains(&Handler::Redirect))
        })
    };
    let parents = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
    group_of(name).unwrap_or_else(|| {
        let mut wildcards = parents.map(|(_, parent)| format!("*.{parent}"));
        wildcards
            .find_map(|wildcard| group_of(&wildcard))
            .unwrap_or(false)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nobody_is_sent_to_https_whom_the_terminator_would_not_send(
        history in prop::collection::vec(change_of_anything(), 1..40)
    ) {
        let mut world = gateway();
        for change in history {
            if !matches!(change, Change::Vips(_)) {
                make(&mut world, change);
            }
            world.apply();
            for vip in [v4(250), v6(250)] {
                let names = NAMES.iter().filter(|name| !name.starts_with('*'));
                for name in names.copied().chain(["x.a.example", "x.example", "x.y.a.example"]) {
                    if redirects(&world, vip, name) {
                        prop_assert!(is_sent_to_https(&world, vip, name), "{name} {vip}");
                    }
                }
            }
        }
    }
}
