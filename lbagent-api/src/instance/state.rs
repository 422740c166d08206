//! Whether an instance gets traffic.

use serde::{Deserialize, Serialize};

/// Whether an instance gets traffic, in the contract's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Nothing.
    Stopped,
    /// Not reported by lbagent.
    Starting,
    /// New and established connections.
    Running,
    /// Established connections only.
    Draining,
    /// Not reported by lbagent.
    Stopping,
    /// Not reported by lbagent.
    Standby,
    /// Not reported by lbagent.
    Template,
    /// Not reported by lbagent.
    Checkpoint,
    /// It is gone.
    Deleted,
}

impl InstanceState {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Standby => "standby",
            Self::Template => "template",
            Self::Checkpoint => "checkpoint",
            Self::Deleted => "deleted",
        }
    }
}
