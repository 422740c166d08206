//! Forwarding mode `dsr-ipip`: the packet travels inside an IP packet (RFC 2003, RFC 2473), of
//! whichever family the backend's address is.

use lbagent_common::Protocol;

/// What the outer header announces.
#[inline(always)]
pub fn protocol(is_inner_v4: bool) -> Protocol {
    if is_inner_v4 {
        Protocol::IPIP
    } else {
        Protocol::IPV6
    }
}
