//! Upgrades, upgrades that fail, rollbacks and crashes in between: under load, no packet is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lbagent_api::status::{DataplaneInfo, TableVip};
use lbagent_common::ABI_VERSION;
use lbagent_tests::agent::{BPFFS_DIR, CONFIG_PATH};
use lbagent_tests::gateway::Gateway;
use lbagent_tests::load::Load;
use lbagent_tests::object_file::ObjectFile;
use lbagent_tests::poll::keep_pace;
use lbagent_tests::require_root;
use lbagent_tests::topology::Shape;

const RUN: [&str; 3] = ["run", "--config", CONFIG_PATH];
const ROLLBACK: [&str; 3] = ["rollback", "--config", CONFIG_PATH];
/// An ABI version of long ago, or of the future.
const OTHER_ABI: u32 = ABI_VERSION + 7;

/// Writes an object where the agent can read it.
fn install(gateway: &Gateway, name: &str, object: &ObjectFile) -> PathBuf {
    let path = Path::new("/run").join(name);
    gateway
        .topology
        .gateway
        .run(|| fs::write(&path, &object.0))
        .unwrap();
    path
}

fn dataplane(gateway: &Gateway) -> DataplaneInfo {
    let status = gateway.agent.status().unwrap();
    status.dataplane.expect("a status of the data plane")
}

/// Names below the pin directory.
fn pins(gateway: &Gateway) -> BTreeSet<String> {
    let names = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    gateway.topology.gateway.run(|| {
        let entries = fs::read_dir(BPFFS_DIR).unwrap().map(names);
        entries
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    })
}

/// Makes the pinned data plane look as if an agent of another ABI version had left it, as far as an
/// agent can tell: its directory has another number.
fn pretend_other_abi(gateway: &Gateway) {
    gateway.topology.gateway.run(|| {
        let base = Path::new(BPFFS_DIR);
        let (own, other) = (format!("v{ABI_VERSION}"), format!("v{OTHER_ABI}"));
        if base.join(&other).exists() {
            fs::remove_dir_all(base.join(&other)).unwrap();
        }
        let active = fs::read_link(base.join("active")).unwrap();
        let programs = active.strip_prefix(&own).expect("this version is active");
        fs::rename(base.join(&own), base.join(&other)).unwrap();
        fs::remove_file(base.join("active")).unwrap();
        std::os::unix::fs::symlink(Path::new(&other).join(programs), base.join("active")).unwrap();
    });
}

/// Who owns how much of which table.
fn tables(vips: &[TableVip]) -> Vec<String> {
    let backends = |vip: &TableVip| {
        vip.backends
            .iter()
            .map(|backend| format!("{} {:?} {}", backend.name, backend.state, backend.slots))
            .collect::<Vec<_>>()
            .join(", ")
    };
    vips.iter()
        .map(|vip| {
            format!(
                "{} {:?} {}: {}",
                vip.ip,
                vip.protocol,
                vip.slots,
                backends(vip)
            )
        })
        .collect()
}

#[test]
fn upgrade_and_rollback_lose_nothing() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let load = Load::start(&gateway.topology.client).unwrap();
    let first = dataplane(&gateway);
    assert_eq!(first.active.abi_version, ABI_VERSION);
    assert_eq!(first.previous, None);

    // A restart with the same object is no upgrade.
    gateway.agent.kill().unwrap();
    load.wait_for_more().unwrap();
    gateway.agent.launch().unwrap();
    let restarted = dataplane(&gateway);
    assert_eq!(restarted.active.ingress_tag, first.active.ingress_tag);
    assert_eq!(restarted.previous, None);

    let other = ObjectFile::embedded().with_other_code().unwrap();
    let other = install(&gateway, "other", &other);
    gateway.agent.kill().unwrap();
    gateway.agent.object = Some(other.clone());
    gateway.agent.launch().unwrap();
    load.wait_for_more().unwrap();
    let upgraded = dataplane(&gateway);
    assert_eq!(upgraded.origin, other.display().to_string());
    assert_ne!(upgraded.active.ingress_tag, first.active.ingress_tag);
    assert_eq!(upgraded.active.return_tag, first.active.return_tag);
    let previous = upgraded.previous.expect("something to go back to");
    assert_eq!(previous.ingress_tag, first.active.ingress_tag);

    let refused = gateway.agent.run(&ROLLBACK).unwrap();
    assert_eq!(refused.code, 3, "{refused:#?}");
    gateway.agent.terminate().unwrap();
    let done = gateway.agent.run(&ROLLBACK).unwrap();
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(done.stdout.contains(&first.active.ingress_tag), "{done:#?}");
    assert!(done.stdout.contains("be1, be2, be3, cl0"), "{done:#?}");
    load.wait_for_more().unwrap();
    gateway.probe().unwrap();

    gateway.agent.object = None;
    gateway.agent.launch().unwrap();
    let back = dataplane(&gateway);
    assert_eq!(back.active.ingress_tag, first.active.ingress_tag);
    let previous = back.previous.expect("the upgrade can be had again");
    assert_eq!(previous.ingress_tag, upgraded.active.ingress_tag);
    println!("{:?}", load.finish().unwrap());
}

#[test]
fn an_object_that_cannot_run_leaves_the_old_one_running() {
    #[track_caller]
    fn check(gateway: &mut Gateway, load: &Load, object: &ObjectFile, words: &[&str]) {
        let path = install(gateway, "bad", object);
        gateway.agent.object = Some(path);
        let (pins_before, shown) = (pins(gateway), gateway.agent.log().unwrap().len());
        let ended = gateway.agent.run(&RUN).unwrap();
        assert_eq!(ended.code, 5, "{ended:#?}");
        for word in words {
            assert!(
                ended.stderr.contains(word),
                "{word:?} is missing in {ended:#?}"
            );
        }
        assert_eq!(pins(gateway), pins_before);
        load.wait_for_more().unwrap();
        gateway.probe().unwrap();
        // The old object takes over as if nothing had been.
        gateway.agent.object = None;
        gateway.agent.launch().unwrap();
        assert_eq!(dataplane(gateway).previous, None);
        gateway.probe().unwrap();
        let log = gateway.agent.log().unwrap()[shown..].to_owned();
        assert!(!log.contains("removing"), "{log}");
        gateway.agent.kill().unwrap();
    }
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let load = Load::start(&gateway.topology.client).unwrap();
    gateway.agent.kill().unwrap();
    let good = ObjectFile::embedded();
    let own = format!("this lbagent drives version {ABI_VERSION}");
    let cases: [(ObjectFile, &[&str]); 4] = [
        (good.clone().truncated(), &["/run/bad", "not a BPF object"]),
        (
            ObjectFile(b"ELF?".to_vec()),
            &["/run/bad", "not a BPF object"],
        ),
        (
            good.clone().with_other_abi().unwrap(),
            &["/run/bad", "ABI", &own],
        ),
        (
            good.unverifiable().unwrap(),
            &["lb_return", "verifier's last lines", "R9 !read_ok"],
        ),
    ];
    for (object, words) in &cases {
        check(&mut gateway, &load, object, words);
    }
    println!("{:?}", load.finish().unwrap());
}

#[test]
fn another_abi_version_is_replaced_and_put_back_without_loss() {
    #[track_caller]
    fn check(carried: bool) {
        let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
        let load = Load::start(&gateway.topology.client).unwrap();
        if carried {
            // Flows of b1 are now kept by the tables alone, and new flows are stored.
            gateway.stop("b1", Duration::from_secs(3600)).unwrap();
        }
        load.wait_for_more().unwrap();
        let before = gateway.agent.vips().unwrap();
        gateway.agent.kill().unwrap();
        pretend_other_abi(&gateway);
        if !carried {
            gateway.topology.gateway.run(|| {
                let layouts = format!("{BPFFS_DIR}/v{OTHER_ABI}/layouts");
                fs::remove_file(layouts).unwrap();
            });
        }
        let shown = gateway.agent.log().unwrap().len();
        gateway.agent.launch().unwrap();
        load.wait_for_more().unwrap();
        gateway.probe().unwrap();
        let log = gateway.agent.log().unwrap()[shown..].to_owned();
        assert_eq!(log.contains("written anew"), !carried, "{log}");
        let upgraded = dataplane(&gateway);
        assert_eq!(upgraded.active.abi_version, ABI_VERSION);
        let previous = upgraded.previous.expect("something to go back to");
        assert_eq!(previous.abi_version, OTHER_ABI);
        if carried {
            let after = gateway.agent.vips().unwrap();
            assert_eq!(tables(&after), tables(&before));
            for (before, after) in before.iter().zip(&after) {
                let (before, after) = (before.traffic.in_packets, after.traffic.in_packets);
                assert!(
                    0 < before && before < after,
                    "{before} packets, then {after}"
                );
            }
        }
        let both = [ABI_VERSION, OTHER_ABI].map(|version| format!("v{version}"));
        assert!(both.iter().all(|version| pins(&gateway).contains(version)));

        gateway.agent.terminate().unwrap();
        let done = gateway.agent.run(&ROLLBACK).unwrap();
        assert_eq!(done.code, 0, "{done:#?}");
        assert!(
            done.stdout.contains(&format!("ABI {OTHER_ABI}")),
            "{done:#?}"
        );
        load.wait_for_more().unwrap();
        gateway.probe().unwrap();
        // And forward again: the maps of the first try are stale by now, and made anew.
        gateway.agent.launch().unwrap();
        assert_eq!(dataplane(&gateway).active.abi_version, ABI_VERSION);
        gateway.probe().unwrap();
        println!("carried {carried}: {:?}", load.finish().unwrap());
    }
    require_root!();
    check(true);
    check(false);
}

#[test]
fn maps_that_cannot_hold_everything_are_not_attached() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let load = Load::start(&gateway.topology.client).unwrap();
    let before = gateway.agent.vips().unwrap();
    gateway.agent.kill().unwrap();
    pretend_other_abi(&gateway);
    let pinned = pins(&gateway);
    // Three backends of two families, and id 0, which is nobody's.
    let configure = |limit: u32| {
        let host = &gateway.topology.gateway;
        host.run(|| {
            let text = fs::read_to_string(CONFIG_PATH).unwrap();
            let line = text.lines().find(|line| line.starts_with("backends = "));
            let changed = text.replace(line.unwrap(), &format!("backends = {limit}"));
            fs::write(CONFIG_PATH, changed).unwrap();
        });
    };
    configure(6);
    let ended = gateway.agent.run(&RUN).unwrap();
    assert_eq!(ended.code, 5, "{ended:#?}");
    for words in ["new maps cannot hold everything", "BACKENDS", "[limits]"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:#?}");
    }
    assert_eq!(pins(&gateway), pinned);
    load.wait_for_more().unwrap();
    gateway.probe().unwrap();
    configure(7);
    gateway.agent.launch().unwrap();
    assert_eq!(tables(&gateway.agent.vips().unwrap()), tables(&before));
    println!("{:?}", load.finish().unwrap());
}

#[test]
fn killed_at_any_moment_of_a_take_over() {
    const KILLS: u32 = 24;
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let other = ObjectFile::embedded().with_other_code().unwrap();
    let other = install(&gateway, "other", &other);
    let load = Load::start(&gateway.topology.client).unwrap();
    gateway.agent.kill().unwrap();
    let started = Instant::now();
    gateway.agent.launch().unwrap();
    let whole = started.elapsed();
    gateway.agent.kill().unwrap();
    let mut reached = BTreeSet::new();
    for kill in 0..KILLS {
        // Each third start finds another ABI version, the others other programs of the same.
        let own_is_active = gateway.topology.gateway.run(|| {
            let active = fs::read_link(Path::new(BPFFS_DIR).join("active")).unwrap();
            active.starts_with(format!("v{ABI_VERSION}"))
        });
        if kill % 3 == 0 && own_is_active {
            pretend_other_abi(&gateway);
        }
        gateway.agent.object = (kill % 2 == 0).then(|| other.clone());
        let started = Instant::now();
        gateway.agent.spawn().unwrap();
        keep_pace(started, whole * kill / KILLS);
        gateway.agent.kill().unwrap();
        reached.insert(pins(&gateway).contains("staging"));
        load.wait_for_more()
            .unwrap_or_else(|error| panic!("kill {kill}: {error:#}"));
        if kill % 8 == 7 {
            let done = gateway.agent.run(&ROLLBACK).unwrap();
            assert!(matches!(done.code, 0 | 1), "{done:#?}");
            load.wait_for_more()
                .unwrap_or_else(|error| panic!("rollback after kill {kill}: {error:#}"));
        }
    }
    assert!(
        reached.contains(&true),
        "no kill fell between the first pin and the last: {whole:?}"
    );
    gateway.agent.object = None;
    gateway.agent.launch().unwrap();
    gateway.probe().unwrap();
    assert_eq!(gateway.agent.condition_reasons().unwrap(), [""; 0]);
    assert!(!pins(&gateway).contains("staging"));
    println!("{:?}", load.finish().unwrap());
}
