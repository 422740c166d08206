//! Bodies of fuzz targets that need nothing but what everybody may use. lbterm has its own.

pub mod api;
pub mod redirect;
