//! From what the data plane holds and has counted to what operators read. Pure.

pub mod metrics;
mod report;
mod shield;
mod table;
mod trace;

pub use report::{condition, counters, maps, steering, verdict};
pub use shield::shield;
pub use table::table;
pub use trace::{Arrival, explain, interface_name};
