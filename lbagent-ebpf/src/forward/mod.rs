//! Stage 6: rewrite for the backend and send.

pub mod nat;
pub mod rewrite;
