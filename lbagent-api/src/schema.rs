//! Schemas that no derive can find: of what travels in another form than it is kept in, and of what
//! stands around every object.

use std::borrow::Cow;

use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type,
};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::access::{QuotasData, UserQuotas};
use crate::certificate::{Certificates, Secret};
use crate::envelope::{Instances, Reference, ServiceGroups, Warning};
use crate::health::{Check, CheckSpec, HealthPolicy, Payload, StatusRange};
use crate::policy::{
    InstancePolicy, PolicyData, QuicLayout, QuicServerId, SourcePolicy, TerminatedPort,
};
use crate::{Envelope, ErrorCode, Item, ItemError, ResponseStatus};

/// Name of a new object, as [`crate::request::validate_name`] has it.
#[derive(Debug)]
pub struct Name;

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(
                r"^[A-Za-z0-9]+((-(\.-)*\.?|\.(-\.)*-?)[A-Za-z0-9]+)*$",
            ))
            .max_length(Some(crate::request::MAX_NAME))
            .description(Some(
                "Letters, digits, single `-` and `.` inside; no UUID. Unique within the account.",
            ))
            .into()
    }
}

impl ToSchema for Name {}

type Schemas = Vec<(String, RefOr<Schema>)>;

fn reference<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// The schema of a type, and those that it refers to.
fn collect<T: ToSchema>(schemas: &mut Schemas) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// A type that travels as another one, under its own name.
macro_rules! travels_as {
    ($($kept:ty as $form:ty),+ $(,)?) => {$(
        impl PartialSchema for $kept {
            fn schema() -> RefOr<Schema> {
                <$form>::schema()
            }
        }

        impl ToSchema for $kept {
            fn schemas(schemas: &mut Schemas) {
                <$form>::schemas(schemas);
            }
        }
    )+};
}

travels_as! {
    Check as CheckSpec,
    HealthPolicy as crate::health::HealthPolicySpec,
    InstancePolicy as crate::policy::InstanceNumbers,
    Payload as crate::health::PayloadSpec,
    QuicLayout as crate::policy::QuicNumbers,
    SourcePolicy as crate::policy::SourcePrefixes,
    TerminatedPort as crate::policy::TerminatedPortSpec,
    crate::state::Domain as crate::state::WrittenDomain,
}

/// A type that travels as text of a certain form.
macro_rules! travels_as_text {
    ($($kept:ty: $pattern:expr, $description:literal);+ $(;)?) => {$(
        impl PartialSchema for $kept {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String);
                text.pattern($pattern).description(Some($description)).into()
            }
        }

        impl ToSchema for $kept {}
    )+};
}

travels_as_text! {
    QuicServerId: Some("^([0-9a-fA-F]{2}){1,15}$"), "1 to 15 bytes in hexadecimal.";
    StatusRange: Some("^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"), "A status, or a range such as `200-299`.";
    Secret: None::<String>, "Only received, never answered.";
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let meaning = |code: &Self| format!("{} {}", u16::from(*code), code.meaning());
        let meanings: Vec<_> = Self::ALL.iter().map(meaning).collect();
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .enum_values(Some(Self::ALL.iter().copied().map(u16::from)))
            .description(Some(meanings.join(" · ")))
            .into()
    }
}

impl ToSchema for ErrorCode {}

/// An object with its `status`.
fn with_status(object: RefOr<Schema>, status: &str) -> RefOr<Schema> {
    let word = ObjectBuilder::new().schema_type(Type::String);
    let status = ObjectBuilder::new()
        .property("status", word.enum_values(Some([status])))
        .required("status");
    AllOfBuilder::new().item(object).item(status).into()
}

impl<T: ToSchema> PartialSchema for Item<T> {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(with_status(reference::<T>(), "success"))
            .item(with_status(reference::<ItemError>(), "error"))
            .into()
    }
}

impl<T: ToSchema> ToSchema for Item<T> {
    fn name() -> Cow<'static, str> {
        format!("Item_{}", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        collect::<T>(schemas);
        collect::<ItemError>(schemas);
    }
}

/// One object, or several.
#[derive(Debug)]
pub struct OneOrMany<T>(std::marker::PhantomData<T>);

impl<T: ToSchema> PartialSchema for OneOrMany<T> {
    fn schema() -> RefOr<Schema> {
        let many = ArrayBuilder::new().items(reference::<T>());
        OneOfBuilder::new().item(reference::<T>()).item(many).into()
    }
}

impl<T: ToSchema> ToSchema for OneOrMany<T> {
    fn name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        collect::<T>(schemas);
    }
}

/// An object of a listing: whole, or with `details=false` by its names.
#[derive(Debug)]
pub struct Listed<T>(std::marker::PhantomData<T>);

impl<T: ToSchema> PartialSchema for Listed<T> {
    fn schema() -> RefOr<Schema> {
        utoipa::openapi::schema::AnyOfBuilder::new()
            .item(reference::<T>())
            .item(reference::<Reference>())
            .description(Some("Whole, or with `details=false` by its names."))
            .into()
    }
}

impl<T: ToSchema> ToSchema for Listed<T> {
    fn name() -> Cow<'static, str> {
        format!("Listed_{}", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        collect::<T>(schemas);
        collect::<Reference>(schemas);
    }
}

/// `data` with one member, a list of items.
macro_rules! lists {
    ($($wrapper:ident = $member:literal),+) => {$(
        impl<T: ToSchema> PartialSchema for $wrapper<T> {
            fn schema() -> RefOr<Schema> {
                let items = ArrayBuilder::new().items(Item::<T>::schema());
                ObjectBuilder::new().property($member, items).required($member).into()
            }
        }

        impl<T: ToSchema> ToSchema for $wrapper<T> {
            fn name() -> Cow<'static, str> {
                format!("{}_{}", stringify!($wrapper), T::name()).into()
            }

            fn schemas(schemas: &mut Schemas) {
                Item::<T>::schemas(schemas);
            }
        }
    )+};
}

lists!(
    ServiceGroups = "service_groups",
    Instances = "instances",
    Certificates = "certificates"
);

impl PartialSchema for QuotasData {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new().items(Item::<UserQuotas>::schema());
        let object = ObjectBuilder::new().property("quotas", items);
        object.required("quotas").into()
    }
}

impl ToSchema for QuotasData {
    fn schemas(schemas: &mut Schemas) {
        Item::<UserQuotas>::schemas(schemas);
    }
}

impl<P: ToSchema> PartialSchema for PolicyData<P> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .property("policy", reference::<P>())
            .required("policy")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

impl<P: ToSchema> ToSchema for PolicyData<P> {
    fn name() -> Cow<'static, str> {
        format!("PolicyData_{}", P::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        collect::<P>(schemas);
    }
}

impl<D: ToSchema> PartialSchema for Envelope<D> {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        let warnings = ArrayBuilder::new().items(reference::<Warning>());
        ObjectBuilder::new()
            .property("status", reference::<ResponseStatus>())
            .property("message", text.description(Some("For people.")))
            .property("data", D::schema())
            .property(
                "warnings",
                warnings.description(Some("What was done, but should be done otherwise.")),
            )
            .property(
                "op_time_us",
                number.description(Some("Time that the operation took, in microseconds.")),
            )
            .required("status")
            .required("data")
            .into()
    }
}

impl<D: ToSchema> ToSchema for Envelope<D> {
    fn name() -> Cow<'static, str> {
        format!("Envelope_{}", D::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        collect::<ResponseStatus>(schemas);
        collect::<Warning>(schemas);
        D::schemas(schemas);
    }
}

/// What a request that failed as a whole is answered with.
#[derive(Debug)]
pub struct Refusal;

impl PartialSchema for Refusal {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        let errors = ArrayBuilder::new().items(reference::<crate::envelope::HttpError>());
        ObjectBuilder::new()
            .property("status", text().enum_values(Some(["error"])))
            .property(
                "message",
                text().description(Some(
                    "For people: what is wrong, on which object, what to do.",
                )),
            )
            .property("errors", errors.min_items(Some(1)))
            .property("op_time_us", number)
            .required("status")
            .required("message")
            .required("errors")
            .into()
    }
}

impl ToSchema for Refusal {
    fn schemas(schemas: &mut Schemas) {
        collect::<crate::envelope::HttpError>(schemas);
    }
}
