//! The real lbterm, and others in its place, through the whole way: client, XDP, socket lookup,
//! terminator, instance.

mod bulk;
mod changes;
mod foreign;
mod grpc;
mod load;
mod programs;
mod scan;
mod soak;
mod units;
mod upgrades;
mod websockets;
