//! The endpoints in process, on a store in a file, the real reconciler and the data plane's twin.

mod certificate_choice;
mod certificates;
mod contract;
mod etag;
mod events;
mod extensions;
mod lifecycle;
mod metrics;
mod openapi;
mod patch;
mod policy;
mod web_pages;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::dataplane::fake::FakeDataplane;
use crate::dataplane::{AttachedMode, Capacity, Hook, Path};
use crate::health::HealthHandle;
use crate::plan::{Health, SynShield, TerminatorView, UnpublishedPorts, WithoutTerminator};
use crate::reconcile::{Reconciler, Timing};
use crate::store::RedbStore;
use crate::terminator::TerminatorHandle;

/// A running agent without a kernel.
struct Server {
    context: Arc<Context>,
    router: Router,
    router_2024: Router,
    desired: Arc<Desired>,
    stop: watch::Sender<bool>,
    _directory: tempfile::TempDir,
    _interfaces: watch::Sender<Vec<InterfaceStatus>>,
}

/// Instances 10.0.0.1 to 10.0.0.99 are reachable, others are not.
fn fake_dataplane() -> FakeDataplane {
    let capacity = Capacity {
        slots: 8192,
        ..Capacity::default()
    };
    let mut dataplane = FakeDataplane::new(capacity);
    dataplane.paths = (1..100)
        .map(|host| {
            let address = IpAddr::from([10, 0, 0, host]);
            let source = IpAddr::from([10, 0, 0, 254]);
            (
                address,
                Path {
                    ifindex: 2,
                    source,
                    onlink_prefix: 24,
                    takes_xdp: true,
                    mtu: 0,
                    next_hop: None,
                },
            )
        })
        .collect();
    dataplane
}

fn vips() -> BTreeSet<IpAddr> {
    ["192.0.2.1", "192.0.2.2"]
        .iter()
        .map(|vip| vip.parse().unwrap())
        .collect()
}

async fn answered(router: Router, request: Request<Body>) -> (u16, Value) {
    let path = request.uri().to_string();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| panic!("{path}: {status}, no JSON: {bytes:?}"));
    (status, body)
}

impl Server {
    fn start() -> Self {
        Self::with_token(None)
    }

    fn with_token(token: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&directory.path().join("state.redb")).unwrap();
        let desired = Arc::new(Desired::load(Arc::new(store)).unwrap());
        let gateway = GatewaySettings {
            vips: vips(),
            unpublished_ports: UnpublishedPorts::Pass,
            hash_seed: desired.hash_seed(),
            udp_idle: Duration::from_secs(60),
            settle_after: GatewaySettings::SETTLE_AFTER,
            source_port_first: GatewaySettings::SOURCE_PORT_FIRST,
            source_port_count: GatewaySettings::SOURCE_PORT_COUNT,
            without_terminator: WithoutTerminator::Reset,
            answers_per_second: GatewaySettings::ANSWERS_PER_SECOND,
            redirect_at_nic: true,
            not_at_nic: None,
            without_shield: None,
            syn_shield: SynShield::default(),
        };
        let (reconciler, handle) = Reconciler::new(
            Box::new(fake_dataplane()),
            gateway.clone(),
            desired.subscribe(),
            watch::channel(Health::new()).1,
            watch::channel(TerminatorView::default()).1,
            Timing::default(),
        )
        .unwrap();
        tokio::spawn(reconciler.run());
        let interfaces = watch::Sender::new(vec![InterfaceStatus {
            interface: "eth0".into(),
            hook: Hook::Client,
            ifindex: Some(1),
            mode: Some(AttachedMode::Native),
            reason: None,
        }]);
        let stop = watch::Sender::new(false);
        let context = Arc::new(Context {
            health: HealthHandle::idle(gateway.clone()),
            gateway,
            metro_domain: "lb.internal".into(),
            token: token.map(|token| crate::desired::Digest::of(token.as_bytes())),
            tcp_without_token: token.is_none(),
            refusals: Refusals::default(),
            requests: Default::default(),
            reserved_names: Arc::new(BTreeSet::from(["www".to_owned()])),
            private_domain: None,
            terminator: TerminatorHandle::idle(handle.clone(), &desired, directory.path()),
            desired: desired.clone(),
            reconciler: handle,
            interfaces: interfaces.subscribe(),
            monitor: crate::monitor::MonitorHandle::closed(),
            fragments: Arc::default(),
            object: None,
            subscribers: Arc::new(Semaphore::new(MAX_SUBSCRIBERS)),
            stopped: stop.subscribe(),
            started_at: OffsetDateTime::now_utc(),
        });
        let router = router(context.clone(), Dialect::Current);
        let router_2024 = super::router(context.clone(), Dialect::Of2024);
        Self {
            context,
            router,
            router_2024,
            desired,
            stop,
            _directory: directory,
            _interfaces: interfaces,
        }
    }

    /// Sends a request as `"METHOD PATH"`; returns HTTP status and body.
    async fn call(&self, request: &str, body: impl Into<Body>) -> (u16, Value) {
        self.call_as(None, request, body).await
    }

    async fn call_as(
        &self,
        authorization: Option<&str>,
        request: &str,
        body: impl Into<Body>,
    ) -> (u16, Value) {
        let (method, path) = request.split_once(' ').unwrap();
        let mut builder = Request::builder().method(method).uri(path);
        if let Some(value) = authorization {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let request = builder.body(body.into()).unwrap();
        answered(self.router.clone(), request).await
    }

    /// Sends a request for one object to the listener of 2024.
    async fn item_2024(&self, request: &str, body: Value) -> Value {
        let (method, path) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body.to_string())).unwrap();
        let answer = answered(self.router_2024.clone(), request).await.1;
        assert_eq!(answer["status"], "success", "{answer}");
        let members: Vec<_> = answer.as_object().unwrap().keys().collect();
        assert_eq!(members, ["data", "status"]);
        answer["data"]["service_groups"][0].clone()
    }

    async fn call_as_json(&self, request: &str) -> (u16, Value) {
        let (method, path) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::ACCEPT, "application/json");
        answered(self.router.clone(), request.body(Body::empty()).unwrap()).await
    }

    /// Sends a request that must succeed as a whole; returns the items of its answer.
    async fn items(&self, request: &str, body: Value) -> Vec<Value> {
        let (status, answer) = self.call(request, body.to_string()).await;
        assert_eq!(
            (status, &answer["status"]),
            (200, &"success".into()),
            "{request}: {answer}"
        );
        let data = answer["data"].as_object().unwrap();
        assert_eq!(data.len(), 1, "data has one member: {answer}");
        data.values().next().unwrap().as_array().unwrap().clone()
    }

    /// As [`items`](Self::items), for a single object.
    async fn item(&self, request: &str, body: Value) -> Value {
        let mut items = self.items(request, body).await;
        assert_eq!(items.len(), 1, "{items:?}");
        items.remove(0)
    }

    /// A request that the contract refuses as a whole.
    #[track_caller]
    fn refuses(
        &self,
        request: &'static str,
        body: &'static str,
        status: u16,
        message: &'static str,
    ) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let before = self.desired.current();
            let (found, answer) = self.call(request, body).await;
            assert_eq!(found, status, "{place}: {answer}");
            let text = answer["message"].as_str().unwrap_or_default();
            assert!(
                text.contains(message),
                "{place}: expected {message:?} in {answer}"
            );
            assert_eq!(answer["status"], "error", "{place}");
            assert_eq!(answer["errors"][0]["status"], status, "{place}");
            assert_eq!(
                before,
                self.desired.current(),
                "{place}: something was changed"
            );
        }
    }

    /// A request for one object that fails as an item, and with it the whole.
    #[track_caller]
    fn fails(
        &self,
        request: &'static str,
        body: Value,
        code: u16,
        message: &'static str,
    ) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let before = self.desired.current();
            let (status, answer) = self.call(request, body.to_string()).await;
            assert_eq!(status, 200, "{place}: {answer}");
            assert_eq!(answer["status"], "error", "{place}: {answer}");
            assert_eq!(
                answer["message"], "Failed to perform all operations",
                "{place}"
            );
            let data = answer["data"].as_object().unwrap().values().next().unwrap();
            let item = &data[0];
            assert_eq!(item["status"], "error", "{place}: {answer}");
            assert_eq!(item["error"], code, "{place}: {answer}");
            let text = item["message"].as_str().unwrap_or_default();
            assert!(
                text.contains(message),
                "{place}: expected {message:?} in {item}"
            );
            assert_eq!(
                before,
                self.desired.current(),
                "{place}: something was changed"
            );
        }
    }
}
