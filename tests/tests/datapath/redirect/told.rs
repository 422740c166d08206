//! What `lbctl trace --host` says, against what the programs do.

use lbagent::dataplane::Dataplane as _;
use lbagent::observe::explain;
use lbagent_api::service_group::Protocol;
use lbagent_api::trace::{Trace, TraceQuery};
use lbagent_common::Outcome;
use lbagent_tests::require_root;
use time::OffsetDateTime;

use super::{Web, families};

fn trace(web: &Web, port: u16, host: Option<&str>) -> Vec<Trace> {
    let ask = |(source, mut destination): (std::net::SocketAddr, std::net::SocketAddr)| {
        destination.set_port(port);
        let query = TraceQuery {
            protocol: Protocol::Tcp,
            source,
            destination,
            is_new: false,
            interface: None,
            host: host.map(str::to_owned),
        };
        let mut trace = None;
        let now = OffsetDateTime::UNIX_EPOCH;
        web.rig.dataplane.look_up(&mut |maps| {
            let explained = explain(maps, &web.rig.desired, &query, None, now);
            trace = Some(explained.unwrap());
        });
        trace.unwrap()
    };
    families(2000).map(ask).into()
}

#[test]
fn host_names_count_where_a_port_redirects_and_elsewhere_it_is_said_that_they_do_not() {
    require_root!();
    let web = Web::new();
    #[track_caller]
    fn check(web: &Web, port: u16, host: Option<&str>, outcome: Outcome, is_idle: bool) {
        for trace in trace(web, port, host) {
            let said = trace.reason.contains("the host name changes nothing");
            assert_eq!(
                (trace.outcome.as_str(), said),
                (outcome.label(), is_idle),
                "{}",
                trace.reason
            );
        }
    }
    check(
        &web,
        80,
        Some("www.shop.example"),
        Outcome::AnswerRedirect,
        false,
    );
    check(
        &web,
        80,
        Some("plain.shop.example"),
        Outcome::PassRedirect,
        false,
    );
    check(
        &web,
        80,
        Some("nobody.example"),
        Outcome::PassRedirect,
        false,
    );
    check(&web, 80, None, Outcome::PassRedirect, false);
    check(
        &web,
        443,
        Some("www.shop.example"),
        Outcome::PassTerminate,
        true,
    );
    check(&web, 443, None, Outcome::PassTerminate, false);
}
