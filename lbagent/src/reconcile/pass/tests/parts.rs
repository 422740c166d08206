//! A pass over everything in parts does what one at once does, whatever changes between the parts.

use lbagent_common::{
    BackendEntry, HostEntry, HostKey, Port, Protocol, ReturnEntry, ReturnKey, Slot, VipEntry,
    VipKey,
};

use super::*;
use crate::dataplane::{Region, RuleKey};
use crate::plan::{previous_region, table_region};

/// The parts that walk over the maps alone.
const PORTIONS: usize = 5;

impl Twins {
    /// Does one part.
    fn part(&mut self) -> Done {
        let (memory, outcome) = self.pass(Scope::Part).run(&mut self.world.dataplane);
        self.memory = memory;
        outcome.expect("readable")
    }

    /// Does parts until everything was looked at; returns how many.
    fn sweep(&mut self) -> usize {
        let last = (1..1000).find(|_| self.part().coverage == Coverage::Everything);
        last.expect("ends")
    }

    fn sweep_whole(&mut self) {
        let (_, outcome) = self.pass(Scope::Everything).run(&mut self.whole);
        outcome.expect("readable");
    }

    /// Changes something behind the agents' backs.
    fn damage(&mut self, damage: &Damage) {
        damage.to(&mut self.world.dataplane);
        damage.to(&mut self.whole);
    }

    /// Lets so many windows pass in which no flow sends.
    fn rest(&mut self, windows: u32) {
        let ticks = windows * (self.world.gateway.settle_after_ticks() + 1);
        self.world.dataplane.tick += ticks;
        self.whole.tick += ticks;
    }

    /// A plan of everything finds nothing left to do.
    fn assert_converged(&self) {
        let mut maps = self.world.dataplane.clone();
        let mut pass = self.pass(Scope::Everything);
        pass.memory.known = None;
        let (_, outcome) = pass.run(&mut maps);
        assert_eq!(outcome.expect("readable").plan.steps, []);
    }
}

/// What others may do to the maps.
#[derive(Clone, Debug)]
enum Damage {
    NoVip(usize),
    NoReturn(usize),
    Backend(usize),
    NoBackend(usize),
    NoHost(usize),
    Slot(usize),
    ForeignVip,
    ForeignReturn,
    ForeignBackend,
    ForeignHost,
    NoRules,
    Settings,
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let at = 0..8_usize;
        prop_oneof![
            1 => at.clone().prop_map(Self::NoVip),
            1 => at.clone().prop_map(Self::NoReturn),
            1 => at.clone().prop_map(Self::Backend),
            1 => at.clone().prop_map(Self::NoBackend),
            1 => at.clone().prop_map(Self::NoHost),
            4 => at.prop_map(Self::Slot),
            1 => Just(Self::ForeignVip),
            1 => Just(Self::ForeignReturn),
            1 => Just(Self::ForeignBackend),
            1 => Just(Self::ForeignHost),
            1 => Just(Self::NoRules),
            1 => Just(Self::Settings),
        ]
    }

    fn to(&self, maps: &mut FakeDataplane) {
        let port = Port::new(9_999);
        match *self {
            Self::NoVip(at) => remove(&mut maps.vips, at),
            Self::NoReturn(at) => remove(&mut maps.returns, at),
            Self::NoBackend(at) => remove(&mut maps.backends, at),
            Self::NoHost(at) => remove(&mut maps.hosts, at),
            Self::Backend(at) => {
                if let Some(entry) = maps.backends.values_mut().nth(at) {
                    entry.ifindex += 1;
                }
            }
            Self::Slot(at) => {
                let regions = maps.vips.values().filter_map(table_region);
                if let Some(region) = regions.cycle().nth(at).filter(|_| !maps.vips.is_empty()) {
                    maps.slots[region.offset as usize] = Slot::default();
                }
            }
            Self::ForeignVip => {
                let key = VipKey::new(v4(250).into(), port, Protocol::TCP);
                maps.vips.insert(key, VipEntry::default());
            }
            Self::ForeignReturn => {
                let key = ReturnKey::new(v4(1).into(), port, Protocol::TCP);
                maps.returns.insert(key, ReturnEntry::default());
            }
            Self::ForeignBackend => {
                let id = maps.capacity.backends - 1;
                let flags = BackendEntry::FLAG_ALIVE;
                let foreign = BackendEntry {
                    flags,
                    ..BackendEntry::default()
                };
                maps.backends.insert(id, foreign);
            }
            Self::ForeignHost => {
                let key = HostKey::of("nobody.example").expect("short");
                maps.hosts.insert(key, HostEntry::default());
            }
            Self::NoRules => maps.rules.clear(),
            Self::Settings => maps.settings.hash_seed += 1,
        }
    }
}

fn remove<K: Ord + Copy, V>(map: &mut BTreeMap<K, V>, at: usize) {
    if let Some(key) = map.keys().nth(at).copied() {
        map.remove(&key);
    }
}

type Tables = [Option<Vec<Slot>>; 2];

/// What programs make of the maps: which regions the tables are in is nothing to them.
#[derive(Debug, PartialEq)]
struct Meaning {
    settings: lbagent_common::Settings,
    vips: Vec<(VipKey, VipEntry, Tables)>,
    backends: BTreeMap<u32, BackendEntry>,
    returns: BTreeMap<ReturnKey, ReturnEntry>,
    rules: BTreeMap<RuleKey, u32>,
    hosts: BTreeMap<HostKey, HostEntry>,
    host_addresses: BTreeSet<IpAddr>,
}

fn meaning(maps: &FakeDataplane) -> Meaning {
    let slots = |region: Option<Region>| region.and_then(|it| Some(maps.region(it)?.to_vec()));
    let vip = |(key, entry): (&VipKey, &VipEntry)| {
        let tables = [table_region(entry), previous_region(entry)].map(slots);
        let placeless = VipEntry {
            table_offset: 0,
            previous_offset: 0,
            ..*entry
        };
        (*key, placeless, tables)
    };
    Meaning {
        settings: maps.settings,
        vips: maps.vips.iter().map(vip).collect(),
        backends: maps.backends.clone(),
        returns: maps.returns.clone(),
        rules: maps.rules.clone(),
        hosts: maps.hosts.clone(),
        host_addresses: maps.host_addresses.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Parts between changes, and parts that take changes up: neither changes what a change does.
    #[test]
    fn changes_go_between_the_parts(
        history in prop::collection::vec((history(), 0..4_usize, any::<bool>()), 1..4),
    ) {
        let mut twins = Twins::new(Capacity::default(), Duration::ZERO, true);
        for (changes, parts, with_part) in history {
            for changes in changes {
                let scope = if with_part { Scope::Part } else { Scope::Changes };
                twins.change_within(changes, scope);
                for _ in 0..parts {
                    let done = twins.part();
                    assert_eq!(done.plan.steps, [], "nothing was left to do");
                    twins.assert_known();
                }
            }
        }
        twins.sweep();
        assert!(twins.sweep() >= PORTIONS, "not in parts");
        assert_eq!(meaning(&twins.world.dataplane), meaning(&twins.whole));
        twins.assert_converged();
    }

    /// What others did to the maps is put right, and slots settle, as by one pass over everything.
    #[test]
    fn parts_put_right_what_one_pass_does(
        history in history(),
        damage in prop::option::of(Damage::any()),
        windows in 0..3_u32,
    ) {
        let mut twins = Twins::new(Capacity::default(), Duration::ZERO, true);
        history.into_iter().for_each(|changes| twins.change(changes));
        twins.rest(windows);
        damage.iter().for_each(|damage| twins.damage(damage));
        twins.sweep_whole();
        twins.sweep();
        twins.assert_known();
        assert_eq!(meaning(&twins.world.dataplane), meaning(&twins.whole));
        twins.assert_converged();
    }

    /// The same while changes come: in the end all is as one pass over everything wants it.
    #[test]
    fn changes_and_damage_come_between_the_parts(
        before in history(),
        meanwhile in prop::collection::vec((change_of_anything(), prop::option::of(Damage::any())), 1..8),
        windows in 0..3_u32,
    ) {
        let mut twins = Twins::new(Capacity::default(), Duration::ZERO, true);
        before.into_iter().for_each(|changes| twins.change(changes));
        twins.rest(windows);
        for (change, damage) in meanwhile {
            if matches!(change, Change::Vips(_)) {
                continue;
            }
            make(&mut twins.world, change);
            twins.part();
            if let Some(damage) = damage {
                damage.to(&mut twins.world.dataplane);
            }
        }
        // Ways that changed on the way are taken up by the next two: what was damaged behind the first
        // one's back is found by the second.
        twins.sweep();
        twins.sweep();
        twins.assert_known();
        twins.assert_converged();
    }
}
