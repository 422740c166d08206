//! A request from its head to its answer's.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderValue};
use http::{Request, Response, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use lbagent_api::terminator::{Proxies, ServiceKind};

use super::access::{Beginning, Record};
use super::answer::{Answer, AnswerForm};
use super::body::ResponseBody;
use super::forward::{self, Exchange, Refused, Sending};
use super::forwarded::{self, Forwarded};
use super::pulse::Pulse;
use super::rate::Scope;
use super::{authority, redirect, upgrade};
use crate::conn::ConnMeta;
use crate::metrics::{Counter, GroupCounter};
use crate::proxies;
use crate::route::{Target, canonical_host};
use crate::worker::Worker;

/// What goes on instead of HTTP after an upgrade.
pub type Tunnel = Pin<Box<dyn Future<Output = ()>>>;

/// What the requests of a client's connection share.
pub struct Connection {
    pub(super) meta: ConnMeta,
    pub(super) worker: Rc<Worker>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) forwarded: Forwarded,
    /// What goes on after the last answer.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
    /// The stream of HTTP/1.1 after the last answer, for a request that names another protocol.
    pub(super) upgrade: RefCell<Option<OnUpgrade>>,
    /// Requests that hyper has brought.
    requests: Cell<u64>,
    in_flight: Cell<u32>,
}

/// A request that has a place to go.
pub struct Admitted {
    /// The service that it is for.
    pub target: Arc<Target>,
    /// Host and perhaps port, as the client wrote them.
    pub host: HeaderValue,
}

impl Connection {
    /// A connection without requests so far.
    pub fn new(meta: ConnMeta, worker: Rc<Worker>, pulse: Arc<Pulse>) -> Self {
        let serving = worker.shared.now();
        let is_trusting = proxies::hold(&serving.routes.proxies.trusted, meta.peer.ip());
        let forwarded = Forwarded::new(meta.peer, meta.tls.is_some(), is_trusting);
        Self {
            meta,
            worker,
            pulse,
            forwarded,
            tunnel: RefCell::default(),
            upgrade: RefCell::default(),
            requests: Cell::new(0),
            in_flight: Cell::new(0),
        }
    }

    /// Requests whose answers have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(super) fn count(&self, counter: Counter) {
        self.worker.counters.count(counter);
    }

    /// Decides where a request goes, or which answer it gets at once.
    fn admit(&self, request: &request::Parts) -> Result<Admitted, Answer> {
        let serving = self.worker.shared.now();
        let routes = &serving.routes;
        let proxies = &routes.proxies;
        let client = || self.client(request, proxies);
        self.check_rate(None, routes.limits.requests_per_source, client)?;
        let authority = authority::check(request)?;
        let (name, _) = authority::split(authority).ok_or(Answer::HostInvalid)?;
        let name = canonical_host(name);
        let port = routes.port(self.meta.dialled).ok_or(Answer::NoService)?;
        let target = port.lookup(&name).ok_or(Answer::NoService)?;
        let scope = Some((target.group.uuid, target.port));
        self.check_rate(scope, target.policy.requests_per_source, client)?;
        // A client may use a connection for other hosts that its certificate names (RFC 9113,
        // section 9.1.1), but groups may differ in what their connections were checked for.
        let server_name = self
            .meta
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.as_deref());
        if let Some(server_name) = server_name
            && *server_name != *name
            && port
                .lookup(server_name)
                .is_none_or(|other| other.group.uuid != target.group.uuid)
        {
            return Err(Answer::Misdirected);
        }
        let host = match request.headers.get(header::HOST) {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(authority).map_err(|_| Answer::HostInvalid)?,
        };
        Ok(Admitted {
            target: Arc::clone(target),
            host,
        })
    }

    /// Who asks: the client, or whom a trusted proxy tells.
    fn client(&self, request: &request::Parts, proxies: &Proxies) -> IpAddr {
        let told = self
            .forwarded
            .is_trusting()
            .then(|| forwarded::client(&request.headers, &proxies.trusted));
        told.flatten().unwrap_or(self.meta.peer.ip())
    }

    fn check_rate(
        &self,
        scope: Scope,
        per_second: u32,
        client: impl Fn() -> IpAddr,
    ) -> Result<(), Answer> {
        if per_second == 0 {
            return Ok(());
        }
        let rates = &self.worker.shared.http.rates;
        if rates.allows(scope, client(), per_second, Instant::now()) {
            Ok(())
        } else {
            Err(Answer::TooManyRequests)
        }
    }

    /// Does what needs no waiting, and returns what does. A request that has two lengths is
    /// conflicting: hyper has dropped one of them already.
    pub(super) fn begin(
        self: &Rc<Self>,
        parts: request::Parts,
        incoming: Option<Incoming>,
        is_conflicting: bool,
    ) -> Begun {
        let began = Instant::now();
        let in_flight = InFlight::new(self);
        let form = AnswerForm::of(parts.version, &parts.headers);
        let mut record = self.begin_record(&parts, began);
        let admitted = match is_conflicting {
            true => Err(Answer::LengthAndCoding),
            false => self.admit(&parts),
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(answer) => return ready(self.refuse(answer, &form, record)),
        };
        let group = &admitted.target.group;
        group.counters.count(GroupCounter::Requests);
        if admitted.target.kind == ServiceKind::Redirect {
            let response = redirect::response(&parts.uri, &admitted);
            self.count(Counter::Redirected);
            if let Some(mut record) = record.take() {
                record.answered(response.status().as_u16(), "redirect");
                record.finish(0);
            }
            return ready(response.map(|()| ResponseBody::Own(None)));
        }
        let exchange = Exchange {
            connection: Rc::clone(self),
            admitted,
            began,
            in_flight,
            record,
        };
        let connection = Rc::clone(self);
        if upgrade::is_wanted(&parts, incoming.as_ref()) {
            return Box::pin(async move {
                let result = upgrade::upgrade(exchange, parts).await;
                Ok(connection.or_refuse(result, &form, began))
            });
        }
        let sending = Sending::new(exchange, parts, incoming);
        Box::pin(async move {
            let result = forward::forward(sending).await;
            Ok(connection.or_refuse(result, &form, began))
        })
    }

    fn or_refuse(
        &self,
        result: Result<Response<ResponseBody>, Refused>,
        form: &AnswerForm,
        began: Instant,
    ) -> Response<ResponseBody> {
        self.worker.counters.request_took(began.elapsed());
        result.unwrap_or_else(|(answer, record)| self.refuse(answer, form, record))
    }

    fn begin_record(&self, request: &request::Parts, began: Instant) -> Option<Box<Record>> {
        let shared = &self.worker.shared;
        let log = &shared.http.access;
        log.wants_next().then(|| {
            let serving = shared.now();
            Record::new(
                log,
                &Beginning {
                    began,
                    meta: &self.meta,
                    client: self.client(request, &serving.routes.proxies),
                    version: request.version,
                    method: &request.method,
                    path: request
                        .uri
                        .path_and_query()
                        .map_or("", |path| path.as_str()),
                },
            )
        })
    }

    fn refuse(
        &self,
        answer: Answer,
        form: &AnswerForm,
        record: Option<Box<Record>>,
    ) -> Response<ResponseBody> {
        self.count(answer.counter());
        let response = answer.response(form);
        if let Some(mut record) = record {
            record.answered(answer.status().as_u16(), answer.name());
            record.finish(response.body().len() as u64);
        }
        response.map(|body| ResponseBody::Own(Some(body)))
    }
}

/// One of a connection's requests, until its answer has ended.
pub struct InFlight(Rc<Connection>);

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlight")
    }
}

impl InFlight {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.in_flight.set(connection.in_flight.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = &self.0.in_flight;
        in_flight.set(in_flight.get() - 1);
    }
}

/// An answer to come.
pub type Begun = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>>>>;

fn ready(response: Response<ResponseBody>) -> Begun {
    Box::pin(std::future::ready(Ok(response)))
}

/// What hyper calls with each request of a connection.
pub struct Requests(pub Rc<Connection>);

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Begun;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let connection = &self.0;
        let number = connection.requests.get();
        connection.requests.set(number + 1);
        let is_conflicting = connection.pulse.is_conflicting(number);
        if request.version() == Version::HTTP_11 && request.headers().contains_key(header::UPGRADE)
        {
            let upgrade = hyper::upgrade::on(&mut request);
            connection.upgrade.replace(Some(upgrade));
        }
        let (parts, incoming) = request.into_parts();
        connection.begin(parts, Some(incoming), is_conflicting)
    }
}
