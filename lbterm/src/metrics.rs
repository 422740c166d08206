//! Counters. Those of the terminator as a whole are kept by each worker for itself and added up for
//! a report; those of a group are shared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lbagent_api::terminator::{DURATION_BOUNDS_US, Durations, duration_part};

/// Declares an enum of counters, each with its name in reports.
macro_rules! counters {
    ($(#[$doc:meta])* $set:ident of $kind:ident { $($(#[$line:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$line])* $variant,)*
        }

        impl $kind {
            /// All of them with their names in reports.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)*];
        }

        /// One number for each of the counters.
        #[derive(Debug)]
        pub struct $set([AtomicU64; $kind::ALL.len()]);

        impl Default for $set {
            fn default() -> Self {
                Self([const { AtomicU64::new(0) }; $kind::ALL.len()])
            }
        }

        impl $set {
            /// Counts one more.
            pub fn count(&self, which: $kind) {
                self.add(which, 1);
            }

            /// Counts so many more.
            pub fn add(&self, which: $kind, more: u64) {
                self.0[which as usize].fetch_add(more, Ordering::Relaxed);
            }

            /// How many there were.
            pub fn get(&self, which: $kind) -> u64 {
                self.0[which as usize].load(Ordering::Relaxed)
            }

            /// Adds what is not 0 to a report.
            pub fn add_to(&self, report: &mut BTreeMap<String, u64>) {
                for (which, name) in $kind::ALL {
                    let value = self.get(*which);
                    if value > 0 {
                        *report.entry((*name).to_owned()).or_default() += value;
                    }
                }
            }
        }
    };
}

counters! {
    /// What happened at a worker.
    Events of Counter {
        /// Connections taken from the listening sockets.
        Accepted = "accepted",
        /// Taking one failed, mostly for want of file descriptors.
        AcceptFailed = "accept_failed",
        /// Closed at once: as many as allowed were open.
        RefusedLimit = "refused_limit",
        /// Closed at once: as many as allowed were open from the same source.
        RefusedSource = "refused_source",
        /// Closed at once: nothing is published where the client dialled.
        RefusedUnpublished = "refused_unpublished",
        /// Closed at once: no header of the PROXY protocol came from a proxy that sends one.
        ProxyHeaderInvalid = "proxy_header_invalid",
        /// TLS handshakes that succeeded.
        Handshakes = "handshakes",
        /// Among them, those that resumed a session.
        HandshakesResumed = "handshakes_resumed",
        /// Handshakes that failed, for any of the reasons below or another one.
        HandshakeFailed = "handshake_failed",
        /// The client did not finish its handshake in time.
        HandshakeTimeout = "handshake_timeout",
        /// The client named a server that nobody has.
        HandshakeUnknownName = "handshake_unknown_name",
        /// The client named no server, and there is no default certificate or no single service.
        HandshakeNoName = "handshake_no_name",
        /// Requests whose head hyper refused: malformed, or larger than allowed.
        RequestMalformed = "request_malformed",
        /// Connections closed because a head took too long.
        HeadTimeout = "head_timeout",
        /// Connections closed because nothing came or went for too long.
        HttpIdle = "http_idle",
        /// HTTP/2 connections closed because the client reset or opened too many streams, or sent too
        /// large heads.
        Http2Flooded = "http2_flooded",
        /// Clients that were sent to HTTPS.
        Redirected = "redirected",
        /// Requests that were sent again, to the same or another instance.
        Retried = "retried",
        /// Connections that went on as WebSockets or the like.
        Upgraded = "upgraded",
        /// Requests answered with [`crate::http::Answer::HostMissing`].
        HostMissing = "host_missing",
        /// Requests answered with [`crate::http::Answer::HostDuplicate`].
        HostDuplicate = "host_duplicate",
        /// Requests answered with [`crate::http::Answer::HostInvalid`].
        HostInvalid = "host_invalid",
        /// Requests answered with [`crate::http::Answer::TargetDiffers`].
        TargetDiffers = "target_differs",
        /// Requests answered with [`crate::http::Answer::TargetInvalid`].
        TargetInvalid = "target_invalid",
        /// Requests answered with [`crate::http::Answer::LengthAndCoding`].
        LengthAndCoding = "length_and_coding",
        /// Requests answered with [`crate::http::Answer::CodingInvalid`].
        CodingInvalid = "coding_invalid",
        /// Requests answered with [`crate::http::Answer::CodingUnknown`].
        CodingUnknown = "coding_unknown",
        /// Requests answered with [`crate::http::Answer::BodyInvalid`].
        BodyInvalid = "body_invalid",
        /// Requests answered with [`crate::http::Answer::ConnectRefused`].
        ConnectRefused = "connect_refused",
        /// Requests answered with [`crate::http::Answer::Misdirected`].
        Misdirected = "misdirected",
        /// Requests answered with [`crate::http::Answer::ProtocolUnknown`].
        ProtocolUnknown = "protocol_unknown",
        /// Requests answered with [`crate::http::Answer::NoService`].
        NoService = "no_service",
        /// Requests answered with [`crate::http::Answer::TooManyRequests`].
        TooManyRequests = "too_many_requests",
        /// Requests answered with [`crate::http::Answer::NoInstance`].
        NoInstance = "no_instance",
        /// Requests answered with [`crate::http::Answer::AllBusy`].
        AllBusy = "all_busy",
        /// Requests answered with [`crate::http::Answer::UpstreamFault`].
        UpstreamFault = "upstream_fault",
        /// Requests answered with [`crate::http::Answer::UpstreamLate`].
        UpstreamLate = "upstream_late",
    }
}

counters! {
    /// What happened to a service group.
    GroupCounters of GroupCounter {
        /// Connections that were passed on (`tls`).
        Streams = "streams",
        /// Requests.
        Requests = "requests",
        /// Answers of instances with status 101, after which the connection is no longer HTTP.
        Responses1xx = "responses_1xx",
        /// Answers of instances by the class of their status.
        Responses2xx = "responses_2xx",
        /// The same.
        Responses3xx = "responses_3xx",
        /// The same.
        Responses4xx = "responses_4xx",
        /// The same.
        Responses5xx = "responses_5xx",
        /// Bytes from clients, decrypted.
        BytesIn = "bytes_in",
        /// Bytes to clients, before they were encrypted.
        BytesOut = "bytes_out",
        /// An instance was asked for while each that may be had as many as its soft limit.
        OverSoftLimit = "over_soft_limit",
        /// Refused, because each instance had as many as its hard limit.
        OverHardLimit = "over_hard_limit",
        /// Refused, because no instance may take anything.
        NoInstance = "no_instance",
        /// Connecting to an instance failed; each address and instance counts.
        ConnectFailed = "connect_failed",
        /// Given up, because no instance could be connected to.
        Unreachable = "unreachable",
        /// Connections closed because no byte came for too long.
        IdleTimeout = "idle_timeout",
    }
}

/// What a worker counts.
#[derive(Debug, Default)]
pub struct Counters {
    events: Events,
    /// By part of [`Durations`].
    took: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    took_us: AtomicU64,
}

impl Counters {
    /// Counts one more.
    pub fn count(&self, which: Counter) {
        self.events.count(which);
    }

    /// Counts so many more.
    pub fn add(&self, which: Counter, more: u64) {
        self.events.add(which, more);
    }

    /// How many there were.
    pub fn get(&self, which: Counter) -> u64 {
        self.events.get(which)
    }

    /// A request took so long until the head of its answer.
    pub fn request_took(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took[duration_part(micros)].fetch_add(1, Ordering::Relaxed);
        self.took_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Adds what is not 0 to a report.
    pub fn add_to(&self, report: &mut BTreeMap<String, u64>) {
        self.events.add_to(report);
    }

    /// Adds how long requests took.
    pub fn add_durations(&self, requests_took: &mut Durations) {
        requests_took.counts.resize(self.took.len(), 0);
        for (sum, part) in requests_took.counts.iter_mut().zip(&self.took) {
            *sum += part.load(Ordering::Relaxed);
        }
        requests_took.sum_us += self.took_us.load(Ordering::Relaxed);
    }
}

impl GroupCounters {
    /// Whether anything has happened.
    pub fn is_used(&self) -> bool {
        self.0.iter().any(|value| value.load(Ordering::Relaxed) > 0)
    }
}
