//! Sizes, alignments and offsets of the ABI. A failure here means: raise `ABI_VERSION`.

use std::mem::{align_of, offset_of, size_of};

use lbagent_common::*;

macro_rules! layout {
    ($type:ty, size $size:literal, align $align:literal, $($field:ident at $offset:literal),+ $(,)?) => {
        assert_eq!(size_of::<$type>(), $size, concat!("size of ", stringify!($type)));
        assert_eq!(align_of::<$type>(), $align, concat!("alignment of ", stringify!($type)));
        $( assert_eq!(offset_of!($type, $field), $offset,
            concat!("offset of ", stringify!($type), "::", stringify!($field))); )+
    };
}

#[test]
fn layouts_are_fixed() {
    assert_eq!(size_of::<Addr>(), 16);
    assert_eq!(align_of::<Addr>(), 4);
    assert_eq!(size_of::<Port>(), 2);
    assert_eq!(size_of::<Protocol>(), 1);
    layout!(VipKey, size 20, align 4, addr at 0, port at 16, protocol at 18);
    layout!(VipEntry, size 64, align 4, vip_id at 0, table_offset at 4, table_len at 8,
        previous_offset at 12, previous_len at 16, destination_port at 20, disposition at 22,
        forwarding_mode at 23, flags at 24, service_group at 28, policy_id at 44, changed_at at 48,
        group_tag at 52, quic_server_id_len at 56, quic_config_rotation at 57, vip_index at 58);
    layout!(HostKey, size 64, align 1, name at 0);
    layout!(HostEntry, size 16, align 8, serves at 0, redirects at 8);
    layout!(BackendEntry, size 128, align 8, addr at 0, onlink_mask at 16, link at 32,
        ifindex at 44, mtu at 48, vlan at 50, flags at 52, weight at 54, group_tag at 56,
        source at 64, instance at 80);
    layout!(Slot, size 8, align 8, current at 0);
    layout!(ConnEntry, size 16, align 8, backend at 8, last_seen at 12);
    layout!(ConnBucket, size 64, align 8, ways at 0);
    layout!(FragmentKey, size 40, align 4, source at 0, destination at 16, identification at 32,
        protocol at 36);
    layout!(FragmentEntry, size 56, align 4, source at 0, destination at 16, backend_id at 32,
        vip_id at 36, seen at 40, flags at 44, source_port at 48, destination_port at 50,
        protocol at 52);
    layout!(HeldFragment, size 2104, align 8, time_ns at 0, key at 8, ifindex at 48, len at 52,
        frame at 56);
    layout!(SourceKey, size 24, align 4, prefix_len at 0, addr at 8);
    layout!(SourceEntry, size 4, align 4, verdict at 0);
    layout!(QuicServerKey, size 20, align 4, policy_id at 0, len at 4, id at 5);
    layout!(AnswerBudget, size 8, align 4, tick at 0, used at 4);
    layout!(NatFlowKey, size 40, align 4, backend at 0, peer at 16, backend_port at 32,
        peer_port at 34, protocol at 36);
    layout!(NatFlowEntry, size 48, align 4, client at 0, vip at 16, client_port at 32,
        vip_port at 34, vip_id at 36, backend_id at 40, last_seen at 44);
    layout!(ReturnKey, size 20, align 4, backend at 0, port at 16, protocol at 18);
    layout!(ReturnEntry, size 48, align 4, vip at 0, source at 16, vip_id at 32,
        backend_id at 36, vip_port at 40, flags at 42);
    layout!(Settings, size 80, align 8, hash_seed at 0, abi_version at 8, unpublished at 12,
        udp_idle_ticks at 16, source_port_first at 20, source_port_count at 22,
        next_hops_until at 24, conn_mask at 28, answers_per_tick at 32, sample_shift at 36,
        conn_idle_ticks at 40, sample_until at 44, sample_outcomes at 48, unsteered at 56,
        shield_mode at 60, cookies_until at 64, shield_per_tick at 72);
    layout!(FlowEvent, size 72, align 8, time_ns at 0, source at 8, destination at 24,
        source_port at 40, destination_port at 42, outcome at 44, bytes at 48, ifindex at 52,
        vip_id at 56, backend_id at 60, protocol at 64);
    layout!(EventDraft, size 88, align 8, event at 0, lost at 72, is_sampled at 80);
    layout!(PacketCounter, size 16, align 8, packets at 0, bytes at 8);
    layout!(TrafficCounter, size 40, align 8, flows at 0, in_packets at 8, in_bytes at 16,
        out_packets at 24, out_bytes at 32);
    layout!(decap::DecapSettings, size 16, align 4, abi_version at 0, modes at 4, gue_port at 8,
        mss_v4 at 10, mss_v6 at 12, host at 14);
}

#[test]
fn addresses_keep_their_family_and_bytes() {
    for text in [
        "192.0.2.1",
        "0.0.0.0",
        "255.255.255.255",
        "2001:db8::1",
        "::",
        "fe80::1",
    ] {
        let address: std::net::IpAddr = text.parse().unwrap();
        let mapped = Addr::from(address);
        assert_eq!(std::net::IpAddr::from(mapped), address);
        assert_eq!(mapped.is_v4(), address.is_ipv4(), "{text}");
    }
}

#[test]
fn prefixes_are_compared_bit_by_bit() {
    let addr = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
    for (a, b, prefix, expected) in [
        ("10.0.1.7", "10.0.1.200", 96 + 24, true),
        ("10.0.1.7", "10.0.2.7", 96 + 24, false),
        ("10.0.1.7", "10.0.1.6", 96 + 31, true),
        ("10.0.1.7", "10.0.1.6", 128, false),
        ("10.0.1.7", "10.0.1.7", 128, true),
        ("2001:db8::1", "2001:db8::2", 64, true),
        ("2001:db8:0:1::1", "2001:db8::1", 64, false),
        ("2001:db8:0:1::1", "2001:db8::1", 63, true),
        ("2001:db8::1", "10.0.0.1", 96, false),
        ("2001:db8::1", "10.0.0.1", 0, true),
    ] {
        assert_eq!(
            addr(a).agrees(&addr(b), &Addr::mask(prefix)),
            expected,
            "{a} {b} /{prefix}"
        );
    }
}

#[test]
fn outcomes_are_dense_and_named_once() {
    let mut labels = std::collections::BTreeSet::new();
    for (index, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(*outcome as usize, index);
        assert_eq!(Outcome::from_index(index as u32), Some(*outcome));
        assert!(labels.insert(outcome.label()), "{} twice", outcome.label());
    }
    assert_eq!(Outcome::from_index(Outcome::COUNT), None);
}

#[test]
fn ends_of_steering_are_dense_and_named_once() {
    let labels: std::collections::BTreeSet<_> = Steered::ALL.map(Steered::label).into();
    assert_eq!(labels.len(), Steered::ALL.len());
    for (index, end) in Steered::ALL.into_iter().enumerate() {
        assert_eq!(end as usize, index);
    }
    assert_eq!([TERMINATOR_V4, TERMINATOR_V6], [0, 1]);
    assert_eq!(limits::MAX_TERMINATORS, 2);
}

#[test]
fn hash_is_the_same_everywhere() {
    let client = Addr::from("198.51.100.7".parse::<std::net::IpAddr>().unwrap());
    let hash = |seed| {
        hash::flow_hash(
            seed,
            &client,
            Port::new(40_000),
            Port::new(5432),
            Protocol::TCP,
        )
    };
    assert_ne!(hash(1), hash(2));
    assert_eq!(hash(1), hash(1));
    for len in LADDER {
        assert!(hash::slot_index(u64::MAX, len) < len);
        assert_eq!(hash::slot_index(0, len), 0);
    }
}

#[test]
fn a_stored_flow_is_found_by_its_tag_and_a_mixture_of_two_is_not() {
    let (one, other) = (
        ConnEntry::new(0xdead_beef_0000_0001, 7, 3),
        ConnEntry::new(5, 9, 4),
    );
    assert_eq!(
        (one.tag(), one.backend, one.tick()),
        (0xdead_beef_0000_0001, 7, 3)
    );
    let mut mixture = one;
    mixture.backend = other.backend;
    assert_ne!(mixture.tag(), one.tag());
    assert_ne!(mixture.tag(), other.tag());
    let mut established = one;
    established.last_seen |= ConnEntry::ESTABLISHED;
    assert!(established.is_established() && !one.is_established());
    assert_eq!((established.tag(), established.tick()), (one.tag(), 3));
    // The upper half stays the hash's own: user space tells the slot from it.
    assert_eq!(conn_tag(0x1234_5678_0000_0000, 77) >> 32, 0x1234_5678);
}

#[test]
fn slots_survive_a_word_and_tell_changed_from_settled() {
    for (slot, previous, settled) in [
        (Slot::default(), 0, true),
        (Slot::settled(7), 7, true),
        (Slot::changed(7, 8), 8, false),
        (Slot::changed(7, 7), 7, false),
        (Slot::changed(0, 0), 0, false),
    ] {
        assert_eq!(Slot::from_word(slot.to_word()), slot);
        // SAFETY: both types are eight bytes of integers.
        let memory: u64 = unsafe { std::mem::transmute(slot) };
        assert_eq!(
            slot.to_word(),
            memory,
            "the word is the slot as it lies in memory"
        );
        assert_eq!(
            (slot.previous(), slot.is_settled()),
            (previous, settled),
            "{slot:?}"
        );
    }
}

#[test]
fn tables_have_a_hundred_slots_a_backend_up_to_the_largest() {
    assert_eq!(table_len(0), 509);
    assert_eq!(table_len(5), 509);
    assert_eq!(table_len(6), 1021);
    assert_eq!(table_len(655), 65537);
    assert_eq!(table_len(100_000), 65537);
}

#[test]
fn objects_tell_what_they_are() {
    assert_eq!(size_of::<ObjectInfo>(), 36);
    let info = ObjectInfo::new("1.2.3-rc.1");
    assert_eq!(
        (info.abi_version(), info.version()),
        (ABI_VERSION, "1.2.3-rc.1")
    );
    let long = ObjectInfo::new("0123456789012345678901234567");
    assert_eq!(long.version(), "012345678901234567890123");

    let mut section = b"lbagent\0".to_vec();
    section.extend_from_slice(&7_u32.to_le_bytes());
    section.extend_from_slice(b"0.9\0");
    section.resize(36, 0);
    let read = ObjectInfo::parse(&section).unwrap();
    assert_eq!((read.abi_version(), read.version()), (7, "0.9"));
    assert_eq!(ObjectInfo::parse(&section[..35]), None);
    section[0] = b'x';
    assert_eq!(ObjectInfo::parse(&section), None);
}

#[test]
fn no_layout_is_newer_than_the_abi() {
    for map in limits::ALL_MAPS {
        assert!((2..=ABI_VERSION).contains(&layout_since(map)), "{map}");
    }
}
