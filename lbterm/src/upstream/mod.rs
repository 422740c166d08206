//! The way to instances.

mod connect;

pub use connect::{NotConnected, connect, connect_any};
