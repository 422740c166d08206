//! One pass: reads what there is, plans, applies. Over everything, over what has changed since the last
//! one, or over that and a part of everything.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use time::OffsetDateTime;
use uuid::Uuid;

use super::apply::{self, Report};
use super::claims::{Claims, pack};
use super::grace::Grace;
use super::known::{Known, MANY, Part};
use super::sweep::{self, Sweep};
use super::{offer_cookies, renew};
use crate::dataplane::{ActualState, Dataplane, DataplaneError, Glimpse, Path, StoredFlows};
use crate::desired::{DesiredState, Instance};
use crate::plan::drain::Deadlines;
use crate::plan::{
    self, Elsewhere, GatewaySettings, Health, IdCursor, InUse, Plan, PlanInput, Terminator, settle,
};

/// What one pass leaves to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) grace: Grace,
    pub(super) cursor: IdCursor,
    pub(super) deadlines: Deadlines<Instance>,
    /// `None` unless the last pass did all that it planned.
    pub(super) known: Option<Known>,
    /// The ways that backends are planned with, as long as something is known.
    pub(super) paths: BTreeMap<IpAddr, Path>,
    /// Some port's SYNs may be answered with cookies.
    pub(super) has_cookies: bool,
    /// A pass over everything in parts that has begun.
    pub(super) sweep: Option<Sweep>,
}

/// What a pass looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// The groups that are desired otherwise than before, or whose instances' health changed.
    Changes,
    /// These, and some more, so that a sequence of such passes looks at everything.
    Part,
    /// The first, and those whose backends are reached otherwise than before.
    Network,
    /// All maps and all groups.
    Everything,
}

/// What one pass needs on the data plane's thread.
pub(super) struct Pass {
    pub(super) desired: Arc<DesiredState>,
    pub(super) gateway: Arc<GatewaySettings>,
    pub(super) health: Health,
    pub(super) terminator: Terminator,
    pub(super) memory: Memory,
    pub(super) scope: Scope,
    /// How much of everything a part is; see [`sweep::PART_WEIGHT`].
    pub(super) part_weight: usize,
    /// Decides which draining is over.
    pub(super) now: OffsetDateTime,
}

/// What a pass planned, and what became of it.
pub(super) struct Done {
    pub(super) plan: Plan,
    pub(super) report: Report,
    /// Why SYNs are not answered with cookies although some port's may be.
    pub(super) without_cookies: Option<String>,
    pub(super) coverage: Coverage,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// What had changed.
    Changes,
    /// That, and a part of everything; others follow.
    Part,
    /// Everything, now or with the parts before.
    Everything,
}

impl Pass {
    pub(super) fn run(
        mut self,
        dataplane: &mut dyn Dataplane,
    ) -> (Memory, Result<Done, DataplaneError>) {
        let mut outcome = self.outcome(dataplane);
        if let Ok(done) = &mut outcome {
            self.memory.cursor = done.plan.cursor;
            if done.report.failures.is_empty() {
                renew(dataplane);
            }
            done.without_cookies = offer_cookies(dataplane, self.memory.has_cookies);
        }
        (self.memory, outcome)
    }

    fn outcome(&mut self, dataplane: &mut dyn Dataplane) -> Result<Done, DataplaneError> {
        self.memory.deadlines.follow(&self.desired.instances);
        let known = self.memory.known.take();
        match known {
            Some(known) if self.scope < Scope::Everything => {
                match self.changes(known, dataplane)? {
                    Some(done) => Ok(done),
                    None => self.everything(None, dataplane),
                }
            }
            known => self.everything(known, dataplane),
        }
    }

    /// Plans and applies everything.
    fn everything(
        &mut self,
        known: Option<Known>,
        dataplane: &mut dyn Dataplane,
    ) -> Result<Done, DataplaneError> {
        self.memory.sweep = None;
        let mut actual = self.read(dataplane)?;
        let in_use = InUse::of(&actual);
        let desired = Arc::clone(&self.desired);
        let gateway = Arc::clone(&self.gateway);
        let claims = || Claims::of(&desired, &gateway);
        let (plan, report, claims) = thread::scope(|scope| {
            // Of many thousands of groups they take long, and nothing of what is planned or applied.
            let claims = scope.spawn(claims);
            let plan = self.plan((&desired, &Elsewhere::default()), &actual, &in_use);
            let report = self.apply(&plan, &actual, dataplane);
            (plan, report, claims.join())
        });
        self.memory.has_cookies =
            in_use.has_cookies() || plan.steps.iter().any(plan::gives_cookies);
        let agrees = known.as_ref().is_none_or(|known| known.agrees(&actual));
        if !agrees {
            sweep::differ::<()>();
        }
        if report.failures.is_empty() && !is_full(&plan) {
            self.memory.paths = std::mem::take(&mut actual.paths);
            let is_same = |known: &Known| {
                agrees && plan.steps.is_empty() && Arc::ptr_eq(&known.desired, &desired)
            };
            let judged = (self.health.clone(), self.terminator, self.now);
            self.memory.known = Some(match known.filter(is_same) {
                Some(known) => known.still(&plan, judged),
                None => {
                    let claims = claims.unwrap_or_else(|panic| resume_unwind(panic));
                    Known::after(&plan, &desired, claims, actual, in_use, judged)
                }
            });
        }
        Ok(Done {
            plan,
            report,
            without_cookies: None,
            coverage: Coverage::Everything,
        })
    }

    /// Plans and applies what has changed. `None`: only a pass over everything can tell what to do.
    fn changes(
        &mut self,
        mut known: Known,
        dataplane: &mut dyn Dataplane,
    ) -> Result<Option<Done>, DataplaneError> {
        // A condition of every group with such ports.
        if known.terminator != self.terminator {
            return Ok(None);
        }
        let mut instances = Vec::new();
        if self.scope >= Scope::Network || !dataplane.is_current() {
            let host = dataplane.surroundings(&plan::backend_addresses(&self.desired))?;
            if host.addresses != known.actual.host_addresses {
                return Ok(None);
            }
            instances.extend(self.moved(host.paths));
        }
        let deadlines = &self.memory.deadlines;
        instances.extend(deadlines.between(known.planned_at, self.now));
        let judged = known.health.changed_keys(&self.health).into_iter();
        instances.extend(judged.map(|judged| judged.instance));
        let mut changed = known.changed_groups(&self.desired, instances);
        let is_part = self.scope == Scope::Part;
        if is_part {
            match self.begin_part(&known, dataplane)? {
                Some(groups) => changed.extend(groups),
                None => return Ok(None),
            }
        }
        let mut part = known.part(changed, &self.desired, &self.gateway);
        self.complete(&mut part, dataplane)?;
        if is_part && self.verify(&mut part, dataplane)?.is_none() {
            return Ok(None);
        }
        let desired = (&part.desired, &part.elsewhere);
        let mut plan = self.plan(desired, &part.actual, &known.in_use);
        if is_full(&plan) {
            return Ok(None);
        }
        let report = self.apply(&plan, &part.actual, dataplane);
        plan.conditions = known.conditions_with(&plan, &part);
        if report.failures.is_empty() {
            known.follow(&plan);
            self.memory.has_cookies = known.in_use.has_cookies();
            (known.health, known.planned_at) = (self.health.clone(), self.now);
            self.memory.known = Some(known);
        }
        let coverage = match is_part {
            true => self.end_part(dataplane),
            false => Coverage::Changes,
        };
        Ok(Some(Done {
            plan,
            report,
            without_cookies: None,
            coverage,
        }))
    }

    /// Takes up the host's present ways; returns the instances that are reached otherwise.
    fn moved(&mut self, paths: BTreeMap<IpAddr, Path>) -> Vec<Uuid> {
        let former = std::mem::replace(&mut self.memory.paths, paths);
        let paths = &self.memory.paths;
        let known = former.keys().chain(paths.keys());
        let moved: BTreeSet<IpAddr> = known
            .filter(|ip| former.get(ip) != paths.get(ip))
            .copied()
            .collect();
        if moved.is_empty() {
            return Vec::new();
        }
        let is_moved = |instance: &&Instance| {
            let mut addresses = [true, false]
                .into_iter()
                .filter_map(|v4| instance.address(v4));
            addresses.any(|address| moved.contains(&address))
        };
        let instances = self.desired.instances.values().filter(is_moved);
        instances.map(|instance| instance.uuid).collect()
    }

    /// Adds to a part what is not known but read: tables, ways and the time.
    fn complete(
        &mut self,
        part: &mut Part,
        dataplane: &mut dyn Dataplane,
    ) -> Result<(), DataplaneError> {
        let regions = plan::named_regions(&part.actual);
        let addresses = plan::backend_addresses(&part.desired);
        let Glimpse {
            tables,
            paths,
            tick,
        } = dataplane.glimpse(&regions, &addresses)?;
        let known = &mut self.memory.paths;
        for address in &addresses {
            match paths.get(address) {
                Some(path) => known.insert(*address, *path),
                None => known.remove(address),
            };
        }
        if addresses.len() > MANY {
            pack(known);
        }
        part.actual.tables = tables;
        part.actual.paths = paths;
        part.actual.tick = tick;
        Ok(())
    }

    fn plan(
        &mut self,
        (desired, elsewhere): (&DesiredState, &Elsewhere),
        actual: &ActualState,
        in_use: &InUse,
    ) -> Plan {
        let retired = self.memory.grace.retired(in_use, Instant::now());
        let input = PlanInput {
            desired,
            gateway: &self.gateway,
            health: &self.health,
            terminator: self.terminator,
            elsewhere,
            actual,
            retired: &retired,
            cursor: self.memory.cursor,
            now: self.now,
        };
        plan::plan_part(&input, in_use)
    }

    fn apply(&mut self, plan: &Plan, actual: &ActualState, to: &mut dyn Dataplane) -> Report {
        let report = apply::apply(to, plan);
        self.memory.grace.switched(actual, plan, Instant::now());
        report
    }

    /// Reads what there is.
    fn read(&self, dataplane: &mut dyn Dataplane) -> Result<ActualState, DataplaneError> {
        let mut actual = dataplane.read(&plan::backend_addresses(&self.desired))?;
        actual.stored = self.stored_flows(&actual, dataplane)?;
        Ok(actual)
    }

    /// The stored flows, if they could settle something.
    pub(super) fn stored_flows(
        &self,
        actual: &ActualState,
        dataplane: &mut dyn Dataplane,
    ) -> Result<Option<StoredFlows>, DataplaneError> {
        let vips = settle::due_vips(actual, &self.gateway);
        if vips.is_empty() {
            return Ok(None);
        }
        let idle_ticks = self.gateway.settle_after_ticks();
        dataplane.stored_flows(&vips, idle_ticks).map(Some)
    }
}

/// Whether some object found no room: then groups compete for it, and are planned together.
fn is_full(plan: &Plan) -> bool {
    let mut conditions = plan.conditions.iter();
    conditions.any(|condition| condition.reason.is_capacity())
}
