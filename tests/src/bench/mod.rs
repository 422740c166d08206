//! Benchmarks: `cargo xtask bench …`. Each has a file with its cases and its goals.

pub mod control;
pub mod datapath;
mod floors;
pub mod health;
mod programs;
pub mod redirect;
pub mod report;
pub mod terminator;
pub mod traffic;

#[expect(dead_code, reason = "the programs use the rest")]
#[path = "../../../lbagent-ebpf/src/bench/layout.rs"]
mod layout;
