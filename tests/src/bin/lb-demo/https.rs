//! The act with the terminator.

use std::collections::BTreeMap;

use anyhow::Result;
use lbagent_tests::poll::poll_until;
use lbagent_tests::topology::{VIP4, VIP6};
use lbagent_tests::web::{Browser, PATIENCE, serve, terminator};

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
    redirects(stage, report, &browser)?;
    stage.lbctl(report, &["terminator", "ls"])
}

/// A redirect that is answered in XDP, beside one that is left to the terminator.
fn redirects(stage: &Stage, report: &mut Report, browser: &Browser) -> Result<()> {
    let http = URL.replace("https", "http");
    let at_nic = || stage.agent.outcome("answer_redirect");
    let mut ask = |options: &[&str]| -> Result<u64> {
        report.line(format!("client $ curl {} {http}", options.join(" ")));
        let before = at_nic()?;
        let (_, head) = browser.get(VIP4, &http, options)?;
        report.line(&head);
        let is_right = head.starts_with("HTTP/1.1 308 ")
            && head.to_lowercase().contains(&format!("location: {URL}"));
        report.check(is_right, "port 80 redirects to HTTPS");
        Ok(at_nic()? - before)
    };
    poll_until("cookies", PATIENCE, || ask(&["--head"]).unwrap_or(0) == 1)?;
    let passed = ask(&["--include", "--data", "x=y"])?;
    report.check(
        passed == 0,
        "what is unusual, as this POST, is the terminator's; plain requests are answered in XDP",
    );
    let client = format!("{}:40000", stage.topology.client_addresses[0]);
    let vip = format!("{VIP4}:80");
    let asked = ["trace", "tcp", &client, &vip, "--host", "site.lb.internal"];
    stage.lbctl(report, &asked)?;
    stage.lbctl(report, &["counters"])
}
