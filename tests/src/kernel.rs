//! What the kernel tells of a namespace: its counters, and its TCP sockets.

use crate::netns::NetNs;

fn read(ns: &NetNs, file: &str) -> String {
    let path = format!("/proc/thread-self/net/{file}");
    let text = ns.run(|| std::fs::read_to_string(&path));
    text.unwrap_or_else(|error| panic!("{path} of {}: {error}", ns.label()))
}

/// A counter: `/proc/net/snmp` has a line of names and one of values for each protocol,
/// `/proc/net/snmp6` (protocol `Icmp6`) a line for each counter.
///
/// # Panics
///
/// If the kernel has no such counter.
#[track_caller]
pub fn counter(ns: &NetNs, protocol: &str, name: &str) -> u64 {
    let value = if protocol == "Icmp6" {
        let text = read(ns, "snmp6");
        let mut lines = text.lines().map(str::split_whitespace);
        let line = lines.find_map(|mut line| (line.next()? == name).then_some(line));
        line.and_then(|mut line| line.next()?.parse().ok())
    } else {
        let text = read(ns, "snmp");
        let prefix = format!("{protocol}:");
        let mut lines = text.lines().filter(|line| line.starts_with(&prefix));
        let mut words = || lines.next().map(str::split_whitespace);
        let pairs = words()
            .zip(words())
            .map(|(names, values)| names.zip(values));
        let found = pairs.and_then(|mut pairs| pairs.find(|(found, _)| *found == name));
        found.and_then(|(_, value)| value.parse().ok())
    };
    value.unwrap_or_else(|| panic!("the kernel has no counter {protocol} {name}"))
}

/// Segments that a namespace's TCP has sent again: what counts packets may have counted these too.
pub fn retransmitted(ns: &NetNs) -> u64 {
    counter(ns, "Tcp", "RetransSegs")
}

/// Connections that may still cause packets: neither listening nor waiting in vain for late ones.
pub fn busy_connections(ns: &NetNs) -> usize {
    let is_busy = |(_, state): &(u16, u8)| !matches!(*state, LISTEN | TIME_WAIT);
    sockets(ns).into_iter().filter(is_busy).count()
}

/// The TCP ports that are listened on, one for each socket.
pub fn listeners(ns: &NetNs) -> Vec<u16> {
    let listening = sockets(ns)
        .into_iter()
        .filter(|(_, state)| *state == LISTEN);
    listening.map(|(port, _)| port).collect()
}

/// States of `/proc/net/tcp`.
const TIME_WAIT: u8 = 0x06;
const LISTEN: u8 = 0x0a;

/// Local port and state of every TCP socket of both families, half-open connections included.
pub fn sockets(ns: &NetNs) -> Vec<(u16, u8)> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let port = words.next()?.rsplit(':').next()?;
        let state = words.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((port, u8::from_str_radix(state, 16).ok()?))
    };
    let text = ["tcp", "tcp6"].map(|file| read(ns, file));
    let lines = text.iter().flat_map(|text| text.lines().skip(1));
    lines.filter_map(parse).collect()
}
