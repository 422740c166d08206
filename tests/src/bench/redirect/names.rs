//! What 100,000 host names cost: memory, the time of a change, and that of a request's lookup.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lbagent::desired::Domain;
use lbagent_common::limits;
use serde_json::json;

use super::super::control::Figure;
use super::super::report::median;
use crate::gateway::Gateway;
use crate::map_entries;
use crate::prog_run::{Action, CLIENT_V4, Side, VIP_V4};
use crate::redirect_rig::{Opened, RedirectRig};
use crate::redirect_site::services;
use crate::tcp_segment::flags;
use crate::topology::Shape;

const NAMES: usize = 100_000;
/// Names of a group.
const OF_GROUP: usize = 500;
/// Changes whose median counts.
const CHANGES: usize = 31;

fn name(number: usize) -> String {
    format!("n{number:06}.names.example")
}

/// Measures all of it.
pub(super) fn measure(is_quick: bool) -> Result<Vec<Figure>> {
    let mut figures = lookups(if is_quick { 3_000 } else { 30_000 })?;
    figures.extend(changes()?);
    Ok(figures)
}

/// Single runs of the real object, each of another name or all of the same one, in turns: what the runs
/// themselves cost is in all figures alike.
fn lookups(runs: usize) -> Result<Vec<Figure>> {
    let mut web = RedirectRig::new()?;
    let (client, vip) = (CLIENT_V4.parse()?, VIP_V4.parse()?);
    let (_, opened) = web.connect(SocketAddr::new(client, 2000), SocketAddr::new(vip, 80))?;
    let groups = web.rig.desired.service_groups.values_mut();
    let group = groups
        .into_iter()
        .find(|group| group.name == "shop")
        .context("a group")?;
    let domain = |number| Domain {
        fqdn: name(number),
        certificate: None,
    };
    group.domains.push(domain(0));
    web.rig.reconcile()?;
    let memory = |web: &mut RedirectRig| {
        map_entries::memory(&web.rig.dataplane.ingress_program()?.info()?, limits::HOSTS)
    };
    let empty = memory(&mut web)?;
    let mut few = Vec::new();
    for _ in 0..runs {
        few.push(time(&mut web, &opened, 0)?);
    }
    let groups = web.rig.desired.service_groups.values_mut();
    let group = groups
        .into_iter()
        .find(|group| group.name == "shop")
        .context("a group")?;
    group.domains.extend((1..NAMES).map(domain));
    web.rig.reconcile()?;
    let (mut hot, mut cold) = (Vec::new(), Vec::new());
    for run in 0..runs {
        hot.push(time(&mut web, &opened, 0)?);
        // A step without a common divisor comes to every name before it comes to one again.
        cold.push(time(&mut web, &opened, run * 61_843 % NAMES)?);
    }
    let bytes = memory(&mut web)? - empty;
    let middle = |mut times: Vec<f64>| median(&mut times).context("no runs");
    let (few, hot, cold) = (middle(few)?, middle(hot)?, middle(cold)?);
    let figure =
        |what: &str, value, unit| Figure::new(format!("{NAMES} names: {what}"), value, unit, None);
    Ok(vec![
        figure(
            "memory of the map",
            bytes as f64 / f64::from(1 << 20),
            "MiB",
        ),
        figure("a request, one name again and again", hot - few, "ns"),
        figure("a request, another name each", cold - few, "ns"),
    ])
}

/// Nanoseconds of a request for a name.
fn time(web: &mut RedirectRig, opened: &Opened, number: usize) -> Result<f64> {
    let request = format!(
        "GET /page HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n\r\n",
        name(number)
    );
    let frame = opened.frame(flags::PSH, 0, 0, request.as_bytes());
    let (action, _, took) = web.rig.run_timed(Side::Client, &frame)?;
    ensure!(
        action == Action::Transmit,
        "{} was not redirected",
        name(number)
    );
    Ok(took.as_nanos() as f64)
}

/// From a request to the agent until the data plane holds what it asks for.
fn changes() -> Result<Vec<Figure>> {
    let gateway = Gateway::start_with(Shape::Routed, 1, |config| {
        config.redirect.insert("at_nic", "on");
    })?;
    let create = |first: usize, count: usize| -> Result<Duration> {
        let names = first..first + count;
        let domains: Vec<_> = names
            .map(|number| json!({ "name": name(number) }))
            .collect();
        let group =
            json!({ "name": format!("g{first}"), "domains": domains, "services": services() });
        let begun = Instant::now();
        gateway.agent.call("POST", "/v1/services", Some(&group))?;
        Ok(begun.elapsed())
    };
    let one_more = |first: usize| -> Result<f64> {
        let mut times = Vec::new();
        for number in first..first + CHANGES {
            times.push(create(number, 1)?.as_secs_f64() * 1e3);
        }
        median(&mut times).context("no changes")
    };
    let few = one_more(NAMES)?;
    for first in (0..NAMES).step_by(OF_GROUP) {
        create(first, OF_GROUP)?;
    }
    let many = one_more(NAMES + CHANGES)?;
    let figure = |what: &str, value| Figure::new(what, value, "ms", None);
    Ok(vec![
        figure("a group with a name more, beside none", few),
        figure(&format!("a group with a name more, beside {NAMES}"), many),
    ])
}
