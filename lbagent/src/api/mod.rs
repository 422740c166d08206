//! The REST server: one endpoint → desired state. `error` is the only mapping to HTTP.
//!
//! An endpoint reads a request, has [`crate::desired`] do it, and waits for a bounded time until
//! the reconciler has applied it, so that what a call asked for has taken effect when it returns.

mod access;
mod auth;
mod certificates;
mod error;
mod etag;
mod events;
mod extensions;
mod health;
mod instances;
mod lifecycle;
mod membership;
mod metrics;
mod monitor;
mod patch;
mod policy;
mod request;
mod respond;
mod service_groups;
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
use axum::routing::{delete, get, put};
use lbagent_api::paths;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};

use crate::dataplane::{InterfaceStatus, ObjectStatus};
use crate::desired::validate::Gateway;
use crate::desired::{Desired, Digest};
use crate::fragments;
use crate::health::HealthHandle;
use crate::monitor::MonitorHandle;
use crate::plan::GatewaySettings;
use crate::reconcile::ReconcilerHandle;

pub use auth::{Peer, Refusals};

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

fn access_routes() -> Router<Shared> {
    let accounts = get(access::list_accounts).post(access::create_account);
    let account = get(access::get_account).delete(access::delete_account);
    let tokens = get(access::list_tokens).post(access::create_token);
    let below = |path: &str, rest: &str| format!("{path}/{{uuid}}{rest}");
    Router::new()
        .route(paths::ACCOUNTS, accounts)
        .route(&below(paths::ACCOUNTS, ""), account)
        .route(&below(paths::ACCOUNTS, "/quotas"), put(access::put_quotas))
        .route(paths::TOKENS, tokens)
        .route(&below(paths::TOKENS, ""), delete(access::revoke_token))
        .route(paths::QUOTAS, get(access::quotas))
        .route("/v1/users/{uuid}/quotas", get(access::quotas_by_uuid))
}

/// In whose words a listener answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of today's official clients.
    #[default]
    Current,
    /// Those of the documentation of 2024, literally.
    Of2024,
}

/// A path below one that names an object.
fn one(path: &str, rest: &str) -> String {
    format!("{path}/{{uuid}}{rest}")
}

/// The routes of instances.
fn instance_routes() -> Router<Shared> {
    let instances = get(instances::list)
        .post(instances::create)
        .delete(instances::delete)
        .patch(unsupported::endpoint);
    let instance = get(instances::get_one)
        .delete(instances::delete_one)
        .patch(unsupported::endpoint);
    Router::new()
        .route(paths::INSTANCES, instances)
        .route(paths::INSTANCES_STOP, put(lifecycle::stop))
        .route(paths::INSTANCES_START, put(lifecycle::start))
        .route(paths::INSTANCES_SUSPEND, put(lifecycle::suspend))
        .route(paths::INSTANCES_WAIT, get(wait::several).put(wait::several))
        .route(paths::INSTANCES_METRICS, get(metrics::several))
        .route(&one(paths::INSTANCES, ""), instance)
        .route(&one(paths::INSTANCES, "/stop"), put(lifecycle::stop_one))
        .route(&one(paths::INSTANCES, "/start"), put(lifecycle::start_one))
        .route(
            &one(paths::INSTANCES, "/suspend"),
            put(lifecycle::suspend_one),
        )
        .route(
            &one(paths::INSTANCES, "/wait"),
            get(wait::one).put(wait::one),
        )
        .route(&one(paths::INSTANCES, "/metrics"), get(metrics::one))
}

/// The routes of a listener.
pub fn router(context: Shared, dialect: Dialect) -> Router {
    let services = get(service_groups::list)
        .post(service_groups::create)
        .delete(service_groups::delete)
        .patch(patch::groups);
    let service = get(service_groups::get_one)
        .delete(service_groups::delete_one)
        .patch(patch::group);
    let state = get(extensions::export)
        .put(extensions::import)
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT));
    let router = Router::new()
        .route(paths::SERVICES, services)
        .route(paths::SERVICES_LIST, get(service_groups::names))
        .route(&one(paths::SERVICES, ""), service)
        .merge(instance_routes())
        .merge(certificates::routes())
        .merge(events::routes())
        .merge(membership::routes())
        .merge(policy::routes())
        .route(paths::STATUS, get(extensions::status))
        .route(paths::TABLE, get(extensions::table))
        .route(paths::COUNTERS, get(extensions::counters))
        .route(paths::MONITOR, get(monitor::monitor))
        .route(paths::TRACE, get(trace::trace))
        .route(paths::HEALTH, get(health::list))
        .route(
            &one(paths::X_SERVICE_GROUPS, "/health"),
            get(health::get_one),
        )
        .route(paths::STATE, state)
        .merge(access_routes())
        .route("/v1/healthz", get(extensions::healthz));
    unsupported::PATHS
        .iter()
        .fold(router, |router, path| {
            router.route(path, axum::routing::any(unsupported::endpoint))
        })
        .fallback(unsupported::no_such_path)
        .method_not_allowed_fallback(unsupported::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(context.clone(), etag::conditional))
        .layer(from_fn_with_state(context.clone(), auth::identify))
        .layer(from_fn(respond::catch_panics))
        .layer(from_fn(move |request, next| {
            respond::note(dialect, request, next)
        }))
        .with_state(context)
}
