//! The real binary between a fake agent, real TLS clients and real TCP servers on loopback. Nothing
//! steers here, so the address of a listening socket is the address that is published.

mod agent;
mod client;
mod command_line;
mod control;
mod graceful;
mod instances;
mod limits;
mod pki;
mod process;
mod snapshots;
mod stream;
mod tls;
