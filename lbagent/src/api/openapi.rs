//! The API's description (OpenAPI 3.1) and a page to read it. The description is made from the
//! registration of the routes: a path that is served is described.
//!
//! Endpoints tell what is peculiar to them; what all of them share is added by [`shared`].

pub(super) mod bodies;
mod of_2024;
mod page;
pub(super) mod params;
mod shared;

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
pub(super) use lbagent_api::schema::Refusal;
use lbagent_api::{ItemError, events, monitor};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::respond::dialect;
use super::{Dialect, Shared};

/// Where the description is served.
pub(super) const DESCRIPTION: &str = "/v1/openapi.json";
/// Where people read it.
pub(super) const PAGE: &str = "/v1/docs";
const STYLE: &str = "/v1/docs/style.css";

/// Paths that anybody may read: they tell nothing of this gateway.
pub(super) const PUBLIC: [&str; 4] = ["/v1/healthz", DESCRIPTION, PAGE, STYLE];

/// What no single endpoint says.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "lbagent",
        description = include_str!("openapi/about.md"),
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/", description = "The agent that served this")),
    components(schemas(
        Refusal, ItemError, events::Change, events::Applied, events::Gap, events::AuditEvent,
        monitor::MonitorLine
    )),
    tags(
        (name = "Service groups", description = "Published ports, their domains and limits."),
        (name = "Instances", description = "Addresses that serve a group."),
        (name = "Certificates", description = "Chains and keys; keys only come in."),
        (name = "Accounts", description = "Accounts, tokens and quotas."),
        (name = "Extensions", description = "What the Services API has no words for."),
        (name = "Agent", description = "Health and this description."),
        (name = "Not supported", description = "Known to the Services API, answered with 501.")
    )
)]
struct About;

/// A router whose routes are described.
pub(super) fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(About::openapi())
}

/// The paths of the description itself.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(description))
        .routes(routes!(docs))
        .routes(routes!(style))
}

/// The description of a listener as JSON, as it is served and checked in.
pub fn document(dialect: Dialect) -> &'static str {
    &described_in(dialect).json
}

fn described_in(dialect: Dialect) -> &'static Document {
    static CURRENT: LazyLock<Document> = LazyLock::new(|| Document::of(Dialect::Current));
    static OF_2024: LazyLock<Document> = LazyLock::new(|| Document::of(Dialect::Of2024));
    match dialect {
        Dialect::Current => &CURRENT,
        Dialect::Of2024 => &OF_2024,
    }
}

struct Document {
    json: String,
    page: String,
}

impl Document {
    fn of(dialect: Dialect) -> Self {
        let described = super::routes().into_openapi();
        let mut value = serde_json::to_value(described).expect("a description is JSON");
        if dialect == Dialect::Of2024 {
            of_2024::adapt(&mut value);
        }
        shared::complete(&mut value);
        Self {
            json: json(&value),
            page: page::page(&value),
        }
    }
}

fn json(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("JSON can be written");
    text.push('\n');
    text
}

/// Show this description
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "get_openapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = Value))
)]
async fn description(State(_): State<Shared>) -> Response {
    constant("application/json", document(dialect()))
}

/// Show this description as a page
#[utoipa::path(
    get, path = "/v1/docs", operation_id = "get_docs",
    responses((status = 200, description = "A page.", body = String, content_type = "text/html"))
)]
async fn docs(State(_): State<Shared>) -> Response {
    constant("text/html; charset=utf-8", &described_in(dialect()).page)
}

/// Show how the page looks
#[utoipa::path(
    get, path = "/v1/docs/style.css", operation_id = "get_docs_style",
    responses((status = 200, description = "A style sheet.", body = String, content_type = "text/css"))
)]
async fn style(State(_): State<Shared>) -> Response {
    constant("text/css; charset=utf-8", include_str!("openapi/style.css"))
}

/// A text of this program. The page loads its style from here, and nothing from anywhere else.
fn constant(media_type: &'static str, text: &'static str) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let mut response = ([(header::CONTENT_TYPE, media_type)], text).into_response();
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}
