//! Sending clients to HTTPS from within XDP: what the programs and user space have to agree on.
//!
//! The reader of requests is here because two builds of the same source decide: the one that the
//! programs run, and the one that tests hold against a reference.

mod answer;
mod bytes;
mod head;
mod names;
mod passed;
mod text;

pub use answer::{LONGEST_ANSWER, PREFIX, SUFFIX, answer_len, words};
pub use head::Head;
pub use names::HostNames;
pub use passed::Passed;
pub use text::{Text, end_at};
