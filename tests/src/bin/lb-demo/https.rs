//! The act with the terminator.

use std::collections::BTreeMap;

use anyhow::Result;
use lbagent_tests::topology::{VIP4, VIP6};
use lbagent_tests::web::{Browser, serve, terminator};

use crate::report::Report;
use crate::stage::Stage;

/// The service group.
const GROUP: &str = "site";
/// Where its instances listen.
const PORT: u16 = 8090;
const URL: &str = "https://site.lb.internal/";
/// Requests, each with a connection of its own.
const REQUESTS: usize = 60;

/// HTTPS through the VIP, balanced request by request, and the redirect to it.
pub fn show(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("HTTPS: another service group, served by the terminator");
    let topology = &stage.topology;
    let backends = topology.backends.iter();
    let servers = backends.map(|backend| serve(backend, PORT));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let (https, http) = (format!("443:{PORT}/tls+http"), "80:443/http+redirect");
    let create = ["service", "create", "--name", GROUP, "--domain", GROUP];
    stage.lbctl(report, &[&create[..], &[&https, http]].concat())?;
    for (backend, name) in topology.backends.iter().zip(["s1", "s2", "s3"]) {
        let [v4, v6] = backend.addresses.map(|address| address.to_string());
        let create = ["instance", "create", "--name", name, "--service", GROUP];
        stage.lbctl(report, &[&create[..], &["--ip", &v4, "--ip", &v6]].concat())?;
    }
    report.line("$ lbterm run &");
    let _terminator = terminator(&topology.gateway)?;
    report.line("$ lbctl terminator ca > ca.pem");
    let browser = Browser::open(&topology.client, &topology.gateway)?;
    for vip in [VIP4, VIP6] {
        browser.wait_for(vip, URL)?;
        report.line(format!("client $ curl --cacert ca.pem {URL}      ({vip})"));
        let mut answers = BTreeMap::<String, usize>::new();
        for _ in 0..REQUESTS {
            let (_, text) = browser.get(vip, URL, &["--fail"])?;
            *answers.entry(text).or_default() += 1;
        }
        for (answer, count) in &answers {
            report.line(format!("{count:>4} × {answer}"));
        }
        let by_all = topology.backends.iter().all(|backend| {
            let mut answers = answers.keys();
            answers.any(|answer| answer.starts_with(&format!("{} for ", backend.name)))
        });
        report.check(
            by_all && answers.len() == topology.backends.len(),
            format!("HTTPS by {vip}: every instance answers, and knows the client's address"),
        );
    }
    let http = URL.replace("https", "http");
    report.line(format!("client $ curl --head {http}"));
    let (_, head) = browser.get(VIP4, &http, &["--head"])?;
    report.line(&head);
    report.check(
        head.starts_with("HTTP/1.1 308 ")
            && head.to_lowercase().contains(&format!("location: {URL}")),
        "port 80 redirects to HTTPS",
    );
    stage.lbctl(report, &["terminator", "ls"])
}
