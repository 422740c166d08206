//! Endpoints of the contract that this version does not have, and paths that nobody has.

use axum::http::{Method, Uri};
use axum::routing::MethodRouter;
use utoipa::openapi::HttpMethod;
use utoipa::openapi::path::{OperationBuilder, Paths};
use utoipa_axum::PathItemExt;
use utoipa_axum::router::OpenApiRouter;

use super::Shared;
use super::error::ApiError;

/// Paths of the contract that are answered with "not supported", with their methods.
const PATHS: &[(&str, &[HttpMethod])] = &[
    ("/v1/services/autoscale", &[HttpMethod::Get]),
    ("/v1/services/{uuid}/autoscale", ALL),
    ("/v1/services/{uuid}/autoscale/policies", ALL),
    ("/v1/services/{uuid}/autoscale/policies/{name}", ALL),
    ("/v1/instances", &[HttpMethod::Patch]),
    ("/v1/instances/{uuid}", &[HttpMethod::Patch]),
    ("/v1/instances/log", ALL),
    ("/v1/instances/{uuid}/log", ALL),
    ("/v1/volumes", ALL),
    ("/v1/volumes/{uuid}", ALL),
    ("/v1/images", ALL),
    ("/v1/images/list", ALL),
];

const ALL: &[HttpMethod] = &[
    HttpMethod::Get,
    HttpMethod::Post,
    HttpMethod::Put,
    HttpMethod::Patch,
    HttpMethod::Delete,
];

/// Their routes.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    PATHS
        .iter()
        .fold(OpenApiRouter::new(), |router, (path, methods)| {
            let mut paths = Paths::new();
            let mut endpoints = MethodRouter::new();
            for method in *methods {
                let described = OperationBuilder::new().summary(Some("Not supported"));
                paths.add_path_operation(*path, vec![method.clone()], described.build());
                endpoints = endpoints.on(method.to_method_filter(), endpoint);
            }
            router.routes((Vec::new(), paths, endpoints))
        })
}

async fn endpoint(method: Method, uri: Uri) -> ApiError {
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
