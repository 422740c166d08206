//! The demo, act by act. Each states what it expects and whether it holds.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use lbagent_tests::agent::{BPFFS_DIR, CONFIG_PATH};
use lbagent_tests::client::{Answer, Transport, ask, ask_here};
use lbagent_tests::gateway::{PORT, SERVER_PORT, everything};
use lbagent_tests::server::Spread;
use lbagent_tests::topology::{VIP4, VIP6};
use lbagent_tests::transfer::{Direction, Transfer};

use crate::report::{Report, mark};
use crate::stage::Stage;

/// The service group of the demo.
const GROUP: &str = "web";
/// How far a backend's share may be from an equal one.
const TOLERANCE: f64 = 0.10;
/// How long a transfer that something happens in the middle of takes at least.
const PACE: Duration = Duration::from_secs(5);

/// Publishes one port for TCP and UDP with `lbctl`.
pub fn publish(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("publish a port and attach three instances");
    let tcp = format!("{PORT}:{SERVER_PORT}/tcp");
    let udp = format!("{PORT}:{SERVER_PORT}/udp");
    stage.lbctl(report, &["service", "create", "--name", GROUP, &tcp, &udp])?;
    for backend in &stage.topology.backends {
        let [v4, v6] = backend.addresses.map(|address| address.to_string());
        let name = &backend.name;
        let create = ["instance", "create", "--name", name, "--service", GROUP];
        stage.lbctl(report, &[&create[..], &["--ip", &v4, "--ip", &v6]].concat())?;
    }
    stage.lbctl(report, &["instance", "ls"])
}

/// Thousands of connections, and how they spread.
pub fn spread(stage: &Stage, report: &mut Report, count: usize) -> Result<()> {
    report.act(&format!(
        "{count} connections and {count} UDP exchanges over IPv4, as many over IPv6"
    ));
    for (vip, transport) in everything() {
        let start = Instant::now();
        let (spread, failures) = ask_often(stage, transport, vip, count);
        let took = start.elapsed().as_secs_f64();
        report.line(format!(
            "{transport} to {}, {took:.1} s",
            SocketAddr::new(vip, PORT)
        ));
        let fair = count as f64 / stage.topology.backends.len() as f64;
        let mut even = true;
        for backend in &stage.topology.backends {
            let answers = spread.get(&backend.name).copied().unwrap_or(0);
            let off = answers as f64 / fair - 1.0;
            even &= off.abs() <= TOLERANCE;
            let row = format!("{:<4} {answers:>6} {:>+7.1} %", backend.name, off * 100.0);
            report.line(format!("    {row}  {}", mark(off.abs() <= TOLERANCE)));
        }
        let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
        report.check(
            even,
            format!("{transport} over {family}: each within 10 % of a third"),
        );
        let failed = failures.len();
        report.check(
            failed == 0,
            format!("{transport} over {family}: {failed} of {count} failed"),
        );
        failures
            .into_iter()
            .take(3)
            .for_each(|failure| report.line(format!("    {failure:#}")));
    }
    Ok(())
}

/// Asks from the client; an answer counts only if the backend saw the client's own address.
fn ask_often(
    stage: &Stage,
    transport: Transport,
    vip: IpAddr,
    count: usize,
) -> (Spread, Vec<anyhow::Error>) {
    let to = SocketAddr::new(vip, PORT);
    stage.topology.client.run(|| {
        let (mut spread, mut failures) = (Spread::new(), Vec::new());
        for _ in 0..count {
            match ask_here(transport, to, None).and_then(Answer::with_source_kept) {
                Ok(name) => *spread.entry(name).or_default() += 1,
                Err(error) => failures.push(error),
            }
        }
        (spread, failures)
    })
}

/// The Maglev tables.
pub fn table(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("the Maglev tables");
    for vip in stage.agent.vips()? {
        let slots: Vec<u32> = vip.backends.iter().map(|row| row.slots).collect();
        let difference = slots.iter().max().unwrap_or(&0) - slots.iter().min().unwrap_or(&0);
        let all = slots.iter().sum::<u32>() == vip.slots && vip.slots > 0;
        let address = SocketAddr::new(vip.ip, vip.port);
        let what = format!(
            "{address}/{:?}: {} slots as {slots:?}",
            vip.protocol, vip.slots
        );
        report.check(all && difference <= 1, what);
    }
    Ok(())
}

/// Drains the backend of a running download.
pub fn drain(stage: &Stage, report: &mut Report, bytes: u64) -> Result<()> {
    report.act(&format!(
        "drain a backend in the middle of {} MB from it",
        bytes / 1_000_000
    ));
    let transfer = start(stage, VIP4, Direction::Download, bytes, PACE)?;
    transfer.wait_for(0.3)?;
    let backend = transfer.backend.clone();
    report.line(format!("{backend} has sent {}", percent(&transfer)));
    stage.lbctl(report, &["instance", "stop", &backend, "--drain", "60s"])?;
    report.check(
        transfer.ensure_running().is_ok(),
        "the transfer was running all the while",
    );
    let names = asked(stage, 60)?;
    report.check(
        !names.contains_key(&backend),
        format!("60 new connections went to {}", listed(&names)),
    );
    finish(report, transfer, bytes);
    stage.lbctl(report, &["instance", "start", &backend])?;
    let names = asked(stage, 60)?;
    report.check(
        names.contains_key(&backend),
        format!("{backend} is back: {}", listed(&names)),
    );
    Ok(())
}

/// Kills the daemon in the middle of an upload and starts it again.
pub fn kill(stage: &mut Stage, report: &mut Report, bytes: u64) -> Result<()> {
    report.act(&format!(
        "kill the daemon in the middle of {} MB to a backend",
        bytes / 1_000_000
    ));
    // Long enough for the kernel to verify the programs again on a busy machine.
    let transfer = start(stage, VIP6, Direction::Upload, bytes, 2 * PACE)?;
    transfer.wait_for(0.3)?;
    report.line(format!(
        "$ kill -9 {}    # {} is sent",
        stage.agent.pid()?,
        percent(&transfer)
    ));
    stage.agent.kill()?;
    let names = asked(stage, 60);
    let served = names
        .as_ref()
        .map_or_else(|error| format!("{error:#}"), listed);
    report.check(
        names.is_ok(),
        format!("60 new connections without a daemon: {served}"),
    );
    let start = Instant::now();
    report.line(format!("$ lbagent run --config {CONFIG_PATH} &"));
    stage.agent.launch()?;
    report.line(format!(
        "up again after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    report.check(
        transfer.ensure_running().is_ok(),
        "the transfer was running all the while",
    );
    finish(report, transfer, bytes);
    Ok(())
}

/// What `lbctl show` makes of it.
pub fn statistics(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("what it counted");
    stage.lbctl(report, &["show", "-n", "--stats"])
}

/// Takes everything off again.
pub fn leave(stage: Stage, report: &mut Report) -> Result<()> {
    report.act("leave nothing behind");
    let (mut agent, topology) = stage.strike();
    let ended = agent.terminate()?;
    report.check(ended.success(), format!("SIGTERM: {ended}"));
    report.line(format!("$ lbagent detach --config {CONFIG_PATH}"));
    let detached = agent.run(&["detach", "--config", CONFIG_PATH])?;
    report.line(&detached.stdout);
    report.line(&detached.stderr);
    let pins = topology.gateway.run(|| Path::new(BPFFS_DIR).exists());
    report.check(
        detached.code == 0 && !pins,
        "programs, links, maps, routes and addresses are gone",
    );
    Ok(())
}

fn start(
    stage: &Stage,
    vip: IpAddr,
    direction: Direction,
    bytes: u64,
    pace: Duration,
) -> Result<Transfer> {
    Transfer::start(
        &stage.topology.client,
        SocketAddr::new(vip, PORT),
        direction,
        bytes,
        pace,
    )
}

fn finish(report: &mut Report, transfer: Transfer, bytes: u64) {
    match transfer.finish() {
        Ok(took) => {
            let seconds = took.as_secs_f64();
            report.check(
                true,
                format!("all {bytes} bytes arrived as sent, in {seconds:.1} s"),
            );
        }
        Err(error) => report.check(false, format!("the transfer: {error:#}")),
    }
}

/// Who answers new TCP connections.
fn asked(stage: &Stage, count: usize) -> Result<Spread> {
    let to = SocketAddr::new(VIP4, PORT);
    let mut spread = Spread::new();
    for _ in 0..count {
        let answer = ask(&stage.topology.client, Transport::Tcp, to)?;
        *spread.entry(answer.greeting.name).or_default() += 1;
    }
    Ok(spread)
}

fn listed(spread: &Spread) -> String {
    let parts: Vec<String> = spread
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    parts.join(", ")
}

fn percent(transfer: &Transfer) -> String {
    format!("{:.0} %", transfer.progress() * 100.0)
}
