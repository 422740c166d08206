//! What accounts have, counted as objects come and go, and the quotas that limit it.

use lbagent_api::access::Usage;
use uuid::Uuid;

use super::draft::Draft;
use super::{DesiredState, Instance, InstanceState, Service, ServiceGroup};

/// An account may not have more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// The quota does not allow it.
    #[error(
        "Quota of {limit} {what} is used up ({used} in use); delete some, or ask an operator for a larger quota"
    )]
    Exceeded {
        /// What there would be too many of.
        what: &'static str,
        /// How many there may be.
        limit: u32,
        /// How many there are.
        used: u32,
    },
    /// The account was deleted meanwhile.
    #[error("The account does not exist any more")]
    NoAccount,
}

impl DesiredState {
    /// What an account has.
    pub fn usage(&self, account: Uuid) -> Usage {
        self.usage.get(&account).copied().unwrap_or_default()
    }

    /// Counts a group in the place of another one.
    pub(super) fn count_group(
        &mut self,
        former: Option<&ServiceGroup>,
        group: Option<&ServiceGroup>,
    ) {
        if let Some(group) = former {
            self.count(group.account, |usage| {
                subtract(usage, of_group(&group.services))
            });
        }
        if let Some(group) = group {
            self.count(group.account, |usage| add(usage, of_group(&group.services)));
        }
    }

    /// Counts an instance in the place of another one.
    pub(super) fn count_instance(
        &mut self,
        former: Option<&Instance>,
        instance: Option<&Instance>,
    ) {
        if let Some(instance) = former {
            self.count(instance.account, |usage| {
                subtract(usage, of_instance(instance))
            });
        }
        if let Some(instance) = instance {
            self.count(instance.account, |usage| add(usage, of_instance(instance)));
        }
    }

    fn count(&mut self, account: Uuid, change: impl FnOnce(Usage) -> Usage) {
        let usage = change(self.usage(account));
        if usage == Usage::default() {
            self.usage.remove(&account);
        } else {
            self.usage.insert(account, usage);
        }
    }
}

impl Draft {
    /// Whether an account may have so much more.
    pub(super) fn check_quota(&mut self, account: Uuid, more: Usage) -> Result<(), QuotaError> {
        let quotas = self.account(account).ok_or(QuotaError::NoAccount)?.quotas;
        let used = self.state().usage(account);
        let total = add(used, more);
        let limits = [
            (
                "service groups",
                quotas.service_groups,
                used.service_groups,
                total.service_groups,
            ),
            ("services", quotas.services, used.services, total.services),
            (
                "instances",
                quotas.instances,
                used.instances,
                total.instances,
            ),
            (
                "raw ports",
                quotas.raw_ports,
                used.raw_ports,
                total.raw_ports,
            ),
        ];
        for (what, limit, used, total) in limits {
            // What is not asked for may be above a quota that was lowered.
            if let Some(limit) = limit
                && total > limit
                && total > used
            {
                return Err(QuotaError::Exceeded { what, limit, used });
            }
        }
        Ok(())
    }
}

/// What a group with these services counts as.
pub(super) fn of_group(services: &[Service]) -> Usage {
    let count = |services: usize| u32::try_from(services).unwrap_or(u32::MAX);
    Usage {
        service_groups: 1,
        services: count(services.len()),
        // A port is one on all VIPs as it is on one of them.
        raw_ports: count(services.iter().filter(|one| one.is_raw()).count()),
        ..Usage::default()
    }
}

fn of_instance(instance: &Instance) -> Usage {
    Usage {
        instances: 1,
        live_instances: u32::from(!matches!(
            instance.state,
            InstanceState::Stopped | InstanceState::Standby
        )),
        ..Usage::default()
    }
}

/// What a group needs beyond what it has already.
pub(super) fn growth(former: &[Service], services: &[Service]) -> Usage {
    subtract(of_group(services), of_group(former))
}

/// One instance more.
pub(super) const ONE_INSTANCE: Usage = Usage {
    service_groups: 0,
    services: 0,
    instances: 1,
    live_instances: 0,
    raw_ports: 0,
};

fn add(a: Usage, b: Usage) -> Usage {
    combine(a, b, u32::saturating_add)
}

fn subtract(a: Usage, b: Usage) -> Usage {
    combine(a, b, u32::saturating_sub)
}

fn combine(a: Usage, b: Usage, by: fn(u32, u32) -> u32) -> Usage {
    Usage {
        service_groups: by(a.service_groups, b.service_groups),
        services: by(a.services, b.services),
        instances: by(a.instances, b.instances),
        live_instances: by(a.live_instances, b.live_instances),
        raw_ports: by(a.raw_ports, b.raw_ports),
    }
}
