//! Ports of the terminator: what is answered before the kernel has seen it.

use lbagent_common::{HostEntry, HostKey, Outcome, Protocol, Settings, VipEntry};

use super::{Stage, Tracer, end};
use crate::dataplane::DataplaneError;

/// Whose request it is.
enum Host {
    /// Nobody's, as far as the programs look.
    Unknown,
    /// Somebody's who answers it himself.
    Served,
    /// Somebody's who sends clients to HTTPS.
    Redirects,
}

impl Tracer<'_> {
    /// The end of a packet for a port with handlers, if it is not odd in any way.
    pub(super) fn terminated<T>(&mut self, vip: &VipEntry) -> Stage<T> {
        const TERMINATORS: &str = "the port belongs to the terminator on this gateway";
        let redirects = vip.flags & VipEntry::FLAG_REDIRECT != 0;
        self.redirects = redirects;
        if self.flow.protocol != Protocol::TCP {
            return end(Outcome::PassTerminate, TERMINATORS);
        }
        match (self.trace.is_new, self.host) {
            (true, _) => self.syn(redirects, vip.flags & VipEntry::FLAG_SHIELD != 0),
            (false, Some(host)) if redirects => self.request(vip, host),
            (false, _) if redirects => end(
                Outcome::PassRedirect,
                "a segment of a connection that the terminator has; what becomes of a request is told \
                 with the name of its host",
            ),
            (false, _) => end(Outcome::PassTerminate, TERMINATORS),
        }
    }

    fn syn<T>(&self, redirects: bool, is_shielded: bool) -> Stage<T> {
        let index = usize::from(!self.flow.vip.is_v4());
        let has_lease = self.settings.cookies_until[index] >= self.maps.tick();
        let per_tick = self.settings.shield_per_tick;
        match self.settings.shield_mode {
            _ if redirects && has_lease => end(
                Outcome::AnswerCookie,
                "the port redirects: the SYN is answered with a cookie, and nothing is kept",
            ),
            _ if redirects => end(
                Outcome::PassRedirect,
                "the port redirects, but the kernel is not ready for cookies: it answers the SYN itself",
            ),
            Settings::SHIELD_ON if is_shielded && has_lease => end(
                Outcome::AnswerShield,
                "syn_shield.mode is \"on\": the SYN is answered with a cookie",
            ),
            Settings::SHIELD_AUTO if is_shielded && has_lease => end(
                Outcome::PassTerminate,
                format!(
                    "the port belongs to the terminator on this gateway; beyond {per_tick} SYNs a second \
                     for this VIP on a CPU they are answered with cookies"
                ),
            ),
            _ => end(
                Outcome::PassTerminate,
                "the port belongs to the terminator on this gateway",
            ),
        }
    }

    /// A request that is whole, plain, and in the first segment.
    fn request<T>(&self, vip: &VipEntry, host: &str) -> Stage<T> {
        match self.find_host(vip, host)? {
            Host::Redirects => end(
                Outcome::AnswerRedirect,
                format!("a GET or HEAD in one segment is answered 308, to https://{host}"),
            ),
            Host::Served => end(
                Outcome::PassRedirect,
                "other_handler: the name's service group does not redirect to port 443 here, so the \
                 terminator answers",
            ),
            Host::Unknown => end(
                Outcome::PassRedirect,
                "unknown_host: no service group has this name on port 80 of the VIP, or only by a wildcard \
                 more than one label above it, or the name is too long, so the terminator answers",
            ),
        }
    }

    fn find_host(&self, vip: &VipEntry, host: &str) -> Result<Host, DataplaneError> {
        let parent = host
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        for name in [Some(host.to_owned()), parent].into_iter().flatten() {
            let Some(key) = HostKey::of(&name) else {
                continue;
            };
            let entry = self.maps.host(&key)?;
            let is_served = |entry: &HostEntry| entry.serves & vip.bit() != 0;
            if let Some(entry) = entry.filter(is_served) {
                return Ok(match entry.redirects & vip.bit() {
                    0 => Host::Served,
                    _ => Host::Redirects,
                });
            }
        }
        Ok(Host::Unknown)
    }
}
