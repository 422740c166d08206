//! `lbctl service policy` and `lbctl instance policy`: show, or change what the options name.

mod health;
mod payload;
mod terminated;

use std::net::IpAddr;

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use lbagent_api::paths;
use lbagent_api::policy::{
    ForwardingMode, GroupPolicy, InstancePolicy, IpNetwork, PolicyData, QuicLayout, QuicServerId,
    SourcePolicy, parse_prefix,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;

use super::each::each;
use super::{Kind, advise_word, retried};
use crate::client::{Client, encode};
use crate::error::CtlError;
use crate::output::{Format, list, record};

/// Explains `lbctl service policy --help`.
pub const GROUP_HELP: &str = "\
Forwarding modes:
  nat        address and port are rewritten, replies come back through the gateway
  dsr-l2     only the link address changes; the instance has the VIP and answers directly
  dsr-ipip   inside an IP packet; the instance has the VIP and answers directly
  dsr-gue    the same inside UDP (Generic UDP Encapsulation)
The dsr modes rewrite no ports.

Sources: the longest prefix that holds a client's address decides. A client that no prefix holds
is denied if there is an --allow, else it is served.

  lbctl service policy web                                    # shows it
  lbctl service policy web --deny 203.0.113.0/24              # the rest stays as it is
  lbctl service policy web --port 443 --upstream h2c          # as the terminator serves it

Options that are not given leave that part of the policy as it is; without any, it is shown.";

/// `lbctl service policy`.
#[derive(Debug, Args)]
pub struct GroupArguments {
    /// Names or UUIDs; what the options say is done to each
    #[arg(required = true, value_name = "NAME|UUID", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// How packets travel to the instances
    #[arg(long, value_name = "MODE", value_parser = modes())]
    forwarding_mode: Option<ForwardingMode>,
    /// Serve these clients, in place of those allowed before; can be repeated
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = parse_prefix)]
    allow: Vec<IpNetwork>,
    /// Do not serve these, in place of those denied before; can be repeated
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = parse_prefix)]
    deny: Vec<IpNetwork>,
    /// Forget the prefixes that were allowed and denied before
    #[arg(long)]
    clear_sources: bool,
    /// Publish on this VIP only, in place of those chosen before; can be repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    vip: Vec<IpAddr>,
    /// Publish on every VIP of the gateway
    #[arg(long, conflicts_with = "vip")]
    all_vips: bool,
    /// Balance QUIC by the server id of so many bytes (1 to 15) in its connection ids
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15))]
    quic_server_id_length: Option<u8>,
    /// Number (0 to 6) that those connection ids carry; 0 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=6))]
    quic_config_rotation: Option<u8>,
    /// Balance QUIC as any UDP
    #[arg(long, conflicts_with_all = ["quic_server_id_length", "quic_config_rotation"])]
    no_quic: bool,
    #[command(flatten)]
    terminated: Box<terminated::Arguments>,
    #[command(flatten)]
    health: Box<health::Arguments>,
}

fn modes() -> impl TypedValueParser<Value = ForwardingMode> {
    PossibleValuesParser::new(ForwardingMode::ALL.map(ForwardingMode::name))
        .try_map(|word| word.parse::<ForwardingMode>())
}

/// `lbctl instance policy`.
#[derive(Debug, Args)]
pub struct InstanceArguments {
    /// Names or UUIDs; what the options say is done to each
    #[arg(required = true, value_name = "NAME|UUID", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// Share of new flows against the group's other instances: 0 to 1000, 100 unless set. With 0
    /// it gets none, and keeps the established ones
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(..=i64::from(InstancePolicy::MAX_WEIGHT))
    )]
    weight: Option<u16>,
    /// What the instance's QUIC connection ids hold, in hexadecimal: 1 to 15 bytes
    #[arg(long, value_name = "HEX")]
    quic_server_id: Option<QuicServerId>,
    /// Forget the server id
    #[arg(long, conflicts_with = "quic_server_id")]
    no_quic_server_id: bool,
}

/// What an object has beyond the contract.
pub trait Policy: Serialize + DeserializeOwned + Default + Clone + PartialEq {
    /// Whose it is.
    const KIND: Kind;
    /// Path below which lbagent's own endpoints for these objects are.
    const BASE: &str;

    /// Path of an object's policy.
    fn path(word: &str) -> String {
        format!("{}/{}/policy", Self::BASE, encode(word))
    }
}

impl Policy for GroupPolicy {
    const KIND: Kind = Kind::ServiceGroup;
    const BASE: &str = paths::X_SERVICE_GROUPS;
}

impl Policy for InstancePolicy {
    const KIND: Kind = Kind::Instance;
    const BASE: &str = paths::X_INSTANCES;
}

/// Runs `lbctl service policy`.
pub fn group(arguments: &GroupArguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let change = |former: &GroupPolicy| changed_group(former, arguments);
    let names = &arguments.names;
    let act = |word: &str| show_or_change(word, client, change);
    each(
        names,
        format,
        act,
        |word, it| render(names, word, group_rows(it)),
        "\n\n",
    )
}

/// Runs `lbctl instance policy`.
pub fn instance(
    arguments: &InstanceArguments,
    client: &Client,
    format: Format,
) -> Result<(), CtlError> {
    let change = |former: &InstancePolicy| Ok(changed_instance(former, arguments));
    let names = &arguments.names;
    let act = |word: &str| show_or_change(word, client, change);
    each(
        names,
        format,
        act,
        |word, it| render(names, word, instance_rows(it)),
        "\n\n",
    )
}

/// A policy for people; of several each with its name.
fn render(names: &[String], word: &str, mut rows: Vec<Row>) -> String {
    if names.len() > 1 {
        rows.insert(0, ("name", word.to_owned()));
    }
    record(&rows)
}

/// Reads an object's policy; `change` says what it is to be, if the command line asks for that. When
/// somebody else changes the object meanwhile, that is done to what they made of it.
fn show_or_change<P: Policy>(
    word: &str,
    client: &Client,
    change: impl Fn(&P) -> Result<Option<P>, CtlError>,
) -> Result<P, CtlError> {
    let path = P::path(word);
    let advise = |error| advise_word(error, P::KIND, word, client);
    retried(|| {
        let (former, tag) = client.get_tagged::<PolicyData<P>>(&path).map_err(advise)?;
        let Some(policy) = change(&former.policy)? else {
            return Ok(former.policy);
        };
        let body = PolicyData { policy };
        let answer = client.send_if::<PolicyData<P>>(tag.as_deref(), Method::PUT, &path, &body);
        Ok(answer.map_err(advise)?.policy)
    })
}

/// What the policy is to be; nothing if only its sight is asked for.
fn changed_group(
    former: &GroupPolicy,
    arguments: &GroupArguments,
) -> Result<Option<GroupPolicy>, CtlError> {
    let GroupArguments {
        names: _,
        forwarding_mode,
        allow,
        deny,
        clear_sources,
        vip,
        all_vips,
        quic_server_id_length,
        quic_config_rotation,
        no_quic,
        terminated,
        health,
    } = arguments;
    let is_change = forwarding_mode.is_some()
        || !allow.is_empty()
        || !deny.is_empty()
        || *clear_sources
        || !vip.is_empty()
        || *all_vips
        || quic_server_id_length.is_some()
        || quic_config_rotation.is_some()
        || *no_quic
        || terminated.is_change()
        || health.is_change();
    if !is_change {
        return Ok(None);
    }
    let prefixes = |given: &Vec<IpNetwork>, former: &Vec<IpNetwork>| {
        if given.is_empty() && !clear_sources {
            former.clone()
        } else {
            given.clone()
        }
    };
    let sources = SourcePolicy {
        allow: prefixes(allow, &former.sources.allow),
        deny: prefixes(deny, &former.sources.deny),
    };
    sources
        .check()
        .map_err(|error| CtlError::Usage(error.to_string()))?;
    let quic = changed_quic(former, *quic_server_id_length, *quic_config_rotation)?;
    Ok(Some(GroupPolicy {
        forwarding_mode: forwarding_mode.unwrap_or(former.forwarding_mode),
        sources,
        quic: quic.filter(|_| !no_quic),
        health: health.changed(&former.health)?,
        vips: match vip.is_empty() && !all_vips {
            true => former.vips.clone(),
            false => vip.iter().copied().collect(),
        },
        terminated: terminated.changed(&former.terminated)?,
    }))
}

fn changed_quic(
    former: &GroupPolicy,
    server_id_length: Option<u8>,
    config_rotation: Option<u8>,
) -> Result<Option<QuicLayout>, CtlError> {
    match (server_id_length, config_rotation, former.quic) {
        (None, None, former) => Ok(former),
        (None, Some(_), None) => Err(CtlError::Usage(
            "--quic-config-rotation alone says nothing, as the service group has no QUIC layout; \
             give --quic-server-id-length too"
                .to_owned(),
        )),
        (Some(server_id_length), config_rotation, former) => Ok(Some(QuicLayout {
            server_id_length,
            config_rotation: config_rotation
                .or(former.map(|layout| layout.config_rotation))
                .unwrap_or(0),
        })),
        (None, Some(config_rotation), Some(former)) => Ok(Some(QuicLayout {
            config_rotation,
            ..former
        })),
    }
}

fn changed_instance(
    former: &InstancePolicy,
    arguments: &InstanceArguments,
) -> Option<InstancePolicy> {
    let InstanceArguments {
        names: _,
        weight,
        quic_server_id,
        no_quic_server_id,
    } = arguments;
    if weight.is_none() && quic_server_id.is_none() && !no_quic_server_id {
        return None;
    }
    let former_id = former
        .quic_server_id
        .as_ref()
        .filter(|_| !no_quic_server_id);
    Some(InstancePolicy {
        weight: weight.unwrap_or(former.weight),
        quic_server_id: quic_server_id.as_ref().or(former_id).cloned(),
    })
}

/// One member of a record: its name and its value.
pub type Row = (&'static str, String);

fn group_rows(policy: &GroupPolicy) -> Vec<Row> {
    let GroupPolicy {
        forwarding_mode,
        sources: SourcePolicy { allow, deny },
        quic,
        health,
        vips,
        terminated,
    } = policy;
    let quic = quic.map(|layout| {
        format!(
            "server id length {}, config rotation {}",
            layout.server_id_length, layout.config_rotation
        )
    });
    let mut rows = vec![
        ("forwarding mode", forwarding_mode.to_string()),
        ("allow", list(allow)),
        ("deny", list(deny)),
        ("quic", list(&quic)),
    ];
    if !vips.is_empty() {
        rows.push(("vips", list(vips)));
    }
    rows.extend(terminated::row(terminated));
    if !health.is_default() {
        rows.extend(health::rows(health));
    }
    rows
}

fn instance_rows(policy: &InstancePolicy) -> Vec<Row> {
    vec![
        ("weight", policy.weight.to_string()),
        ("quic server id", list(&policy.quic_server_id)),
    ]
}

/// The rows of a group's policy that are not what they are without one, for `service get`.
pub fn group_rows_asked_for(client: &Client, word: &str) -> Result<Vec<Row>, CtlError> {
    let policy = fetch(client, word)?;
    Ok(differing(
        group_rows(&policy),
        group_rows(&GroupPolicy::default()),
    ))
}

/// As [`group_rows_asked_for`], for `instance get`.
pub fn instance_rows_asked_for(client: &Client, word: &str) -> Result<Vec<Row>, CtlError> {
    let policy = fetch(client, word)?;
    Ok(differing(
        instance_rows(&policy),
        instance_rows(&InstancePolicy::default()),
    ))
}

fn fetch<P: Policy>(client: &Client, word: &str) -> Result<P, CtlError> {
    match client.get::<PolicyData<P>>(&P::path(word)) {
        Ok(answer) => Ok(answer.policy),
        // It went meanwhile, or the agent is of a version without policies.
        Err(CtlError::Refused { status: 404, .. }) => Ok(P::default()),
        Err(error) => Err(error),
    }
}

fn differing(rows: Vec<Row>, defaults: Vec<Row>) -> Vec<Row> {
    rows.into_iter()
        .filter(|row| !defaults.contains(row))
        .collect()
}

/// What `lbctl show` adds to a group's name; nothing where nothing was asked for. The forwarding
/// mode has a column of its own there.
pub fn remark(policy: &GroupPolicy) -> String {
    let mut parts = Vec::new();
    let SourcePolicy { allow, deny } = &policy.sources;
    for (prefixes, word) in [(allow, "allow"), (deny, "deny")] {
        match prefixes.as_slice() {
            [] => {}
            [one] => parts.push(format!("{word} {one}")),
            several => parts.push(format!("{word} {} prefixes", several.len())),
        }
    }
    if let Some(layout) = &policy.quic {
        parts.push(format!("quic server id length {}", layout.server_id_length));
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
