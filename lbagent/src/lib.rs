//! The load-balancing agent.

pub mod dataplane;
pub mod desired;
