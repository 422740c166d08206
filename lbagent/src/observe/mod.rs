//! From what the data plane holds and has counted to what operators read. Pure.

mod report;
mod table;

pub use report::{condition, counters, maps};
pub use table::table;
