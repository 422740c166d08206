//! `lbctl monitor`: what becomes of packets, as it happens.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use lbagent_api::monitor::{FlowEvent, MonitorLine, parse_sample};
use lbagent_api::paths;

use crate::client::{Client, encode};
use crate::ending;
use crate::error::CtlError;
use crate::output::{self, Format};

/// `lbctl monitor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One packet in so many: 1/N or N; rounded up to a power of two
    #[arg(long, value_name = "1/N", default_value = "1/128")]
    sample: String,
    /// Packets of this service group only, by name or UUID
    #[arg(long, value_name = "SERVICE")]
    group: Option<String>,
    /// Packets with this outcome only: forward, pass, answer, drop, or one that `lbctl counters
    /// --all` lists; may be repeated [default: all but pass]
    #[arg(long, value_name = "OUTCOME")]
    outcome: Vec<String>,
    /// End after so many packets
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Arguments {
    fn path(&self) -> Result<String, CtlError> {
        let sample = parse_sample(&self.sample);
        let sample = sample.map_err(|error| CtlError::Usage(error.message))?;
        let mut path = format!("{}?sample={sample}", paths::MONITOR);
        for (key, value) in self
            .group
            .iter()
            .map(|group| ("group", group))
            .chain(self.outcome.iter().map(|outcome| ("outcome", outcome)))
        {
            path.push_str(&format!("&{key}={}", encode(value)));
        }
        Ok(path)
    }
}

/// Runs the command until `--count` packets were seen, or until Ctrl-C.
pub fn run(arguments: &Arguments, client: &Client, format: Format) -> Result<(), CtlError> {
    let path = arguments.path()?;
    ending::by_others()?;
    let mut left = arguments.count.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    for line in client.stream(&path)? {
        let line = line?;
        let read: MonitorLine = serde_json::from_str(&line)
            .map_err(|error| CtlError::Local(format!("cannot understand '{line}': {error}")))?;
        tell(&read, format)?;
        if let MonitorLine::Event(_) = read {
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Packets go to stdout, what is to say about them to stderr.
fn tell(line: &MonitorLine, format: Format) -> Result<(), CtlError> {
    match line {
        MonitorLine::Event(event) => output::print_next(format, event, || render(event)),
        MonitorLine::Watching { sample } => {
            match sample {
                1 => tell!("lbctl: watching every packet; Ctrl-C ends"),
                _ => tell!("lbctl: watching one packet in {sample}; Ctrl-C ends"),
            }
            Ok(())
        }
        MonitorLine::Lost { events } => {
            tell!("lbctl: {events} events lost; a thinner sample loses less");
            Ok(())
        }
        MonitorLine::Idle {} => Ok(()),
    }
}

fn render(event: &FlowEvent) -> String {
    let end = |ip: Option<IpAddr>, port: Option<u16>| match (ip, port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, _) => "?".to_owned(),
    };
    let or_dash = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
    let (hour, minute, second, milli) = event.time.time().as_hms_milli();
    format!(
        "{hour:02}:{minute:02}:{second:02}.{milli:03} {:<16} {:<4} {} -> {} {} {} {} B by {}",
        event.outcome,
        event.protocol.as_deref().unwrap_or("?"),
        end(event.source, event.source_port),
        end(event.destination, event.destination_port),
        or_dash(&event.service_group),
        or_dash(&event.instance),
        event.bytes,
        event.interface
    )
}

#[cfg(test)]
mod tests {
    use lbagent_api::status::Verdict;
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn event() -> FlowEvent {
        FlowEvent {
            time: OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(3_723_004),
            outcome: "forward_redirect".into(),
            verdict: Verdict::Forwarded,
            protocol: Some("tcp".into()),
            source: Some("2001:db8::7".parse().unwrap()),
            source_port: Some(40_000),
            destination: Some("2001:db8:a::10".parse().unwrap()),
            destination_port: Some(443),
            bytes: 74,
            interface: "eth0".into(),
            service_group: Some("web".into()),
            instance: Some("b1".into()),
        }
    }

    #[test]
    fn a_packet_is_a_line() {
        assert_eq!(
            render(&event()),
            "01:02:03.004 forward_redirect tcp  [2001:db8::7]:40000 -> [2001:db8:a::10]:443 web b1 \
             74 B by eth0"
        );
        let unread = FlowEvent {
            outcome: "pass_not_ip".into(),
            protocol: None,
            source: None,
            source_port: None,
            destination: None,
            destination_port: None,
            service_group: None,
            instance: None,
            ..event()
        };
        assert_eq!(
            render(&unread),
            "01:02:03.004 pass_not_ip      ?    ? -> ? - - 74 B by eth0"
        );
    }

    #[test]
    fn the_query_says_what_is_asked_for() {
        let mut arguments = Arguments {
            sample: "1/100".into(),
            group: Some("my web".into()),
            outcome: vec!["drop".into(), "answer_echo".into()],
            count: None,
        };
        assert_eq!(
            arguments.path().unwrap(),
            "/v1/x/monitor?sample=100&group=my%20web&outcome=drop&outcome=answer_echo"
        );
        arguments.sample = "0".into();
        let error = arguments.path().unwrap_err();
        assert_eq!(error.exit_code(), crate::error::exit::USAGE);
    }
}
