//! Ring 3: the API of the real daemon, in raw HTTP and through the official clients.

mod abuse;
mod accounts;
mod agent_crash;
mod clients;
mod curl_2024;
mod desk;
mod event_streams;
mod go_forms;
mod histories;
mod host_troubles;
mod js_sdk;
mod lbctl;
mod lbctl_certificates;
mod lbctl_files;
mod lbctl_profiles;
mod lbctl_watch;
mod membership;
mod metrics;
mod offline;
mod openapi;
mod policy;
mod python_sdk;
mod raw_http;
mod store_crash;
mod token;
