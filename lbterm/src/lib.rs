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

pub mod balance;
pub mod conn;
pub mod http;
pub mod metrics;
pub mod route;
pub mod serving;
pub mod worker;
