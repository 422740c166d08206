//! What ties service groups together: groups that share one of these must be planned together.

use lbagent_common::{Port, ReturnKey, VipKey};
use uuid::Uuid;

use super::backends::group_tag;
use super::hosts::is_redirect;
use super::publish::{vip_key, vips_of};
use super::{GatewaySettings, protocol};
use crate::desired::{DesiredState, Instance};

/// Something that several groups may claim. It also names the entries that a group may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// A port of a VIP: the group created first has it.
    Vip(VipKey),
    /// A port with handlers. Those that share one are planned apart; a group that has it as a raw
    /// port all the same comes with each.
    Terminated(VipKey),
    /// A port of [`Terminated`](Self::Terminated) that sends clients to HTTPS.
    Redirected(VipKey),
    /// A reply source: the VIPs that share one store their flows.
    Return(ReturnKey),
    /// The number by which a group's backends are told from those of others.
    Tag(u32),
}

/// What a group claims; nothing, if there is no such group. `members` are its instances, whatever their state.
pub fn links<'a>(
    desired: &DesiredState,
    gateway: &GatewaySettings,
    group: Uuid,
    members: impl Iterator<Item = &'a Instance> + Clone,
) -> Vec<Link> {
    let Some(found) = desired.service_groups.get(&group) else {
        return Vec::new();
    };
    let mut links = vec![Link::Tag(group_tag(group))];
    for service in found.placed().iter() {
        let vips = vips_of(service, gateway);
        if !service.is_raw() {
            let keys = vips.into_iter().map(|vip| vip_key(vip, service));
            for key in keys {
                links.push(Link::Terminated(key));
                links.extend(is_redirect(service).then_some(Link::Redirected(key)));
            }
            continue;
        }
        links.extend(vips.into_iter().map(|vip| Link::Vip(vip_key(vip, service))));
        let addresses = members.clone();
        let addresses = addresses.flat_map(|instance| [true, false].map(|v4| instance.address(v4)));
        links.extend(addresses.flatten().map(|address| {
            let port = Port::new(service.destination_port);
            Link::Return(ReturnKey::new(
                address.into(),
                port,
                protocol(service.protocol),
            ))
        }));
    }
    links
}
