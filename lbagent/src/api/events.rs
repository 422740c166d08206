//! Streams of what happens: `/v1/x/events`, lbagent's own, and `/v1/audit` in the contract's form. Both
//! tell the store's history: what was committed, in its order.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use lbagent_api::ContractError;
use lbagent_api::access::ACCOUNT_HEADER;
use lbagent_api::events::{
    Applied, AuditData, AuditEvent, AuditObject, AuditQuery, Author, Change, EventsQuery, Gap,
    ObjectKind, parse_generation,
};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Shared;
use super::auth::As;
use super::error::{ApiError, AuthError};
use super::openapi::{Refusal, params};
use super::request::Pairs;
use super::respond::Answer;
use crate::desired::{Caller, ChangeWatch, Desired, ObjectChange, Role};
use crate::reconcile::ReconcileResult;
use crate::store::WatchError;

/// Silence after which a comment shows that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The same for `/v1/audit`, as its contract has it.
const AUDIT_HEARTBEAT: Duration = Duration::from_secs(30);

/// The paths of the streams.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(audit))
}

/// What a stream turns into events.
enum Happened {
    Changes(Vec<ObjectChange>),
    Applied(Arc<ReconcileResult>),
    Gap(Gap),
}

/// Follows the history, and goes on behind a gap.
struct Source {
    desired: Arc<Desired>,
    changes: ChangeWatch,
    /// Results of the reconciler, if they are asked for.
    results: Option<watch::Receiver<Arc<ReconcileResult>>>,
    applied: u64,
    stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Source {
    fn open(context: &Shared, from: Option<u64>, with_results: bool) -> Result<Self, ApiError> {
        let place = Arc::clone(&context.subscribers).try_acquire_owned();
        let place = place.map_err(|_| {
            ApiError::TooMany("Too many event streams are open; close one, or try again later")
        })?;
        let now = context.desired.current().generation;
        // A generation that is yet to come is another history's: that of a store before a restore.
        let from = from.unwrap_or(now + 1);
        if from > now + 1 {
            let text = format!("Generation {from} does not exist yet; the newest is {now}");
            return Err(ContractError::invalid(text).into());
        }
        Ok(Self {
            changes: context.desired.changes(from),
            desired: Arc::clone(&context.desired),
            results: with_results.then(|| context.reconciler.subscribe()),
            applied: 0,
            stopped: context.stopped.clone(),
            _place: place,
        })
    }

    /// The next thing that happened; `None` when the agent stops. Each branch is cancel-safe.
    async fn next(&mut self) -> Option<Happened> {
        loop {
            let result = async {
                match &mut self.results {
                    None => std::future::pending().await,
                    Some(results) => results
                        .changed()
                        .await
                        .map(|()| results.borrow_and_update().clone()),
                }
            };
            tokio::select! {
                changes = self.changes.next() => match changes {
                    Ok(changes) => return Some(Happened::Changes(changes)),
                    Err(WatchError::Compacted { asked, oldest }) => {
                        self.changes = self.desired.changes(oldest);
                        return Some(Happened::Gap(Gap { from: asked, next: oldest }));
                    }
                    Err(WatchError::Closed) => return None,
                },
                result = result => match result {
                    Ok(result) if result.generation > self.applied => {
                        self.applied = result.generation;
                        return Some(Happened::Applied(result));
                    }
                    Ok(_) => {}
                    Err(_) => return None,
                },
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            }
        }
    }
}

/// A response that goes on until the client or the agent ends it.
fn stream_of(
    source: Source,
    heartbeat: Duration,
    tell: impl FnMut(Happened) -> Vec<Event> + Send + 'static,
) -> axum::response::Response {
    let events = stream::unfold(
        (source, tell, VecDeque::new()),
        |(mut source, mut tell, mut queue)| async move {
            while queue.is_empty() {
                queue.extend(tell(source.next().await?));
            }
            let event: Event = queue.pop_front()?;
            Some((Ok::<_, Infallible>(event), (source, tell, queue)))
        },
    );
    let alive = KeepAlive::new().interval(heartbeat).text("heartbeat");
    Sse::new(events).keep_alive(alive).into_response()
}

/// An event; objects of ours are always JSON.
fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(data).unwrap_or_default()
}

/// Where a client goes on that was here before.
fn after_last(headers: &HeaderMap) -> Result<Option<u64>, ContractError> {
    let id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = id.map(|id| parse_generation("Last-Event-ID", id));
    Ok(last.transpose()?.map(|last| last.saturating_add(1)))
}

/// Gives events their generations as ids. A client that comes back must not miss the rest of a
/// transaction: only the last event of a generation has its id.
fn with_ids(events: Vec<(Event, u64)>) -> Vec<Event> {
    let generations: Vec<u64> = events.iter().map(|(_, generation)| *generation).collect();
    let next = generations.into_iter().skip(1).map(Some).chain([None]);
    let told = |((event, generation), next): ((Event, u64), Option<u64>)| match next {
        Some(next) if next == generation => event,
        _ => event.id(generation.to_string()),
    };
    events.into_iter().zip(next).map(told).collect()
}

/// Follow changes
///
/// Server-sent events: `created`, `changed` and `deleted` (`Change`), `gap` (`Gap`), and for
/// operators `applied` (`Applied`). `Last-Event-ID` resumes a stream.
#[utoipa::path(
    get, path = "/v1/x/events", operation_id = "follow_events", params(params::Events),
    responses(
        (
            status = 200, description = "A stream.", body = String,
            content_type = "text/event-stream"
        ),
        (status = 429, description = "Too many streams are open.", body = Refusal)
    )
)]
pub(super) async fn events(
    State(context): State<Shared>,
    As(caller): As,
    pairs: Pairs,
    headers: HeaderMap,
) -> Answer {
    let query = EventsQuery::parse(pairs.iter())?;
    let is_operator = caller.role == Role::Operator;
    // An operator sees all accounts, unless it names one, here or as for any request; anybody else its own.
    let is_named = headers.contains_key(ACCOUNT_HEADER);
    let account = match query.account {
        Some(account) if !is_operator && account != caller.account => {
            let (role, needed) = (caller.role, Role::Operator);
            return Err(AuthError::Forbidden { role, needed }.into());
        }
        None if !is_operator || is_named => Some(caller.account),
        account => account,
    };
    let from = after_last(&headers)?.or(query.from);
    let source = Source::open(&context, from, is_operator)?;
    let is_wanted = move |it: &ObjectChange| {
        may_see(caller, it)
            && (query.kinds.is_empty() || query.kinds.contains(&it.change.kind))
            && account.is_none_or(|account| account == it.change.account)
    };
    let tell = move |happened| match happened {
        Happened::Changes(changes) => {
            let wanted: Vec<_> = changes.iter().filter(|it| is_wanted(it)).collect();
            let told = wanted.iter().map(|it| {
                let change = Change {
                    by: author_for(caller, it),
                    ..it.change.clone()
                };
                (event(change.r#type.name(), &change), change.generation)
            });
            with_ids(told.collect())
        }
        Happened::Applied(result) => vec![event(
            "applied",
            &Applied {
                generation: result.generation,
                steps: result.steps,
                conditions: result.conditions.len(),
                error: result.error.clone(),
            },
        )],
        Happened::Gap(gap) => vec![event("gap", &gap).id((gap.next - 1).to_string())],
    };
    Ok(stream_of(source, HEARTBEAT, tell))
}

/// Who may do what is a matter of operators.
fn may_see(caller: Caller, it: &ObjectChange) -> bool {
    let is_access = matches!(it.change.kind, ObjectKind::Account | ObjectKind::Token);
    !is_access || caller.role == Role::Operator
}

/// Who made a change, as far as it concerns who is told.
fn author_for(caller: Caller, it: &ObjectChange) -> Author {
    match caller.role {
        Role::Operator => it.change.by.clone(),
        Role::Member | Role::Reader => it.change.by.told_to(caller.account),
    }
}

/// Follow the states of instances
///
/// Server-sent events, each an `AuditEvent`.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "follow_audit", params(params::Audit),
    responses(
        (
            status = 200, description = "A stream.", body = String,
            content_type = "text/event-stream"
        ),
        (status = 429, description = "Too many streams are open.", body = Refusal)
    )
)]
pub(super) async fn audit(
    State(context): State<Shared>,
    As(caller): As,
    pairs: Pairs,
    headers: HeaderMap,
) -> Answer {
    let query = AuditQuery::parse(pairs.iter())?;
    let source = Source::open(&context, after_last(&headers)?, false)?;
    let tell = move |happened| match happened {
        Happened::Changes(changes) => {
            let told = changes.iter().filter_map(|it| {
                let told = audited(it, caller, &query)?;
                Some((event(&told.r#type, &told), it.change.generation))
            });
            with_ids(told.collect())
        }
        Happened::Gap(gap) => vec![event("gap", &lost(gap)).id((gap.next - 1).to_string())],
        Happened::Applied(_) => Vec::new(),
    };
    Ok(stream_of(source, AUDIT_HEARTBEAT, tell))
}

/// A change, if it is one that this client wants to see, and may. Instances are told by their
/// states, to their account; accounts and tokens to every operator.
fn audited(it: &ObjectChange, caller: Caller, query: &AuditQuery) -> Option<AuditEvent> {
    let (r#type, object) = match it.change.kind {
        ObjectKind::Instance => ("vm.state_change", "i"),
        ObjectKind::Account => ("x.account_change", "x.account"),
        ObjectKind::Token => ("x.token_change", "x.token"),
        ObjectKind::ServiceGroup | ObjectKind::Certificate => return None,
    };
    let is_instance = it.change.kind == ObjectKind::Instance;
    let uuid: Uuid = it.change.uuid;
    let is_asked = (query.events.is_empty() || query.events.iter().any(|asked| asked == r#type))
        && (query.uuids.is_empty() || query.uuids.contains(&uuid));
    let is_visible = may_see(caller, it) && (!is_instance || it.change.account == caller.account);
    let is_change = !is_instance || it.state_before != it.state_now;
    let (prev, new) = match is_instance {
        true => (it.state_before.clone(), it.state_now.as_deref()),
        false => (None, Some(it.change.r#type.name())),
    };
    (is_asked && is_visible && is_change).then(|| AuditEvent {
        r#type: r#type.to_owned(),
        timestamp: it.change.at,
        object: Some(AuditObject {
            r#type: object.to_owned(),
            uuid,
            owner: it.change.account,
            tags: Vec::new(),
        }),
        data: Some(AuditData {
            prev,
            new: new.unwrap_or("deleted").to_owned(),
        }),
        by: Some(author_for(caller, it)),
        dropped: None,
    })
}

fn lost(gap: Gap) -> AuditEvent {
    AuditEvent {
        r#type: "gap".to_owned(),
        timestamp: OffsetDateTime::now_utc(),
        object: None,
        data: None,
        by: None,
        dropped: Some(gap.next - gap.from),
    }
}
