//! The load-balancing agent.

pub mod config;
pub mod dataplane;
pub mod desired;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod replay;
pub mod store;
