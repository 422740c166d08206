//! Ring 2: the real daemon and real TCP and UDP, in namespaces.

mod harness;
