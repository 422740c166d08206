//! `lbagent decap` on a backend: a gateway made of two raw sockets encapsulates what clients send to
//! the VIP; the backend takes the header off and answers the client directly.

mod command;
mod segments;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use futures_util::TryStreamExt;
use lbagent_tests::agent::{BPFFS_DIR, Ended, binary};
use lbagent_tests::client::{ANSWER, Connection};
use lbagent_tests::net_link::{Cidr, Netlink};
use lbagent_tests::netns::{BpfFs, HostNs, NetNs, set_sysctl};
use lbagent_tests::poll::{SOON, poll_for, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::server::Server;
use lbagent_tests::syscalls::{
    FrameSocket, Offload, attach_xdp_pass, interface_index, set_offload,
};
use lbagent_tests::transfer::{Direction, Transfer};
use lbagent_tests::tunnel::{Encapsulation, Outer, encapsulate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const CLIENT_V4: &str = "10.77.0.1";
const CLIENT_V6: &str = "fd77::1";
const BACKEND_V4: &str = "10.77.0.2";
const BACKEND_V6: &str = "fd77::2";
const GATEWAY_V4: &str = "10.77.0.9";
const GATEWAY_V6: &str = "fd77::9";
const VIP_V4: &str = "192.0.2.10";
const VIP_V6: &str = "2001:db8:a::10";
const PORT: u16 = 7000;

const IPIP: Encapsulation = Encapsulation::Ipip;
const GUE: Encapsulation = Encapsulation::GueVariant1 { port: 6080 };
const GUE0: Encapsulation = Encapsulation::GueVariant0 {
    port: 6080,
    options: 1,
};

/// What the gateway does with packets for the VIP; `None` passes them as they are.
type Wrapping = Option<(Outer, Encapsulation)>;

fn outer_v4() -> Outer {
    Outer::new(GATEWAY_V4, BACKEND_V4)
}

fn outer_v6() -> Outer {
    Outer::new(GATEWAY_V6, BACKEND_V6)
}

/// What the gateway saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    wrapping: Mutex<Wrapping>,
    /// MSS of the last SYN-ACK of a VIP.
    mss: AtomicU16,
    /// Frames that did not fit with their outer header.
    too_big: AtomicU64,
}

/// A cable between client and backend that encapsulates on the way in.
struct Gateway {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    fn start(ns: &NetNs) -> Self {
        let seen = Arc::<Seen>::default();
        let open = |name| FrameSocket::open(interface_index(name).unwrap()).unwrap();
        let (to_client, to_backend) = ns.run(|| (Arc::new(open("r0")), Arc::new(open("r1"))));
        let mut threads = Vec::new();
        let ways = [
            (Arc::clone(&to_client), Arc::clone(&to_backend), true),
            (to_backend, to_client, false),
        ];
        for (from, to, inwards) in ways {
            let seen = Arc::clone(&seen);
            threads.push(thread::spawn(move || relay(&seen, &from, &to, inwards)));
        }
        Self { seen, threads }
    }

    fn wrap(&self, outer: Outer, encapsulation: Encapsulation) {
        *self.seen.wrapping.lock().unwrap() = Some((outer, encapsulation));
    }

    fn unwrap(&self) {
        *self.seen.wrapping.lock().unwrap() = None;
    }

    fn mss(&self) -> u16 {
        self.seen.mss.load(Ordering::Relaxed)
    }

    fn too_big(&self) -> u64 {
        self.seen.too_big.load(Ordering::Relaxed)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("the gateway ended in order");
            }
        }
    }
}

fn relay(seen: &Seen, from: &FrameSocket, to: &FrameSocket, inwards: bool) {
    while !seen.stop.load(Ordering::Relaxed) {
        let Some(frame) = from.receive(Duration::from_millis(20)).unwrap() else {
            continue;
        };
        let wrapping = *seen.wrapping.lock().unwrap();
        let frame = match wrapping {
            Some((outer, encapsulation)) if inwards && is_for_vip(&frame) => {
                encapsulate(&frame, &outer, encapsulation)
            }
            _ => frame,
        };
        if !inwards && let Some(mss) = mss_of_syn_ack(&frame) {
            seen.mss.store(mss, Ordering::Relaxed);
        }
        match to.send(&frame) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                seen.too_big.fetch_add(1, Ordering::Relaxed);
            }
            // An interface that is down, or a full queue: a cable loses frames.
            _ => {}
        }
    }
}

fn is_for_vip(frame: &[u8]) -> bool {
    let vip = |text: &str| text.parse::<IpAddr>().unwrap();
    let destination = match frame.get(12..14) {
        Some([0x08, 0]) => frame.get(30..34).map(|bytes| {
            let octets: [u8; 4] = bytes.try_into().unwrap();
            IpAddr::from(octets)
        }),
        Some([0x86, 0xdd]) => frame.get(38..54).map(|bytes| {
            let octets: [u8; 16] = bytes.try_into().unwrap();
            IpAddr::from(octets)
        }),
        _ => None,
    };
    destination.is_some_and(|ip| ip == vip(VIP_V4) || ip == vip(VIP_V6))
}

fn mss_of_syn_ack(frame: &[u8]) -> Option<u16> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        return None;
    };
    if !(tcp.syn() && tcp.ack()) {
        return None;
    }
    tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    })
}

/// Client, gateway and a backend that has the VIPs on its loopback interface.
struct Lab {
    // Stopped before its interfaces go.
    gateway: Gateway,
    client: NetNs,
    backend: HostNs,
    _relay: NetNs,
}

impl Lab {
    fn new() -> Self {
        let client = NetNs::new("decap-client").unwrap();
        let relay = NetNs::new("decap-gateway").unwrap();
        let backend = HostNs::new("decap-backend", BpfFs::Mounted).unwrap();
        relay.run(|| {
            for place in ["all", "default"] {
                set_sysctl(&format!("net/ipv6/conf/{place}/disable_ipv6"), "1").unwrap();
            }
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("r0", &client, "c0").unwrap();
            netlink.add_veth("r1", &backend.net, "b0").unwrap();
        });
        let cidr = |ip: &str, len: u8| Cidr::new(&format!("{ip}/{len}"));
        client.run(|| {
            let netlink = Netlink::open().unwrap();
            // Raw sockets see frames before a network card would complete their checksums.
            set_offload("c0", Offload::TxChecksum, false).unwrap();
            netlink.add_address("c0", cidr(CLIENT_V4, 24)).unwrap();
            netlink.add_address("c0", cidr(CLIENT_V6, 64)).unwrap();
            for (vip, len, via) in [(VIP_V4, 32, BACKEND_V4), (VIP_V6, 128, BACKEND_V6)] {
                let via = Some(via.parse().unwrap());
                netlink.add_route(cidr(vip, len), "c0", via).unwrap();
            }
        });
        backend.net.run(|| {
            let netlink = Netlink::open().unwrap();
            set_offload("b0", Offload::TxChecksum, false).unwrap();
            netlink.add_address("b0", cidr(BACKEND_V4, 24)).unwrap();
            netlink.add_address("b0", cidr(BACKEND_V6, 64)).unwrap();
            netlink.add_address("lo", cidr(VIP_V4, 32)).unwrap();
            netlink.add_address("lo", cidr(VIP_V6, 128)).unwrap();
        });
        let gateway = Gateway::start(&relay);
        Self {
            client,
            backend,
            gateway,
            _relay: relay,
        }
    }

    /// `lbagent decap --iface b0 ARGS…` on the backend.
    fn decap(&self, arguments: &[&str]) -> Ended {
        let mut command = self.backend.command(binary("LBAGENT_BIN", "lbagent"));
        command.args(["decap", "--iface", "b0"]).args(arguments);
        Ended::of(&mut command).unwrap()
    }

    #[track_caller]
    fn decap_ok(&self, arguments: &[&str]) -> String {
        let ended = self.decap(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended.stdout
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.decap_ok(&["--status", "--json"])).unwrap()
    }

    fn packets(&self, outcome: &str) -> u64 {
        let packets = &self.status()["outcomes"][outcome]["packets"];
        packets.as_u64().expect("a known outcome")
    }

    fn connect(&self, vip: &str, patience: Duration) -> anyhow::Result<Connection> {
        let to = SocketAddr::new(vip.parse().unwrap(), PORT);
        self.client
            .run(|| Connection::open_within(to, None, patience))
    }

    /// A TCP connection that carries data both ways.
    #[track_caller]
    fn talk(&self, vip: &str) {
        let mut connection = self.connect(vip, ANSWER).unwrap();
        assert_eq!(connection.greeting.seen, connection.local);
        connection.command("echo").unwrap();
        connection.echo("through the tunnel").unwrap();
    }

    /// Links, XDP programs, queueing disciplines and pins.
    fn traces(&self) -> BTreeSet<String> {
        self.backend.run(|| {
            let mut lines = Netlink::open().unwrap().describe().unwrap();
            lines.extend(queueing_disciplines());
            let pins = fs::read_dir("/sys/fs/bpf").unwrap();
            lines.extend(pins.map(|pin| format!("pin {:?}", pin.unwrap().path())));
            lines
        })
    }
}

fn queueing_disciplines() -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let found: Vec<_> = handle.qdisc().get().execute().try_collect().await.unwrap();
        found
            .iter()
            .map(|message| format!("qdisc {} {:?}", message.header.index, message.header.handle))
            .collect()
    })
}

/// The ways that this kernel has to attach to TC.
fn tc_modes() -> &'static [&'static str] {
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_str().unwrap().to_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    if numbers.next().zip(numbers.next()) >= Some((6, 6)) {
        &["tcx", "clsact"]
    } else {
        &["clsact"]
    }
}

/// A UDP server that answers from the VIP, as one that serves a VIP must.
fn answer_datagrams(lab: &Lab, vip: &str) -> JoinHandle<io::Result<()>> {
    let address = SocketAddr::new(vip.parse().unwrap(), PORT);
    let socket = lab.backend.net.run(|| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer).map(drop)
    })
}

#[track_caller]
fn ask(lab: &Lab, vip: &str) {
    let server = answer_datagrams(lab, vip);
    let to = SocketAddr::new(vip.parse().unwrap(), PORT);
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = lab.client.run(|| UdpSocket::bind(any)).unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    client.send_to(b"a question", to).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"a question"[..], to));
    server.join().unwrap().unwrap();
}

#[test]
fn every_encapsulation_reaches_the_vip() {
    #[track_caller]
    fn check(lab: &Lab, vip: &str, outer: Outer, encapsulation: Encapsulation) {
        let counter = match encapsulation {
            Encapsulation::Ipip => "decap_ipip",
            _ => "decap_gue",
        };
        let before = lab.packets(counter);
        lab.gateway.wrap(outer, encapsulation);
        lab.talk(vip);
        ask(lab, vip);
        // SYN, ACK, command, text, FIN and the datagram at least.
        let taken_off = lab.packets(counter) - before;
        assert!(
            taken_off >= 6,
            "{vip} {outer:?} {encapsulation:?}: {taken_off}"
        );
    }
    require_root!();
    let lab = Lab::new();
    let _server = Server::start(&lab.backend.net, "b", &[PORT], &[]).unwrap();
    // The way itself works, and nothing but the programs takes the header off.
    lab.talk(VIP_V4);
    lab.gateway.wrap(outer_v4(), IPIP);
    let refused = lab.connect(VIP_V4, Duration::from_millis(300));
    assert!(refused.is_err(), "connected without decapsulation");
    for mode in ["native", "generic"] {
        let done = lab.decap_ok(&["--xdp-mode", mode]);
        assert!(done.contains(&format!("XDP {mode}")), "{done}");
        for vip in [VIP_V4, VIP_V6] {
            for outer in [outer_v4(), outer_v6()] {
                for encapsulation in [IPIP, GUE, GUE0] {
                    check(&lab, vip, outer, encapsulation);
                }
            }
        }
    }
    // What is not for a VIP still arrives.
    let direct = SocketAddr::new(BACKEND_V4.parse().unwrap(), PORT);
    Connection::open(&lab.client, direct).unwrap();
    assert_eq!(
        lab.packets("drop_failed") + lab.packets("drop_congestion"),
        0
    );
}
