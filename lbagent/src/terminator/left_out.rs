//! What snapshots leave out because a terminator refused them for it: the rest is served meanwhile. An
//! object is in again when it has changed, and is tried again now and then, because a fault may be
//! another object's doing. Pure but for the clock that it is given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lbagent_api::terminator::{
    Fault, FaultyObject, Group, Instance, InstanceState, Snapshot, TerminatorCertificate,
};
use tracing::warn;

/// After so long an object is tried again, doubled with each refusal up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_LONGEST: Duration = Duration::from_secs(3_600);

/// Snapshots in a row that are refused before something else has to change: a terminator that finds a
/// fault with everything is not fed for ever.
const MAX_ROUNDS: u32 = 32;

/// A snapshot that a terminator refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) generation: u64,
    pub(super) faults: Vec<Fault>,
}

/// Objects that were refused.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    objects: BTreeMap<FaultyObject, Entry>,
    /// The refusal that was taken up last.
    noted: Option<u64>,
    rounds: u32,
}

#[derive(Debug)]
struct Entry {
    /// What it was like when it was refused.
    content: Content,
    reason: String,
    retry_at: Instant,
    wait: Duration,
    /// Else it is tried.
    is_out: bool,
}

/// An object as a terminator judges it: without what changes with health.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Group(Box<Group>),
    Instance(Instance),
    Certificate(Box<TerminatorCertificate>),
}

impl Content {
    fn of(object: FaultyObject, snapshot: &Snapshot) -> Option<Self> {
        match object {
            FaultyObject::Gateway => None,
            FaultyObject::ServiceGroup(uuid) => {
                let found = snapshot.groups.iter().find(|group| group.uuid == uuid)?;
                let mut group = found.clone();
                group.instances.iter_mut().for_each(settle);
                Some(Self::Group(Box::new(group)))
            }
            FaultyObject::Instance(uuid) => {
                let mut instances = snapshot.groups.iter().flat_map(|group| &group.instances);
                let mut instance = instances.find(|it| it.uuid == uuid)?.clone();
                settle(&mut instance);
                Some(Self::Instance(instance))
            }
            FaultyObject::Certificate(uuid) => {
                let mut certificates = snapshot.certificates.iter();
                let found = certificates.find(|it| it.uuid == uuid)?.clone();
                Some(Self::Certificate(Box::new(found)))
            }
        }
    }
}

fn settle(instance: &mut Instance) {
    (instance.state, instance.weight) = (InstanceState::Active, 0);
    // Those that fail their checks are left away.
    instance.addresses.truncate(1);
}

impl LeftOut {
    /// Takes up what was refused of a snapshot, once.
    pub(super) fn note(&mut self, refused: &Refused, snapshot: &Snapshot, now: Instant) {
        let is_new = self.noted.replace(refused.generation) != Some(refused.generation);
        if !is_new || self.rounds == MAX_ROUNDS {
            return;
        }
        self.rounds += 1;
        if self.rounds == MAX_ROUNDS {
            warn!("a terminator refuses whatever it is given; it has to do with what it serves");
        }
        for Fault { object, reason } in &refused.faults {
            let Some(content) = Content::of(*object, snapshot) else {
                continue;
            };
            let former = self.objects.get(object);
            let wait = former.map_or(RETRY_FIRST, |former| (former.wait * 2).min(RETRY_LONGEST));
            let entry = Entry {
                content,
                reason: reason.clone(),
                retry_at: now + wait,
                wait,
                is_out: true,
            };
            self.objects.insert(*object, entry);
        }
    }

    /// What there is to serve is another, or a snapshot was taken: refusals begin to count anew.
    pub(super) fn restart(&mut self) {
        self.rounds = 0;
    }

    /// Takes from a snapshot what was refused and is as it was.
    pub(super) fn apply(&mut self, snapshot: &mut Snapshot, now: Instant) {
        self.objects.retain(|object, entry| {
            Content::of(*object, snapshot).is_some_and(|content| content == entry.content)
        });
        for (object, entry) in &mut self.objects {
            entry.is_out &= now < entry.retry_at;
            if entry.is_out {
                remove(*object, snapshot);
            }
        }
    }

    /// What is left out, and why.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let out = self.objects.iter().filter(|(_, entry)| entry.is_out);
        out.map(|(object, entry)| Fault {
            object: *object,
            reason: entry.reason.clone(),
        })
        .collect()
    }

    /// How long until something is to be tried again.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Duration> {
        let out = self.objects.values().filter(|entry| entry.is_out);
        let next = out.map(|entry| entry.retry_at).min()?;
        Some(next.saturating_duration_since(now))
    }
}

fn remove(object: FaultyObject, snapshot: &mut Snapshot) {
    match object {
        FaultyObject::Gateway => {}
        FaultyObject::ServiceGroup(uuid) => snapshot.groups.retain(|group| group.uuid != uuid),
        FaultyObject::Instance(uuid) => {
            for group in &mut snapshot.groups {
                group.instances.retain(|instance| instance.uuid != uuid);
            }
        }
        FaultyObject::Certificate(uuid) => {
            snapshot.certificates.retain(|it| it.uuid != uuid);
            snapshot.default_certificate.take_if(|it| *it == uuid);
            for domain in snapshot.groups.iter_mut().flat_map(|it| &mut it.domains) {
                domain.alternatives.retain(|it| *it != uuid);
                if domain.certificate == Some(uuid) {
                    let mut others = domain.alternatives.drain(..);
                    domain.certificate = others.next();
                    domain.alternatives = others.collect();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lbagent_api::certificate::Secret;
    use lbagent_api::terminator::GroupDomain;
    use uuid::Uuid;

    use super::*;

    fn group(number: u128) -> Group {
        Group {
            uuid: Uuid::from_u128(number),
            name: number.to_string(),
            soft_limit: 1,
            hard_limit: 1,
            domains: vec![GroupDomain {
                name: format!("{number}.example"),
                certificate: Some(Uuid::from_u128(100)),
                alternatives: vec![Uuid::from_u128(101), Uuid::from_u128(102)],
            }],
            services: Vec::new(),
            instances: vec![Instance {
                uuid: Uuid::from_u128(number + 10),
                name: number.to_string(),
                addresses: vec!["192.0.2.1".parse().unwrap()],
                weight: 100,
                state: InstanceState::Active,
            }],
        }
    }

    fn certificate(number: u128) -> TerminatorCertificate {
        TerminatorCertificate {
            uuid: Uuid::from_u128(number),
            name: number.to_string(),
            names: Vec::new(),
            chain: String::new(),
            key: Secret::new("hush".into()),
        }
    }

    fn whole() -> Snapshot {
        Snapshot {
            groups: vec![group(1), group(2)],
            certificates: [100, 101, 102].map(certificate).into(),
            default_certificate: Some(Uuid::from_u128(100)),
            ..Snapshot::default()
        }
    }

    fn fault(object: FaultyObject) -> Fault {
        Fault {
            object,
            reason: "wrong".into(),
        }
    }

    /// Takes up a new refusal.
    fn note(left_out: &mut LeftOut, objects: &[FaultyObject], snapshot: &Snapshot, now: Instant) {
        let refused = Refused {
            generation: left_out.noted.unwrap_or(0) + 1,
            faults: objects.iter().map(|object| fault(*object)).collect(),
        };
        left_out.note(&refused, snapshot, now);
    }

    const GROUP: FaultyObject = FaultyObject::ServiceGroup(Uuid::from_u128(1));

    fn made(left_out: &mut LeftOut, whole: &Snapshot, now: Instant) -> Snapshot {
        let mut snapshot = whole.clone();
        left_out.apply(&mut snapshot, now);
        snapshot
    }

    #[test]
    fn a_refused_object_is_out_until_it_changes() {
        let (mut left_out, now) = (LeftOut::default(), Instant::now());
        let mut whole = whole();
        note(&mut left_out, &[GROUP], &whole, now);
        assert_eq!(made(&mut left_out, &whole, now).groups, [group(2)]);
        assert_eq!(left_out.faults(), [fault(GROUP)]);
        // Its health is none of its faults.
        whole.groups[0].instances[0].state = InstanceState::Unhealthy;
        assert_eq!(made(&mut left_out, &whole, now).groups, [group(2)]);
        whole.groups[0].domains[0].name = "other.example".into();
        assert_eq!(made(&mut left_out, &whole, now), whole);
        assert_eq!(left_out.faults(), []);
        // Nothing is kept of objects that are gone.
        note(&mut left_out, &[GROUP], &whole, now);
        whole.groups.remove(0);
        assert_eq!(made(&mut left_out, &whole, now), whole);
        assert!(left_out.objects.is_empty());
    }

    #[test]
    fn certificates_and_instances_are_left_out_everywhere() {
        let (mut left_out, now) = (LeftOut::default(), Instant::now());
        let objects = [
            FaultyObject::Certificate(Uuid::from_u128(100)),
            FaultyObject::Instance(Uuid::from_u128(11)),
            FaultyObject::Gateway,
        ];
        note(&mut left_out, &objects, &whole(), now);
        let snapshot = made(&mut left_out, &whole(), now);
        assert_eq!(snapshot.certificates.len(), 2);
        assert_eq!(snapshot.default_certificate, None);
        let domain = &snapshot.groups[1].domains[0];
        assert_eq!(domain.certificate, Some(Uuid::from_u128(101)));
        assert_eq!(domain.alternatives, [Uuid::from_u128(102)]);
        let instances = snapshot.groups.iter().map(|group| group.instances.len());
        assert_eq!(instances.collect::<Vec<_>>(), [0, 1]);
        assert_eq!(left_out.faults().len(), 2, "the gateway cannot be left out");
    }

    #[test]
    fn it_is_tried_again_more_and_more_seldom() {
        let (mut left_out, mut now) = (LeftOut::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..9 {
            left_out.restart();
            note(&mut left_out, &[GROUP], &whole(), now);
            assert_ne!(made(&mut left_out, &whole(), now), whole());
            let wait = left_out.next_retry(now).unwrap();
            waited.push(wait.as_secs());
            now += wait;
            assert_eq!(made(&mut left_out, &whole(), now), whole());
            assert_eq!(left_out.next_retry(now), None);
        }
        assert_eq!(waited, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }

    #[test]
    fn whoever_refuses_everything_is_asked_so_often() {
        let (mut left_out, now) = (LeftOut::default(), Instant::now());
        let mut whole = Snapshot {
            groups: (1..100).map(group).collect(),
            ..Snapshot::default()
        };
        for _ in 0..60 {
            let snapshot = made(&mut left_out, &whole, now);
            let first = FaultyObject::ServiceGroup(snapshot.groups[0].uuid);
            note(&mut left_out, &[first], &snapshot, now);
        }
        assert_eq!(made(&mut left_out, &whole, now).groups.len(), 99 - 32);
        left_out.restart();
        whole.groups.truncate(50);
        let snapshot = made(&mut left_out, &whole, now);
        let first = FaultyObject::ServiceGroup(snapshot.groups[0].uuid);
        note(&mut left_out, &[first], &snapshot, now);
        assert_eq!(made(&mut left_out, &whole, now).groups.len(), 50 - 33);
    }
}
