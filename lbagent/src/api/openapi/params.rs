//! Query strings, as the description tells them. The types that read them are in `lbagent-api`; ring 3
//! holds both together.
#![expect(
    dead_code,
    reason = "described, never made: other types read the queries"
)]

use lbagent_api::events::ObjectKind;
use lbagent_api::instance::InstanceState;
use lbagent_api::service_group::Protocol;
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Order {
    Asc,
    Desc,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum SortBy {
    CreateTime,
}

/// A yes or no; a parameter without a value is a yes.
struct Flag;

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        let values = [json!(true), json!(false), json!(1), json!(0), json!("")];
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        any.enum_values(Some(values)).into()
    }
}

impl ToSchema for Flag {}

/// Objects by their names; each may be repeated and may be a list with commas.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Which {
    /// The objects with these UUIDs.
    #[param(required = false)]
    uuid: Vec<Uuid>,
    /// The objects with these names.
    #[param(required = false)]
    name: Vec<String>,
}

/// A listing.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct List {
    /// The objects with these UUIDs; all when no object is named.
    #[param(required = false)]
    uuid: Vec<Uuid>,
    /// The objects with these names.
    #[param(required = false)]
    name: Vec<String>,
    /// Whole objects, which is the default, rather than their UUIDs and names.
    #[param(inline)]
    details: Option<Flag>,
    /// At most so many objects.
    #[param(minimum = 1)]
    count: Option<u32>,
    /// Begin with this object, inclusive: a UUID, or the time of its creation.
    from: Option<String>,
    /// By time of creation.
    #[param(inline)]
    order: Option<Order>,
    /// There is one order.
    #[param(inline)]
    sortby: Option<SortBy>,
}

/// One object.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Details {
    /// The whole object, which is the default, rather than its UUID and name.
    #[param(inline)]
    details: Option<Flag>,
}

/// Filters of service groups.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct GroupFilter {
    /// Groups that stay when their last instance leaves, or that do not.
    #[param(inline)]
    persistent: Option<Flag>,
    /// The group with this domain.
    #[param(example = "web.example.com")]
    fqdn: Option<String>,
}

/// Filters of instances.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Tags {
    /// Instances that have all of these tags.
    #[param(required = false)]
    tags: Vec<String>,
}

/// What is waited for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Wait {
    /// The state; `running` when absent.
    state: Option<InstanceState>,
    /// So long at most: 0 for not at all, -1 for the maximum, which holds when it is absent.
    #[param(minimum = -1, maximum = 3600)]
    timeout_s: Option<i64>,
    /// The same in milliseconds.
    #[param(minimum = -1, maximum = 3_600_000)]
    timeout_ms: Option<i64>,
}

/// Which packets are watched.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Monitor {
    /// One packet in so many, as `100` or `1/100`; 128 when absent.
    #[param(pattern = "^(1/)?[1-9][0-9]{0,8}$")]
    sample: Option<String>,
    /// A service group's name or UUID; packets of all when absent.
    group: Option<String>,
    /// Outcomes, or `forward`, `pass`, `answer`, `drop`; all but packets passed on when absent.
    #[param(required = false)]
    outcome: Vec<String>,
}

/// A flow.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Trace {
    /// Transport.
    protocol: Protocol,
    /// The client, `ADDRESS:PORT`.
    #[param(example = "203.0.113.7:40000")]
    source: String,
    /// The VIP, `ADDRESS:PORT`.
    #[param(example = "192.0.2.10:443")]
    destination: String,
    /// Whether the packet starts the flow.
    new: Option<bool>,
    /// Client-facing interface that the packet arrives by; one of them when absent.
    interface: Option<String>,
    /// Host name that a request on port 80 is for; then the packet is one with such a request.
    #[param(example = "shop.example")]
    host: Option<String>,
}

/// What an export holds.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Export {
    /// Whether certificates come with their private keys; without them when absent.
    private_keys: Option<bool>,
}

/// Which changes are told.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Events {
    /// From this generation on, inclusive; from now on when absent.
    from: Option<u64>,
    /// Objects of these kinds; all when absent.
    #[param(required = false)]
    kind: Vec<ObjectKind>,
    /// Objects of this account, for operators.
    account: Option<Uuid>,
}

/// Which events are told.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Audit {
    /// `vm.state_change`, `vm.start_failed`, `gap`; all when absent.
    #[param(required = false)]
    events: Vec<String>,
    /// About these instances; all when absent.
    #[param(required = false)]
    uuid: Vec<Uuid>,
}
