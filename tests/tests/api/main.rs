//! Ring 3: the API of the real daemon, in raw HTTP and through the official clients.

mod abuse;
mod accounts;
mod clients;
mod curl_2024;
mod go_forms;
mod js_sdk;
mod lbctl;
mod lbctl_files;
mod lbctl_profiles;
mod membership;
mod policy;
mod python_sdk;
mod raw_http;
mod store_crash;
mod token;
