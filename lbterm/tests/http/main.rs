//! HTTP through a real worker on loopback sockets: raw bytes where bytes matter, kept libraries as
//! clients and instances elsewhere.

mod access;
mod balancing;
mod client;
mod exchange;
mod failures;
mod floods;
mod gateway;
mod http2;
mod interim;
mod limits;
mod origin;
mod parity;
mod proxies;
mod smuggling;
mod tls;
mod upgrades;
