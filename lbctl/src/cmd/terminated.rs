//! Ports that the data plane leaves to a terminator, as `lbctl show` lists them.

use lbagent_api::status::TableGroup;

/// A line for each of a group's ports: address, what becomes of it, and by which handlers.
pub fn rows(group: &TableGroup) -> impl Iterator<Item = Vec<String>> {
    group.terminated.iter().map(|service| {
        let ip = service.ip.map_or("*".to_owned(), |ip| ip.to_string());
        let handlers: Vec<_> = service.handlers.iter().map(ToString::to_string).collect();
        vec![
            format!("TCP  {ip}:{}", service.port),
            "terminated".to_owned(),
            String::new(),
            String::new(),
            format!(
                "{} to port {} by {}",
                group.name,
                service.destination_port,
                handlers.join("+")
            ),
        ]
    })
}
