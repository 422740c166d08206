//! What was changed, object by object, as the store's history tells it.

use lbagent_api::events::{Author, Change, ChangeType, ObjectKind};
use serde::Deserialize;
use uuid::Uuid;

use super::{Desired, keys};
use crate::store::{Commit, Event, Watch, WatchError};

/// One change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChange {
    /// What happened.
    pub change: Change,
    /// An instance's state before, if it is one that was there.
    pub state_before: Option<String>,
    /// An instance's state now, if it is one that is there.
    pub state_now: Option<String>,
}

/// The members that every stored object has, and the state of an instance.
#[derive(Deserialize)]
struct Head {
    uuid: Uuid,
    #[serde(default)]
    account: Uuid,
    #[serde(alias = "label")]
    name: String,
    state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    state: String,
}

/// A stream of changes.
pub struct ChangeWatch(Box<dyn Watch>);

impl Desired {
    /// Every change of an object, an account or a token, from a generation on
    /// (inclusive).
    pub fn changes(&self, from: u64) -> ChangeWatch {
        ChangeWatch(self.watch("/", from))
    }
}

impl ChangeWatch {
    /// The changes of the next generations, perhaps none. Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<ObjectChange>, WatchError> {
        let commits = self.0.next().await?;
        let changes = commits.iter().flat_map(|commit| {
            let events = commit.events.iter();
            events.filter_map(|event| object_change(commit, event))
        });
        Ok(changes.collect())
    }
}

fn object_change(commit: &Commit, event: &Event) -> Option<ObjectChange> {
    let kinds = [
        (keys::GROUPS, ObjectKind::ServiceGroup),
        (keys::INSTANCES, ObjectKind::Instance),
        (keys::CERTIFICATES, ObjectKind::Certificate),
        (keys::ACCOUNTS, ObjectKind::Account),
        (keys::TOKENS, ObjectKind::Token),
    ];
    let (_, kind) = kinds
        .into_iter()
        .find(|(prefix, _)| event.key().starts_with(prefix))?;
    let read = |bytes: &[u8]| serde_json::from_slice::<Head>(bytes).ok();
    let (before, now) = match event {
        Event::Put { item, previous } => {
            let before = previous.as_deref().and_then(read);
            (before, Some(read(&item.value)?))
        }
        Event::Delete { previous, .. } => (Some(read(previous)?), None),
    };
    let r#type = match (&before, &now) {
        (None, _) => ChangeType::Created,
        (_, Some(_)) => ChangeType::Changed,
        (_, None) => ChangeType::Deleted,
    };
    let state = |head: &Option<Head>| Some(head.as_ref()?.state.as_ref()?.state.clone());
    let (state_before, state_now) = (state(&before), state(&now));
    let head = now.or(before)?;
    Some(ObjectChange {
        change: Change {
            r#type,
            kind,
            uuid: head.uuid,
            name: head.name,
            account: match kind {
                ObjectKind::Account => head.uuid,
                _ => head.account,
            },
            generation: event.revision(),
            at: commit.at,
            by: Author::clone(&commit.by),
        },
        state_before,
        state_now,
    })
}
