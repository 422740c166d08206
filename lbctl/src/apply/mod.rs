//! From objects of files to what the agent has: what differs, and the way there.

mod calls;
pub mod execute;
pub mod plan;
pub mod rules;
pub mod state;

pub use self::plan::{Action, Change, plan};
pub use self::state::{Present, State};
