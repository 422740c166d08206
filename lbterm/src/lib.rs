//! lbterm, the terminator of lbagent: ends TLS and balances connections and requests over the
//! instances of service groups. A process of its own without privileges, which the agent feeds over
//! a Unix socket and to whose listening sockets the kernel steers every published address and port.
//!
//! | module | what |
//! |---|---|
//! | `control` | client of the agent: snapshots in, verdicts and reports out |
//! | `worker` | one thread and runtime for each core: accepts, and sends connections on their way |
//! | `tls` | certificate by server name, alerts, session tickets |
//! | `stream` | `tls` alone: the decrypted bytes to an instance |
//! | `http` | requests |
//! | `route`, `balance` | which group, which instance |
//! | `limits`, `metrics` | bounds; counters |
//! | `proxies` | proxies in front of the gateway |

pub mod balance;
pub mod cli;
mod confine;
pub mod conn;
pub mod control;
pub mod crew;
mod heads;
pub mod http;
pub mod limits;
pub mod listen;
pub mod metrics;
mod notify;
mod proxies;
mod report;
pub mod route;
pub mod run;
pub mod serving;
mod stream;
mod successor;
pub mod tls;
pub mod upstream;
pub mod worker;

/// An error and what caused it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
