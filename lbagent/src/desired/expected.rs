//! What a client read of an object before it asks for a change.

use lbagent_api::Selector;
use uuid::Uuid;

use super::draft::Draft;
use super::{Caller, DesiredState, keys};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A service group.
    ServiceGroup,
    /// An instance.
    Instance,
    /// A certificate.
    Certificate,
}

impl Kind {
    /// The word in sentences.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::ServiceGroup => "service group",
            Self::Instance => "instance",
            Self::Certificate => "certificate",
        }
    }
}

/// An object that changes depend on.
#[derive(Clone, Debug)]
pub struct Expected {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub caller: Caller,
    /// Which.
    pub selector: Selector,
    /// It was last written at one of these revisions; `None`: it exists.
    pub revisions: Option<Vec<u64>>,
}

impl Expected {
    /// Whether it is so. The draft's transaction fails when that changes meanwhile.
    pub(super) fn holds(&self, draft: &mut Draft) -> bool {
        let Some(uuid) = draft.state().find(self.kind, self.caller, &self.selector) else {
            return false;
        };
        let found = draft.revision(key(self.kind, uuid));
        let revisions = self.revisions.as_ref();
        revisions.is_none_or(|revisions| revisions.contains(&found))
    }
}

fn key(kind: Kind, uuid: Uuid) -> String {
    match kind {
        Kind::ServiceGroup => keys::group(uuid),
        Kind::Instance => keys::instance(uuid),
        Kind::Certificate => keys::certificate(uuid),
    }
}

impl DesiredState {
    fn find(&self, kind: Kind, caller: Caller, selector: &Selector) -> Option<Uuid> {
        match kind {
            Kind::ServiceGroup => self.service_group(caller, selector).map(|it| it.uuid),
            Kind::Instance => self.instance(caller, selector).map(|it| it.uuid),
            Kind::Certificate => self.certificate(caller, selector).map(|it| it.uuid),
        }
    }

    /// The revision at which an object was last written.
    pub fn object_revision(&self, kind: Kind, caller: Caller, selector: &Selector) -> Option<u64> {
        let uuid = self.find(kind, caller, selector)?;
        Some(self.revision(&key(kind, uuid)))
    }
}
