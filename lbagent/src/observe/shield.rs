//! The SYN shield, in the API's words.

use lbagent_api::status::{SynShield, SynShieldMode};
use lbagent_common::{Outcome, VipKey};

use crate::plan::{self, Condition, GatewaySettings, Reason};
use crate::reconcile::Observation;

/// What the shield is set to and does. `conditions` are those of the last pass, which may have found
/// that the kernel answers nothing with cookies.
pub fn shield(
    gateway: &GatewaySettings,
    conditions: &[Condition],
    observed: Option<&Observation>,
) -> SynShield {
    let (mode, per_second) = match gateway.syn_shield {
        plan::SynShield::Off => (SynShieldMode::Off, None),
        plan::SynShield::Above { per_second } => (SynShieldMode::Auto, Some(per_second)),
        plan::SynShield::Always => (SynShieldMode::On, None),
    };
    let mut shield = SynShield {
        mode,
        per_second,
        reason: match mode {
            SynShieldMode::Off => gateway.without_shield.clone(),
            SynShieldMode::Auto | SynShieldMode::On => without_cookies(gateway, conditions),
        },
        ..SynShield::default()
    };
    let Some(Observation { actual, counters }) = observed else {
        return shield;
    };
    let answered = counters.outcomes.get(Outcome::AnswerShield as usize);
    shield.answered = answered.map_or(0, |counter| counter.packets);
    let is_flooded = |vip: &std::net::IpAddr| {
        let entry = actual.vips.get(&VipKey::address((*vip).into()));
        entry.is_some_and(|entry| counters.flooded.contains(&entry.vip_index))
    };
    shield
        .flooded
        .extend(gateway.vips.iter().copied().filter(is_flooded));
    shield
}

/// What the last pass found; not what holds for redirects alone.
fn without_cookies(gateway: &GatewaySettings, conditions: &[Condition]) -> Option<String> {
    conditions
        .iter()
        .find_map(|condition| match &condition.reason {
            Reason::NoCookies { reason } if gateway.not_at_nic.as_ref() != Some(reason) => {
                Some(reason.clone())
            }
            _ => None,
        })
}
