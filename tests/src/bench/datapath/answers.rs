//! What `lb_ingress` answers of port 80: SYNs, requests, and the end of connections.
//!
//! Each case is the whole frame, restored by its end as well; what restoring it costs, with a program
//! that sends it back at once, is taken off.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::super::floors::{Floors, Flows, Restore, Target};
use super::Options;
use crate::prog_run::{CLIENT_V4, CLIENT_V6, Side, VIP_V4, VIP_V6};
use crate::redirect_rig::RedirectRig;
use crate::tcp_segment::flags;

/// What curl sends.
const SHORT: &str = "GET /path/to/a/page?query=1 HTTP/1.1\r\nHost: www.shop.example\r\n\
    User-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
/// What Chromium sends.
const LONG: &str = "GET /path/to/a/page?query=1 HTTP/1.1\r\nHost: www.shop.example\r\n\
    Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux \
    x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36\r\nAccept: \
    text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
    application/signed-exchange;v=b3;q=0.7\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: \
    en-US,en;q=0.9\r\n\r\n";

/// The most nanoseconds that cases may take, the harness taken off.
const GOALS: [(&str, f64); 3] = [
    ("syn", 250.0),
    ("request/short", 1000.0),
    ("request/long", 1000.0),
];

/// One thing to measure.
struct Case {
    name: &'static str,
    family: &'static str,
    frame: Vec<u8>,
    flows: Flows,
    action: u32,
}

/// Nanoseconds of a case, best of all rounds: with the harness, and the harness alone.
pub(super) struct Cost {
    name: &'static str,
    family: &'static str,
    whole: f64,
    harness: f64,
}

impl Cost {
    fn net(&self) -> f64 {
        self.whole - self.harness
    }

    fn goal(&self) -> Option<f64> {
        let goal = GOALS.iter().find(|(name, _)| *name == self.name);
        goal.map(|(_, most)| *most)
    }

    /// What is said of a missed goal.
    pub(super) fn missed(&self) -> Option<String> {
        let goal = self.goal().filter(|most| self.net() > *most)?;
        let Self { name, family, .. } = self;
        Some(format!(
            "{name} {family}: {:.0} ns of {goal:.0}",
            self.net()
        ))
    }
}

/// As a table.
pub(super) fn table(costs: &[Cost]) -> String {
    let mut text = format!("{:<18} {:<6} {:>7}  goal\n", "answer", "family", "net ns");
    for cost in costs {
        let Cost { name, family, .. } = cost;
        let goal = cost.goal().map_or(String::new(), |most| {
            let verdict = if cost.missed().is_some() {
                "MISSED"
            } else {
                "met"
            };
            format!("≤ {most:.0} {verdict}")
        });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<18} {family:<6} {:>7.0}  {goal}", cost.net());
    }
    text
}

/// Measures all cases in turns.
pub(super) fn measure(
    options: &Options,
    loads: u32,
    rounds: u32,
    packets: u32,
) -> Result<Vec<Cost>> {
    let mut costs: Vec<Cost> = Vec::new();
    for _ in 0..loads {
        let mut web = RedirectRig::new()?;
        let mut floors = Floors::load(web.rig.dataplane.ingress_program()?.fd()?)?;
        let ifindex = nix::net::if_::if_nametoindex("cl0").context("the client interface")?;
        let mut cases = cases(&mut web)?;
        cases.retain(|case| options.wants(case.name));
        for _ in 0..rounds {
            for (index, case) in cases.iter().enumerate() {
                let [harness, whole] =
                    [(Target::Tx, 3), (Target::Ingress, case.action)].map(|(target, action)| {
                        time(&mut floors, case, target, action, ifindex, packets)
                    });
                let (harness, whole) = (harness?, whole?);
                match costs.get_mut(index) {
                    Some(cost) => {
                        cost.harness = cost.harness.min(harness);
                        cost.whole = cost.whole.min(whole);
                    }
                    None => costs.push(Cost {
                        name: case.name,
                        family: case.family,
                        whole,
                        harness,
                    }),
                }
            }
        }
    }
    Ok(costs)
}

fn time(
    floors: &mut Floors,
    case: &Case,
    target: Target,
    action: u32,
    ifindex: u32,
    packets: u32,
) -> Result<f64> {
    floors.prepare_whole(&Restore {
        target,
        frame: &case.frame,
        flows: case.flows,
    })?;
    let result = floors.run_whole(&case.frame, ifindex, packets)?;
    ensure!(
        result.return_value == action,
        "{}: action {} instead of {action}",
        case.name,
        result.return_value
    );
    Ok(result.duration.as_nanos() as f64)
}

/// Every case, with cookies of this minute.
fn cases(web: &mut RedirectRig) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (family, client, vip) in [("ipv4", CLIENT_V4, VIP_V4), ("ipv6", CLIENT_V6, VIP_V6)] {
        // Ports that differ, so that each case has a connection of its own.
        let mut ports = 2000..;
        let mut connect = |web: &mut RedirectRig| -> Result<_> {
            let client = SocketAddr::new(client.parse()?, ports.next().context("a port")?);
            web.connect(client, SocketAddr::new(vip.parse()?, 80))
        };
        let mut add = |name, frame, flows, action| {
            cases.push(Case {
                name,
                family,
                frame,
                flows,
                action,
            });
        };
        let one = || Flows::Among(1);
        let (syn, handshake) = connect(web)?;
        add("syn", syn, Flows::DISTINCT, 3);
        add("handshake", handshake.frame(0, 0, 0, b""), one(), 1);
        let (_, short) = connect(web)?;
        add(
            "request/short",
            short.frame(flags::PSH, 0, 0, SHORT.as_bytes()),
            one(),
            3,
        );
        let (_, long) = connect(web)?;
        add(
            "request/long",
            long.frame(flags::PSH, 0, 0, LONG.as_bytes()),
            one(),
            3,
        );
        let (_, closed) = connect(web)?;
        let request = closed.frame(flags::PSH, 0, 0, SHORT.as_bytes());
        let (_, answer) = web.rig.run_uncounted(Side::Client, &request)?;
        let headers = request.len() - SHORT.len();
        let received = (answer.len() - headers + 1) as u32;
        let fin = closed.frame(flags::FIN, SHORT.len() as u32, received, b"");
        add("close", fin, one(), 3);
    }
    Ok(cases)
}
