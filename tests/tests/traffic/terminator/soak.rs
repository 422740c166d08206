//! Memory stays what it is while certificates, groups and instances come and go under load.

use std::time::{Duration, Instant};

use lbagent_tests::https::Trust;
use lbagent_tests::pki::Authority;
use lbagent_tests::poll::keep_pace;
use lbagent_tests::require_root;
use lbagent_tests::site::{NAME, Site, https, publish, resident};
use lbagent_tests::topology::VIPS;
use nix::unistd::Pid;
use serde_json::json;

use super::load::Load;

/// How long it takes, in seconds; `cargo xtask soak` says how long instead.
const SHORT: u64 = 16;
const DURATION: &str = "LBAGENT_SOAK_SECONDS";
/// Between two rounds of changes.
const PACE: Duration = Duration::from_millis(200);
/// Rounds at least, however busy the machine is.
const FEWEST: usize = 24;
/// What may be more at the end than before: what allocators leave lying about, and noise.
const SLACK: u64 = 6 << 20;

/// Resident bytes of lbterm and of the agent.
type Sample = [u64; 2];

fn sample(site: &Site) -> Sample {
    let agent = Pid::from_raw(site.gateway.agent.pid().unwrap().try_into().unwrap());
    [site.lbterm.resident().unwrap(), resident(agent).unwrap()]
}

fn median(samples: &[Sample], of: usize) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(|sample| sample[of]).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// A round of changes: another certificate, a group with a certificate and an instance that come and
/// go, another weight.
fn change(site: &Site, authority: &Authority, round: u64) {
    let agent = &site.gateway.agent;
    let certificate = |method: &str, name: &str, host: &str| {
        let issued = authority.issue(&[host]);
        let mut body = json!({ "name": name, "chain": issued.chain, "pkey": issued.key });
        if method == "POST" {
            body["common_name"] = host.into();
        }
        agent.call(method, "/v1/certificates", Some(&body)).unwrap();
    };
    certificate(if round == 0 { "POST" } else { "PUT" }, "web", NAME);
    let name = format!("guest-{round}");
    certificate("POST", &name, &format!("{name}.lb.internal"));
    publish(&site.gateway, &name, &[https(443)]).unwrap();
    let guest = &site.guest().addresses;
    site.gateway.attach(&name, &name, guest).unwrap();
    let weight = json!({ "policy": { "weight": 50 + round % 100 } });
    let path = "/v1/x/instances/b1/policy";
    agent.call("PUT", path, Some(&weight)).unwrap();
    site.gateway.delete_instance(&name).unwrap();
    for (path, member) in [
        ("/v1/services", "service_groups"),
        ("/v1/certificates", "certificates"),
    ] {
        let found = agent
            .call("GET", &format!("{path}?name={name}"), None)
            .unwrap();
        let uuid = found[member][0]["uuid"].as_str();
        // A group may go with its last instance.
        if let Some(uuid) = uuid {
            agent
                .call("DELETE", &format!("{path}/{uuid}"), None)
                .unwrap();
        }
    }
}

#[test]
fn memory_is_flat_under_churn() {
    require_root!();
    let seconds = std::env::var(DURATION).map_or(SHORT, |text| text.parse().unwrap());
    let duration = Duration::from_secs(seconds);
    let mut site = Site::start_with_guest().unwrap();
    for vip in VIPS {
        site.wait_for(vip).unwrap();
    }
    let authority = Authority::new();
    let both = [site.browser.authority().unwrap(), authority.pem()].concat();
    site.trust = Trust::new(&both).unwrap();
    let load = Load::start(&site.gateway.topology.client, &site.trust);
    let began = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut told = began;
    while began.elapsed() < duration || samples.len() < FEWEST {
        let round = samples.len() as u64;
        change(&site, &authority, round);
        load.go_on(1);
        samples.push(sample(&site));
        keep_pace(began, PACE * (samples.len() as u32));
        if told.elapsed() >= Duration::from_secs(60) || round == 0 {
            told = Instant::now();
            report(began, &samples);
        }
    }
    report(began, &samples);
    let visits = load.finish();
    println!("{visits} connections, {} rounds of changes", samples.len());
    // The first third fills caches, pools and tables.
    let third = samples.len() / 3;
    assert!(third > 5, "{} rounds", samples.len());
    for (index, name) in ["lbterm", "lbagent"].into_iter().enumerate() {
        let (before, after) = (&samples[third..2 * third], &samples[2 * third..]);
        let [before, after] = [before, after].map(|samples| median(samples, index));
        assert!(
            after <= before + before / 20 + SLACK,
            "{name} grew from {before} to {after} bytes within {duration:?}"
        );
    }
}

fn report(began: Instant, samples: &[Sample]) {
    let Some([lbterm, agent]) = samples.last() else {
        return;
    };
    let mib = |bytes: &u64| bytes / (1 << 20);
    println!(
        "{:>5} s: lbterm {} MiB, lbagent {} MiB, {} rounds",
        began.elapsed().as_secs(),
        mib(lbterm),
        mib(agent),
        samples.len()
    );
}
