//! The only mapping to HTTP: which status a failed request has, and which code a failed item.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lbagent_api::{ContractError, Envelope, ErrorCode, ItemError, Selector};

use super::respond::enveloped;
use crate::desired::certificate::CertificateError;
use crate::desired::document::ReplaceError;
use crate::desired::{
    ChangeInstanceError, CreateInstanceError, CreateServiceGroupError, DeleteServiceGroupError,
    DesiredError, JoinError, MembershipError, PatchError, PolicyConflict, QuotaError, Role,
    SetPolicyError,
};
use crate::monitor::WatchError;
use crate::reconcile::ObserveError;
use crate::terminator::TerminatorError;

/// A request that failed as a whole.
#[derive(Debug)]
pub(super) enum ApiError {
    /// It breaks a rule of the contract.
    Contract(ContractError),
    /// Nobody may ask so.
    Auth(AuthError),
    /// What else there is does not allow this.
    Clash(String),
    /// There is no such object, on a path of lbagent's own that names one.
    NoSuchObject(String),
    /// There is no such path.
    NoSuchPath(String),
    /// The path has no such method.
    WrongMethod(String),
    /// The contract has it, this version does not.
    NotSupported(String),
    /// Too many of these requests are under way.
    TooMany(&'static str),
    /// The body is larger than the endpoint takes.
    TooLarge,
    /// The body did not arrive.
    Body(String),
    /// It did not arrive within this time.
    SlowBody(Duration),
    /// The desired state cannot be read or written.
    Desired(DesiredError),
    /// The data plane cannot be looked at.
    Observe(ObserveError),
    /// Nobody can watch packets as was asked for.
    Watch(WatchError),
    /// A mistake in lbagent.
    Internal,
}

/// Why a request is nobody's, or not its caller's to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    /// It shows no token, or one that is not good.
    Unknown,
    /// It came by the Unix socket from a user who may not.
    Stranger {
        /// The user.
        uid: u32,
    },
    /// Without a token, it comes from a web page.
    WebPage,
    /// Without a token, it is for a host name that may be anybody's.
    OtherHost,
    /// It asks for metrics, where they need no token, but not as a program of this host does.
    NoProgramHere,
    /// Its caller may not do this.
    Forbidden {
        /// What the caller is.
        role: Role,
        /// The least that it takes.
        needed: Role,
    },
}

impl AuthError {
    fn told(self) -> (StatusCode, String) {
        match self {
            Self::Unknown => (
                StatusCode::UNAUTHORIZED,
                "Missing or wrong token: send 'Authorization: Bearer TOKEN' with a token that \
                 `lbctl token create` made on the gateway"
                    .to_owned(),
            ),
            Self::Stranger { uid } => (
                StatusCode::FORBIDDEN,
                format!(
                    "User {uid} may not operate the gateway: only root, the agent's own user and \
                     members of api.unix_socket_group may without a token"
                ),
            ),
            Self::WebPage => (
                StatusCode::FORBIDDEN,
                "Requests of web pages (with an 'Origin') need a token, also where \
                 api.loopback_without_token lets others do without: any page that a browser of this \
                 host has open could send them"
                    .to_owned(),
            ),
            Self::OtherHost => (
                StatusCode::FORBIDDEN,
                "Requests without a token must be for a loopback address or 'localhost', as their \
                 'Host' says: send a token, or use http://127.0.0.1"
                    .to_owned(),
            ),
            Self::NoProgramHere => (
                StatusCode::FORBIDDEN,
                "Metrics are for programs of this host here, and not for web pages: the request must have \
                 no 'Origin', and a loopback address or 'localhost' as its 'Host'. Use http://127.0.0.1, \
                 or read /v1/x/metrics at the API's own address with a token; with \
                 api.metrics_public = true everybody may read them here"
                    .to_owned(),
            ),
            Self::Forbidden { role, needed } => (
                StatusCode::FORBIDDEN,
                format!(
                    "Not permitted for a token with role '{}': use one with role '{}', or the agent's \
                     Unix socket as root",
                    role.name(),
                    needed.name()
                ),
            ),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<ContractError> for ApiError {
    fn from(error: ContractError) -> Self {
        Self::Contract(error)
    }
}

impl From<SetPolicyError> for ApiError {
    fn from(error: SetPolicyError) -> Self {
        match error {
            SetPolicyError::Conflict(PolicyConflict::UnknownVip { .. }) => {
                Self::Contract(ContractError::invalid(error.to_string()))
            }
            SetPolicyError::Conflict(_) | SetPolicyError::Clash(_) => {
                Self::Clash(error.to_string())
            }
            SetPolicyError::NoServiceGroup(_) | SetPolicyError::NoInstance(_) => {
                Self::NoSuchObject(error.to_string())
            }
        }
    }
}

impl From<ReplaceError> for ApiError {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Account(error) => error.into(),
            ReplaceError::NoKeys { .. } | ReplaceError::Certificate { .. } => {
                Self::Contract(ContractError::invalid(error.to_string()))
            }
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::NoInstance(_)
            | MembershipError::Join(JoinError::NoServiceGroup(_)) => {
                Self::NoSuchObject(error.to_string())
            }
            MembershipError::Join(JoinError::AddressTaken { .. })
            | MembershipError::Stopping { .. }
            | MembershipError::Conflict(_) => Self::Clash(error.to_string()),
        }
    }
}

impl From<TerminatorError> for ApiError {
    fn from(error: TerminatorError) -> Self {
        match error {
            TerminatorError::NotFound { .. } | TerminatorError::NoAuthority => {
                Self::NoSuchObject(error.to_string())
            }
            TerminatorError::Foreign(_)
            | TerminatorError::Registered { .. }
            | TerminatorError::NotOurs { .. }
            | TerminatorError::NoSuccessor { .. }
            | TerminatorError::Signal { .. } => Self::Clash(error.to_string()),
            TerminatorError::Observe(error) => Self::Observe(error),
        }
    }
}

impl ApiError {
    /// The status, and what the answer says.
    fn told(self) -> (StatusCode, String) {
        match self {
            Self::Contract(error) => (StatusCode::BAD_REQUEST, error.message),
            Self::Auth(error) => error.told(),
            Self::Clash(text) => (StatusCode::CONFLICT, text),
            Self::NoSuchObject(text) => (StatusCode::NOT_FOUND, text),
            Self::NoSuchPath(path) => (
                StatusCode::NOT_FOUND,
                format!("No API endpoint with path '{path}'"),
            ),
            Self::WrongMethod(text) => (StatusCode::METHOD_NOT_ALLOWED, text),
            Self::NotSupported(text) => (StatusCode::NOT_IMPLEMENTED, text),
            Self::TooMany(text) => (StatusCode::TOO_MANY_REQUESTS, text.to_owned()),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request body is too large; send fewer objects at a time".to_owned(),
            ),
            Self::Body(text) => (
                StatusCode::BAD_REQUEST,
                format!("The request body cannot be read: {text}"),
            ),
            Self::SlowBody(patience) => (
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "The request body did not arrive within {} s; send fewer objects at a time",
                    patience.as_secs()
                ),
            ),
            Self::Desired(error) => unwritten(error),
            Self::Observe(error) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{:#}", anyhow::Error::from(error)),
            ),
            Self::Watch(error) => (
                match &error {
                    WatchError::Outcome(_) => StatusCode::BAD_REQUEST,
                    WatchError::Group(_) => StatusCode::NOT_FOUND,
                    WatchError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
                },
                error.to_string(),
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The agent made a mistake; its log says more".to_owned(),
            ),
        }
    }
}

/// Why a change of the desired state was not written.
fn unwritten(error: DesiredError) -> (StatusCode, String) {
    if let DesiredError::Changed { .. } = error {
        return (StatusCode::PRECONDITION_FAILED, error.to_string());
    }
    let error = anyhow::Error::from(error);
    tracing::error!("the desired state was not written: {error:#}");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("Nothing was changed: {error:#}"),
    )
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, message) = self.told();
        let body = Envelope::<()>::request_error(status.as_u16(), message);
        let mut response = enveloped(body);
        *response.status_mut() = status;
        let hint = match status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Some((header::RETRY_AFTER, "1"))
            }
            _ => None,
        };
        if let Some((name, value)) = hint {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An item of a request for new objects, by the name that it asked for.
fn item(name: Option<&str>, error: ErrorCode, message: String) -> ItemError {
    ItemError {
        uuid: None,
        name: name.map(str::to_owned),
        message,
        error,
        id: None,
        state: None,
    }
}

/// The contract tells a member that excludes another as an item's failure; any other broken rule
/// refuses the request as a whole.
pub(super) fn refused(name: Option<&str>, error: ContractError) -> Result<ItemError, ApiError> {
    match error.code {
        ErrorCode::NotBoth => Ok(item(name, error.code, error.message)),
        _ => Err(error.into()),
    }
}

const fn quota(error: &QuotaError) -> ErrorCode {
    match error {
        QuotaError::Exceeded { .. } => ErrorCode::Quota,
        QuotaError::NoAccount => ErrorCode::NotAllowed,
    }
}

pub(super) fn create_service_group(
    name: Option<&str>,
    error: &CreateServiceGroupError,
) -> ItemError {
    let code = match error {
        CreateServiceGroupError::NameTaken { .. } | CreateServiceGroupError::Clash(_) => {
            ErrorCode::AlreadyExists
        }
        CreateServiceGroupError::Quota(error) => quota(error),
        CreateServiceGroupError::Certificate(error) => certificate_code(error),
    };
    item(name, code, error.to_string())
}

pub(super) fn delete_service_group(
    selector: &Selector,
    error: &DeleteServiceGroupError,
) -> ItemError {
    let code = match error {
        DeleteServiceGroupError::NotFound(_) => ErrorCode::NotFound,
        DeleteServiceGroupError::Attached { .. } => ErrorCode::Attached,
    };
    ItemError::new(selector, code, error.to_string())
}

pub(super) fn create_instance(name: Option<&str>, error: &CreateInstanceError) -> ItemError {
    let code = match error {
        CreateInstanceError::NameTaken { .. }
        | CreateInstanceError::AddressInUse { .. }
        | CreateInstanceError::Join(JoinError::AddressTaken { .. }) => ErrorCode::AlreadyExists,
        CreateInstanceError::Join(JoinError::NoServiceGroup(_)) => ErrorCode::NotFound,
        CreateInstanceError::Quota(error) => quota(error),
        CreateInstanceError::ServiceGroup(error) => return create_service_group(name, error),
    };
    item(name, code, error.to_string())
}

pub(super) fn create_certificate(name: Option<String>, error: &CertificateError) -> ItemError {
    item(name.as_deref(), certificate_code(error), error.to_string())
}

pub(super) fn change_certificate(selector: &Selector, error: &CertificateError) -> ItemError {
    ItemError::new(selector, certificate_code(error), error.to_string())
}

const fn certificate_code(error: &CertificateError) -> ErrorCode {
    match error {
        CertificateError::NotFound(_) | CertificateError::NoneForDomain { .. } => {
            ErrorCode::NotFound
        }
        CertificateError::NameTaken { .. } => ErrorCode::AlreadyExists,
        CertificateError::OtherName { .. }
        | CertificateError::NotForDomain { .. }
        | CertificateError::StillNamed { .. } => ErrorCode::CertificateNameMismatch,
        CertificateError::Attached { .. } => ErrorCode::Attached,
    }
}

pub(super) fn change_instance(selector: &Selector, error: &ChangeInstanceError) -> ItemError {
    let code = match error {
        ChangeInstanceError::NotFound(_) => ErrorCode::NotFound,
        ChangeInstanceError::OtherState { .. } => ErrorCode::FailedWrongVmState,
    };
    ItemError::new(selector, code, error.to_string())
}

pub(super) fn patch_service_group(
    selector: &Selector,
    id: Option<String>,
    error: &PatchError,
) -> ItemError {
    let code = match error {
        PatchError::NotFound(_) => ErrorCode::NotFound,
        PatchError::NoSuchPort { .. } | PatchError::NoSuchDomain { .. } => ErrorCode::Invalid,
        PatchError::Rule(error) => error.code,
        PatchError::Quota(error) => quota(error),
        PatchError::Certificate(error) => certificate_code(error),
        PatchError::Clash(_) => ErrorCode::AlreadyExists,
        PatchError::Policy(_) => ErrorCode::CannotBeUsed,
    };
    ItemError {
        id,
        ..ItemError::new(selector, code, error.to_string())
    }
}
