//! The load-balancing agent.
//!
//! The way of a configuration change: [`api`] → [`desired`] → [`store`] → [`plan`] → [`reconcile`]
//! → [`dataplane`]. [`agent`] has the table of tasks.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod decap;
pub mod desired;
pub mod fragments;
pub mod health;
pub mod monitor;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod replay;
pub mod status;
pub mod store;
pub mod terminator;
