mod file;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

fn expects(key: &str, mod_revision: u64) -> Compare {
    Compare {
        key: key.into(),
        mod_revision,
    }
}

fn write(store: &RedbStore, compares: Vec<Compare>, ops: Vec<Op>) -> Result<u64, TxnError> {
    let by = Author::Agent;
    store.txn(&Transaction { compares, ops, by })
}

/// What some commits changed.
fn changes(commits: Vec<Commit>) -> Vec<Event> {
    let events = commits.into_iter().flat_map(|commit| commit.events);
    events.collect()
}

fn open(directory: &tempfile::TempDir) -> RedbStore {
    RedbStore::open(&directory.path().join("state.redb")).unwrap()
}

/// The semantics of [`Store`], as plainly as they can be written.
#[derive(Default)]
struct Model {
    revision: u64,
    keys: BTreeMap<String, KeyValue>,
    events: Vec<Event>,
}

impl Model {
    fn txn(&mut self, transaction: &Transaction) -> Option<u64> {
        let revision_of = |key: &String| self.keys.get(key).map_or(0, |item| item.mod_revision);
        if transaction
            .compares
            .iter()
            .any(|c| revision_of(&c.key) != c.mod_revision)
        {
            return None;
        }
        let revision = self.revision + 1;
        for op in &transaction.ops {
            match op {
                Op::Put { key, value } => {
                    let create_revision = self
                        .keys
                        .get(key)
                        .map_or(revision, |item| item.create_revision);
                    let (key, value) = (key.clone(), value.clone());
                    let item = KeyValue {
                        key,
                        value,
                        create_revision,
                        mod_revision: revision,
                    };
                    let previous = self.keys.insert(item.key.clone(), item.clone());
                    let previous = previous.map(|item| item.value);
                    self.events.push(Event::Put { item, previous });
                }
                Op::Delete { key } => {
                    if let Some(previous) = self.keys.remove(key) {
                        self.events.push(Event::Delete {
                            key: key.clone(),
                            revision,
                            previous: previous.value,
                        });
                    }
                }
            }
            if let Some(event) = self.events.last()
                && event.revision() == revision
            {
                self.revision = revision;
            }
        }
        Some(self.revision)
    }

    fn range(&self, prefix: &str) -> Range {
        let items = self
            .keys
            .values()
            .filter(|item| item.key.starts_with(prefix));
        Range {
            revision: self.revision,
            items: items.cloned().collect(),
        }
    }
}

fn any_key() -> impl Strategy<Value = String> {
    // Few keys, so that they collide; one is the prefix of others.
    prop::sample::select(vec!["/a", "/a/1", "/a/2", "/b/1", "/b/2"]).prop_map(str::to_owned)
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let op = (any::<bool>(), any::<u8>());
    let ops = prop::collection::btree_map(any_key(), op, 0..3).prop_map(|ops| {
        let op = |(key, (is_put, value)): (String, (bool, u8))| match is_put {
            true => Op::Put {
                key,
                value: vec![value],
            },
            false => Op::Delete { key },
        };
        ops.into_iter().map(op).collect()
    });
    let compares = prop::collection::vec((any_key(), 0..6_u64), 0..2).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(key, mod_revision)| Compare { key, mod_revision })
            .collect()
    });
    (compares, ops).prop_map(|(compares, ops)| Transaction {
        compares,
        ops,
        ..Transaction::default()
    })
}

#[tokio::test]
async fn changes_that_are_too_many_to_be_kept_are_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    write(&store, vec![], vec![put("/before", "a")]).unwrap();
    let mut early = store.watch("/", 1);
    let mut late = store.watch("/", 3);
    let many = (0..=history::KEPT_EVENTS).map(|key| put(&format!("/many/{key}"), "b"));
    assert_eq!(write(&store, vec![], many.collect()).unwrap(), 2);
    assert_eq!(write(&store, vec![], vec![put("/after", "c")]).unwrap(), 3);
    let gap = WatchError::Compacted {
        asked: 1,
        oldest: 3,
    };
    assert_eq!(early.next().await, Err(gap));
    let keys = |commits| -> Vec<_> {
        let changes = changes(commits).into_iter();
        changes.map(|event| event.key().to_owned()).collect()
    };
    assert_eq!(late.next().await.map(keys), Ok(vec!["/after".to_owned()]));
    // Fewer at once, more together.
    let half = |key| put(&format!("/{key}"), "d");
    for first in [0, history::KEPT_EVENTS] {
        let ops = (first..first + history::KEPT_EVENTS / 2 + 1).map(half);
        write(&store, vec![], ops.collect()).unwrap();
    }
    let gap = WatchError::Compacted {
        asked: 4,
        oldest: 5,
    };
    assert_eq!(store.watch("/", 4).next().await, Err(gap));
    let kept = store.watch("/", 5).next().await.map(keys);
    assert_eq!(
        kept.map(|keys| keys.len()),
        Ok(history::KEPT_EVENTS / 2 + 1)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn behaves_as_the_model(
        transactions in prop::collection::vec(any_transaction(), 1..24),
        reopen_at in 0..24_usize,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(&directory);
        let mut model = Model::default();
        let mut opened_at = 0;
        for (index, transaction) in transactions.iter().enumerate() {
            if index == reopen_at {
                drop(store);
                store = open(&directory);
                opened_at = model.revision;
            }
            prop_assert_eq!(store.txn(transaction).ok(), model.txn(transaction));
            for prefix in ["", "/", "/a", "/a/", "/b/2", "/c"] {
                prop_assert_eq!(store.range(prefix).unwrap(), model.range(prefix));
            }
        }
        let expected: Vec<Event> = model
            .events
            .into_iter()
            .filter(|event| event.revision() > opened_at && event.key().starts_with("/a"))
            .collect();
        if !expected.is_empty() {
            let mut watch = store.watch("/a", opened_at + 1);
            prop_assert_eq!(changes(block_on(watch.next()).unwrap()), expected);
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), future)
            .await
            .expect("nothing happened")
    })
}

#[test]
fn a_key_is_claimed_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let claim = |by| {
        write(
            &store,
            vec![expects("/ports/80", 0)],
            vec![put("/ports/80", by)],
        )
    };
    assert_eq!(claim("a").unwrap(), 1);
    assert_eq!(
        claim("b").unwrap_err().to_string(),
        "key /ports/80 is at revision 1, not at 0"
    );
    assert_eq!(store.range("").unwrap().items[0].value, b"a");
}

#[test]
fn a_failed_compare_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    write(&store, vec![expects("/x", 9)], vec![put("/y", "1")]).unwrap_err();
    assert_eq!(store.range("").unwrap(), Range::default());
}

#[test]
fn a_key_may_be_written_once_in_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let error = write(
        &open(&directory),
        vec![],
        vec![put("/y", "1"), delete("/y")],
    )
    .unwrap_err();
    assert!(matches!(error, TxnError::DuplicateKey { key } if key == "/y"));
}

#[test]
fn a_watch_waits_for_its_prefix() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut watch = store.watch("/a", 1);
    let watching = std::thread::spawn(move || block_on(watch.next()));
    write(&store, vec![], vec![put("/b", "1")]).unwrap();
    write(&store, vec![], vec![put("/a", "2"), put("/b", "2")]).unwrap();
    let events = changes(watching.join().unwrap().unwrap());
    let item = |revision| KeyValue {
        key: "/a".into(),
        value: b"2".into(),
        create_revision: revision,
        mod_revision: revision,
    };
    let (item, previous) = (item(2), None);
    assert_eq!(events, [Event::Put { item, previous }]);
}

#[test]
fn a_watch_tells_who_wrote_and_when() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut watch = store.watch("/", 1);
    let before = OffsetDateTime::now_utc();
    for uid in [7, 8] {
        let transaction = Transaction {
            ops: vec![put("/a", "1"), put("/b", "1")],
            by: Author::User { uid },
            ..Transaction::default()
        };
        store.txn(&transaction).unwrap();
    }
    let commits = block_on(watch.next()).unwrap();
    let told: Vec<_> = commits
        .iter()
        .map(|commit| (commit.by.as_ref().clone(), commit.events.len()))
        .collect();
    assert_eq!(
        told,
        [7, 8].map(|uid| (Author::User { uid }, 2)),
        "{commits:?}"
    );
    let times: Vec<_> = commits.iter().map(|commit| commit.at).collect();
    assert!(before <= times[0] && times[0] <= times[1], "{times:?}");
}

#[test]
fn a_watch_of_compacted_history_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    write(&store, vec![], vec![put("/a", "1")]).unwrap();
    drop(store);
    let store = open(&directory);
    let mut watch = store.watch("/a", 1);
    assert_eq!(
        block_on(watch.next()),
        Err(WatchError::Compacted {
            asked: 1,
            oldest: 2
        })
    );
    let mut watch = store.watch("/a", 2);
    drop(store);
    assert_eq!(block_on(watch.next()), Err(WatchError::Closed));
}
