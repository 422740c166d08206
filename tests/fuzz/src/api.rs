//! What has to hold whatever a client of the API sends, before anybody looks at the desired state.

use lbagent_api::certificate::{CertificateSpec, RotationSpec};
use lbagent_api::instance::InstanceSpec;
use lbagent_api::patch::PatchSpec;
use lbagent_api::policy::{GroupPolicy, InstancePolicy, PolicyData};
use lbagent_api::port_spec;
use lbagent_api::request::{
    ContractError, parse_body, parse_one_or_many, parse_selectors, parse_uuid, qualify_domain,
    validate_name,
};
use lbagent_api::service_group::ServiceGroupSpec;

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of the contract.
pub const TARGETS: [Target; 3] = [("ports", ports), ("words", words), ("requests", requests)];

/// The grammar of ports: what is read is written in a way that is read as the same.
pub fn ports(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match port_spec::parse(text) {
        Ok(services) => {
            for service in services {
                let again = port_spec::parse(&service.to_string()).expect("it was written by us");
                assert!(again.contains(&service), "{service} of {text:?}");
            }
        }
        Err(error) => check(&error.to_string()),
    }
}

/// Names, domains and UUIDs: what is taken has nothing in it that ends a path or a line.
pub fn words(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if validate_name(text).is_ok() {
        assert!(
            !text.is_empty() && !text.contains(['/', '\0', '\n']),
            "{text:?}"
        );
    }
    if let Ok(domain) = qualify_domain(text, "lb.internal") {
        assert_eq!(domain, domain.to_ascii_lowercase());
        let again = qualify_domain(&format!("{domain}."), "lb.internal");
        assert_eq!(again.ok(), Some(domain.clone()), "{text:?}");
        assert!(!domain.contains(['/', ':', ' ', '\n']), "{domain:?}");
    }
    if let Ok(uuid) = parse_uuid(text) {
        assert_eq!(parse_uuid(&uuid.to_string()).ok(), Some(uuid));
    }
}

/// Bodies of requests: taken, or refused with words for the client.
pub fn requests(input: &[u8]) {
    fn refused<T>(result: Result<T, ContractError>) {
        if let Err(error) = result {
            check(&error.message);
        }
    }
    let groups = parse_one_or_many::<ServiceGroupSpec>(input);
    refused(groups.map(drop));
    refused(parse_one_or_many::<InstanceSpec>(input).map(drop));
    match parse_one_or_many::<PatchSpec>(input) {
        Ok(patches) => patches.iter().for_each(|patch| {
            refused(patch.selector().map(drop));
            refused(patch.change().map(drop));
        }),
        Err(error) => check(&error.message),
    }
    match parse_one_or_many::<CertificateSpec>(input) {
        Ok(certificates) => certificates.iter().for_each(|it| refused(it.validate())),
        Err(error) => check(&error.message),
    }
    refused(parse_one_or_many::<RotationSpec>(input).map(drop));
    refused(parse_selectors(input).map(drop));
    if let Ok(data) = parse_body::<PolicyData<GroupPolicy>>(input) {
        let again = serde_json::to_vec(&data).expect("it is JSON");
        let again = parse_body::<PolicyData<GroupPolicy>>(&again).expect("it was written by us");
        assert_eq!(again.policy, data.policy);
    }
    refused(parse_body::<PolicyData<InstancePolicy>>(input).map(drop));
}

/// Messages say something, in one line.
fn check(message: &str) {
    assert!(
        !message.is_empty() && message.len() < 100_000,
        "{} bytes",
        message.len()
    );
}
