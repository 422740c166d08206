//! What new maps take over from those of another ABI version.
//!
//! Maps that programs write (flows, counters) are shared: both versions' programs use the same map,
//! so nothing is lost while the links are switched. Maps that the agent writes are copied, so that
//! the attached programs see none of the new agent's changes. Backend ids and VIP ids mean the same
//! in both only when all of the agent's maps are copied; otherwise they are filled anew, and the
//! maps that name ids begin empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lbagent_common::limits;

use super::generations::read_layouts;
use super::pins::MapShape;

/// The maps that the agent writes and that give ids their meaning.
const WRITTEN_BY_AGENT: [&str; 4] = [
    limits::VIPS,
    limits::SLOTS,
    limits::BACKENDS,
    limits::RETURNS,
];
/// The maps that programs write whose entries name backends or VIPs by id.
const SHARED_WITH_IDS: [&str; 4] = [
    limits::CONNS,
    limits::FRAGMENTS,
    limits::VIP_COUNTERS,
    limits::BACKEND_COUNTERS,
];
/// The maps that programs write whose entries do not depend on ids. A stored flow of the way back
/// names some, for counting alone.
const SHARED: [&str; 6] = [
    limits::NAT_FLOWS,
    limits::UDP_SEEN,
    limits::OUTCOMES,
    limits::STEER_COUNTERS,
    limits::REDIRECT_COUNTERS,
    // Not written by programs, but by terminators that come: those that are there need not again.
    limits::TERMINATORS,
];

/// What is taken over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Maps that both versions use, and where they are pinned.
    pub(super) shared: BTreeMap<&'static str, PathBuf>,
    /// Where the agent's maps are pinned whose content is copied; absent when they differ.
    pub(super) copied: Option<BTreeMap<&'static str, PathBuf>>,
}

impl Carried {
    /// What the maps of an ABI directory allow.
    pub(super) fn from(directory: &Path, shapes: &[MapShape]) -> Self {
        let layouts = read_layouts(directory);
        let pin = |name: &str| directory.join("maps").join(name);
        let same = |name: &str| {
            shapes.iter().any(|shape| {
                shape.name == name
                    && layouts.get(name) == Some(&shape.layout())
                    && pin(name).exists()
                    && shape.check_pin(&pin(name)).is_ok()
            })
        };
        let pins = |names: &[&'static str]| -> BTreeMap<_, _> {
            let names = names.iter().filter(|name| same(name));
            names.map(|name| (*name, pin(name))).collect()
        };
        let written = pins(&WRITTEN_BY_AGENT);
        let copied = (written.len() == WRITTEN_BY_AGENT.len()).then_some(written);
        let mut shared = pins(&SHARED);
        if copied.is_some() {
            shared.extend(pins(&SHARED_WITH_IDS));
        }
        Self { shared, copied }
    }

    /// Tells the operator what is not taken over.
    pub(super) fn log(&self) {
        if self.copied.is_none() {
            tracing::warn!(
                "backends and tables of the attached data plane have another layout or capacity: \
                 they are written anew; flows of changed slots and of draining backends may move"
            );
        }
        for (map, lost) in [
            (limits::CONNS, "stored flows of changed slots"),
            (limits::NAT_FLOWS, "flows whose source was rewritten"),
            (limits::OUTCOMES, "outcome counters"),
            (limits::VIP_COUNTERS, "counters of VIPs"),
            (limits::BACKEND_COUNTERS, "counters of backends"),
        ] {
            if !self.shared.contains_key(map) {
                tracing::warn!(map, "not taken over: {lost}");
            }
        }
    }
}
