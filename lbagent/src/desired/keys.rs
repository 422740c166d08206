//! Names of the store's keys. Claims (names, domains, ports, addresses) hold their owner; that they
//! are keys makes a transaction refuse the second claim. Names are an account's own; domains, ports
//! and addresses are the gateway's.

use std::net::IpAddr;

use uuid::Uuid;

use super::{Service, Transport};

pub(super) const GROUPS: &str = "/groups/";
pub(super) const INSTANCES: &str = "/instances/";
pub(super) const CERTIFICATES: &str = "/certificates/";
/// Private keys, each beside its certificate. Nothing reads them but what uses them.
pub(super) const CERTIFICATE_KEYS: &str = "/certificate-keys/";
/// How many service groups name each certificate.
pub(super) const CERTIFICATE_USES: &str = "/certificate-uses/";
pub(super) const NAMES: &str = "/names/";
pub(super) const DOMAINS: &str = "/domains/";
pub(super) const PORTS: &str = "/ports/";
pub(super) const ACCOUNTS: &str = "/accounts/";
pub(super) const TOKENS: &str = "/tokens/";
pub(super) const ADDRESSES: &str = "/addresses/";
pub(super) const HASH_SEED: &str = "/settings/hash_seed";
/// Secrets of TLS session tickets, shared by all gateways of a store.
pub(super) const TICKET_KEYS: &str = "/settings/ticket_keys";
/// The certificate authority of a development gateway, with its private key.
pub(super) const AUTHORITY: &str = "/settings/development_ca";
pub(super) const SCHEMA: &str = "/settings/schema";

pub(super) fn group(uuid: Uuid) -> String {
    format!("{GROUPS}{uuid}")
}

pub(super) fn instance(uuid: Uuid) -> String {
    format!("{INSTANCES}{uuid}")
}

pub(super) fn group_name(account: Uuid, name: &str) -> String {
    format!("{NAMES}groups/{account}/{name}")
}

pub(super) fn instance_name(account: Uuid, name: &str) -> String {
    format!("{NAMES}instances/{account}/{name}")
}

pub(super) fn certificate(uuid: Uuid) -> String {
    format!("{CERTIFICATES}{uuid}")
}

pub(super) fn certificate_key(uuid: Uuid) -> String {
    format!("{CERTIFICATE_KEYS}{uuid}")
}

/// The claim of a certificate, shared by the groups whose domains name it.
pub(super) fn certificate_use(uuid: Uuid) -> String {
    format!("{CERTIFICATE_USES}{uuid}")
}

pub(super) fn certificate_name(account: Uuid, name: &str) -> String {
    format!("{NAMES}certificates/{account}/{name}")
}

pub(super) fn account(uuid: Uuid) -> String {
    format!("{ACCOUNTS}{uuid}")
}

pub(super) fn account_name(name: &str) -> String {
    format!("{NAMES}accounts/{name}")
}

pub(super) fn token(uuid: Uuid) -> String {
    format!("{TOKENS}{uuid}")
}

/// The claim of an address: its instances are all of one account.
pub(super) fn address(address: IpAddr) -> String {
    format!("{ADDRESSES}{address}")
}

pub(super) fn domain(fqdn: &str) -> String {
    format!("{DOMAINS}{fqdn}")
}

/// The claim of a service: on one VIP, or on all of them (`*`).
pub(super) fn service(service: &Service) -> String {
    port(service.ip, service.protocol, service.port)
}

pub(super) fn port(vip: Option<IpAddr>, protocol: Transport, port: u16) -> String {
    let vip = vip.map_or_else(|| "*".to_owned(), |vip| vip.to_string());
    format!("{PORTS}{vip}/{}/{port}", protocol.name())
}
