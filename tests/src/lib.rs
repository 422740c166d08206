//! The harness of rings 1 to 3 and of the demo: namespaces, topologies, servers, clients, and the
//! runner of the real daemon and the real `lbctl`.

pub mod agent;
pub mod bench;
pub mod bpf_stack;
pub mod capabilities;
pub mod client;
pub mod ctl;
pub mod fleet;
pub mod gateway;
pub mod http;
pub mod ip;
pub mod load;
pub mod net_link;
pub mod netns;
pub mod object_file;
pub mod observe;
pub mod outer;
pub mod packet_builder;
pub mod path_mtu;
pub mod pattern;
pub mod ping;
pub mod poll;
pub mod prog_run;
pub mod random;
pub mod server;
pub mod shared_load;
pub mod skip;
pub mod slowness;
pub mod store_load;
pub mod syscalls;
pub mod terminator;
pub mod topology;
pub mod transfer;
pub mod tunnel;
pub mod web;
