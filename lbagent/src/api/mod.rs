//! The REST server: one endpoint → desired state. `error` is the only mapping to HTTP.
//!
//! An endpoint reads a request, has [`crate::desired`] do it, and waits for a bounded time until
//! the reconciler has applied it, so that what a call asked for has taken effect when it returns.

mod access;
mod auth;
mod batch;
mod certificates;
mod error;
mod etag;
mod events;
mod extensions;
mod gateway_metrics;
mod health;
mod instances;
mod lifecycle;
mod membership;
mod metrics;
mod monitor;
mod openapi;
mod patch;
mod policy;
mod request;
mod respond;
mod service_groups;
mod terminators;
#[cfg(test)]
mod tests;
mod trace;
mod unsupported;
mod wait;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::dataplane::{InterfaceStatus, ObjectStatus};
use crate::desired::validate::Gateway;
use crate::desired::{Desired, Digest};
use crate::fragments;
use crate::health::HealthHandle;
use crate::monitor::MonitorHandle;
use crate::observe::metrics::RequestTimes;
use crate::plan::GatewaySettings;
use crate::reconcile::ReconcilerHandle;
use crate::terminator::TerminatorHandle;

pub use auth::{MetricsReaders, Peer, Refusals};
pub use openapi::document;

/// Longest wait for the data plane after a change.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest body: a request for some ten thousand objects.
const MAX_BODY: usize = 8 << 20;
/// Largest state document.
const MAX_DOCUMENT: usize = 64 << 20;

/// Streams of events at a time, of all clients together.
pub const MAX_SUBSCRIBERS: usize = 64;

/// What the endpoints work with.
pub struct Context {
    /// Part of the configuration that concerns the data plane.
    pub gateway: GatewaySettings,
    /// Domain below which unqualified domain names live.
    pub metro_domain: String,
    /// Labels below it that no service group can have.
    pub reserved_names: Arc<BTreeSet<String>>,
    /// Domain below which the operator's name servers know instances by their names.
    pub private_domain: Option<String>,
    /// Of the configured token, which is an operator's.
    pub token: Option<Digest>,
    /// Whether who connects over TCP is an operator without any token.
    pub tcp_without_token: bool,
    /// Requests of nobody in particular.
    pub refusals: Refusals,
    /// How long requests took.
    pub requests: RequestTimes,
    /// The desired state.
    pub desired: Arc<Desired>,
    /// The reconciler.
    pub reconciler: ReconcilerHandle,
    /// Tells what becomes of packets.
    pub monitor: MonitorHandle,
    /// What becomes of fragments that came before the first one of their datagram.
    pub fragments: Arc<fragments::Counters>,
    /// What the health checks have found.
    pub health: HealthHandle,
    /// Who takes connections to ports with handlers.
    pub terminator: TerminatorHandle,
    /// How the programs are attached.
    pub interfaces: watch::Receiver<Vec<InterfaceStatus>>,
    /// Which object is attached.
    pub object: Option<ObjectStatus>,
    /// Places for streams of events.
    pub subscribers: Arc<Semaphore>,
    /// Whether the agent stops, which ends streams.
    pub stopped: watch::Receiver<bool>,
    /// When the agent started.
    pub started_at: OffsetDateTime,
}

impl Context {
    /// What requests are checked against.
    fn checks(&self) -> Gateway {
        Gateway {
            vips: self.gateway.vips.clone(),
            metro_domain: self.metro_domain.clone(),
            reserved_names: self.reserved_names.clone(),
        }
    }
}

type Shared = Arc<Context>;

/// In whose words a listener answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of today's official clients.
    #[default]
    Current,
    /// Those of the documentation of 2024, literally.
    Of2024,
}

/// All routes, each with its description.
fn routes() -> OpenApiRouter<Shared> {
    let state = routes!(extensions::export, extensions::import);
    openapi::described()
        .merge(service_group_routes())
        .merge(instance_routes())
        .merge(certificates::routes())
        .merge(events::routes())
        .merge(membership::routes())
        .merge(policy::routes())
        .merge(access::routes())
        .merge(terminators::routes())
        .routes(routes!(extensions::status))
        .routes(routes!(extensions::table))
        .routes(routes!(extensions::counters))
        .routes(routes!(gateway_metrics::metrics))
        .routes(routes!(monitor::monitor))
        .routes(routes!(trace::trace))
        .routes(routes!(health::list))
        .routes(routes!(health::get_one))
        .routes(state.layer(DefaultBodyLimit::max(MAX_DOCUMENT)))
        .routes(routes!(extensions::healthz))
        .merge(openapi::routes())
        .merge(unsupported::routes())
}

fn service_group_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(
            service_groups::list,
            service_groups::create,
            service_groups::delete,
            patch::groups
        ))
        .routes(routes!(service_groups::names))
        .routes(routes!(
            service_groups::get_one,
            service_groups::delete_one,
            patch::group
        ))
}

fn instance_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(
            instances::list,
            instances::create,
            instances::delete
        ))
        .routes(routes!(instances::get_one, instances::delete_one))
        .routes(routes!(lifecycle::stop))
        .routes(routes!(lifecycle::start))
        .routes(routes!(lifecycle::suspend))
        .routes(routes!(wait::several))
        .routes(routes!(metrics::several))
        .routes(routes!(lifecycle::stop_one))
        .routes(routes!(lifecycle::start_one))
        .routes(routes!(lifecycle::suspend_one))
        .routes(routes!(wait::one))
        .routes(routes!(metrics::one))
}

/// The routes of a listener.
pub fn router(context: Shared, dialect: Dialect) -> Router {
    Router::from(routes())
        .fallback(unsupported::no_such_path)
        .method_not_allowed_fallback(unsupported::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(context.clone(), etag::conditional))
        .layer(from_fn_with_state(context.clone(), auth::identify))
        .layer(from_fn(respond::catch_panics))
        .layer(from_fn_with_state(context.clone(), gateway_metrics::time))
        .layer(from_fn(move |request, next| {
            respond::note(dialect, request, next)
        }))
        .with_state(context)
}

/// The routes of a listener that serves metrics alone, to whoever can reach it.
pub fn metrics_router(context: Shared, readers: MetricsReaders) -> Router {
    let routes = OpenApiRouter::new().routes(routes!(gateway_metrics::metrics));
    Router::from(routes)
        .fallback(unsupported::no_such_path)
        .method_not_allowed_fallback(unsupported::wrong_method)
        .layer(from_fn(move |request, next| {
            auth::let_in(readers, request, next)
        }))
        .layer(from_fn(respond::catch_panics))
        .layer(from_fn(|request, next| {
            respond::note(Dialect::Current, request, next)
        }))
        .with_state(context)
}
