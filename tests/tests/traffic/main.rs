//! Ring 2: the real daemon and real TCP and UDP, in namespaces. One file a subject; every test has
//! its own network and may run beside any other.

mod balance;
mod bulk;
mod decap;
mod detach;
mod drain;
mod dsr;
mod failures;
mod foreign;
mod fragments;
mod gateways;
mod harness;
mod health;
mod icmp;
mod interfaces;
mod kernel_devices;
mod kernel_tunnels;
mod local_clients;
mod membership;
mod modes;
mod next_hops;
mod overload;
mod redirect;
mod redirect_browser;
mod redirect_flood;
mod redirect_limits;
mod restart;
mod sharing;
mod startup;
mod steer;
mod terminated;
mod terminated_settings;
mod terminator;
mod upgrade;
mod vip_choice;
mod watch;
