//! From what the data plane holds and has counted to what operators read. Pure.

pub mod metrics;
mod report;
mod table;
mod trace;

pub use report::{condition, counters, maps, steering, verdict};
pub use table::table;
pub use trace::{Arrival, explain, interface_name};
