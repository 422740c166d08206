//! Endpoints of the contract that this version does not have, and paths that nobody has.

use axum::http::{Method, Uri};

use super::error::ApiError;

/// Paths of the contract that are answered with "not supported".
pub(super) const PATHS: &[&str] = &[
    "/v1/services/autoscale",
    "/v1/services/{uuid}/autoscale",
    "/v1/services/{uuid}/autoscale/policies",
    "/v1/services/{uuid}/autoscale/policies/{name}",
    "/v1/instances/log",
    "/v1/instances/{uuid}/log",
    "/v1/volumes",
    "/v1/volumes/{uuid}",
    "/v1/images",
    "/v1/images/list",
];

pub(super) async fn endpoint(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::NotSupported(format!(
        "{method} {path} is not supported by this version of lbagent"
    ))
}

pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NoSuchPath(uri.path().to_owned())
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::WrongMethod(format!("Path '{}' has no method {method}", uri.path()))
}
