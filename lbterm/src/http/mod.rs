//! Everything HTTP, behind [`serve_http`].

mod access;
mod answer;
mod authority;
mod bare;
mod body;
mod forward;
mod forwarded;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hop;
mod interim;
mod linger;
mod origin_form;
mod pulse;
mod rate;
mod redirect;
mod relay;
mod replay;
mod serve;
mod service;
mod upgrade;
mod watch;

use std::rc::Rc;
use std::sync::Arc;

pub use access::AccessLog;
pub use answer::Answer;
pub use body::{RequestBody, Upload};
pub use forward::is_idempotent;
pub use forwarded::write_line;
pub use interim::Interims;
pub use rate::Rates;
pub use serve::{LocalExecutor, serve_http};

use crate::upstream::Pool;

/// What the requests of one worker share.
#[derive(Debug, Default)]
pub struct Engine {
    /// Connections to instances.
    pub pool: Rc<Pool>,
}

/// What the requests of all workers share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Where requests are logged.
    pub access: Arc<AccessLog>,
    /// How many requests each source makes.
    pub rates: Rates,
}
