//! The real lbterm, and others in its place, through the whole way: client, XDP, socket lookup,
//! terminator, instance.

mod changes;
mod foreign;
mod load;
mod programs;
mod units;
mod upgrades;
