//! The generator and the sink of live frames, loaded and filled.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::bench::{floors, layout};

/// Frames that the kernel makes before it lets the devices work: the largest that it takes, and as
/// many as a veth's ring holds.
const BATCH: u32 = 256;
/// Length of every frame: the shortest that Ethernet has, without its checksum.
pub const FRAME: usize = 60;

const GENERATOR: &str = "live_generator";
/// Counts what arrives at an interface.
pub const SINK: &str = "live_sink";
/// Sends a frame back.
pub const TX: &str = "floor_tx";
/// Sends a frame to the interface named by [`Live::set_next`].
pub const FORWARD: &str = "live_forward";

/// What the sink takes for right.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// IP protocol of the outermost header.
    pub protocol: u8,
    /// Its destination.
    pub destination: [u8; 4],
    /// How many leading bytes of the destination count.
    pub leading: usize,
}

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Frames as expected, by the last byte of the link address that they were sent to.
    pub stations: BTreeMap<u8, u64>,
    /// Other IPv4 frames.
    pub others: u64,
}

impl Arrived {
    /// Frames as expected.
    pub fn frames(&self) -> u64 {
        self.stations.values().sum()
    }
}

/// The loaded programs.
pub struct Live {
    ebpf: Ebpf,
}

impl Live {
    /// Loads all programs; none is attached.
    pub fn load() -> Result<Self> {
        let path = floors::object();
        let mut ebpf = EbpfLoader::new().load_file(&path).with_context(|| {
            format!(
                "can't load {}; `cargo xtask build` makes it",
                path.display()
            )
        })?;
        for name in [GENERATOR, SINK, TX, FORWARD] {
            floors::load_program(&mut ebpf, name)?;
        }
        Ok(Self { ebpf })
    }

    fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program
            .with_context(|| format!("the object has no program {name}"))?
            .try_into()?)
    }

    /// Attaches a program to an interface of this thread's namespace, in native mode, until the
    /// interface goes.
    pub fn attach(&mut self, program: &str, interface: &str) -> Result<()> {
        self.program(program)?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("attaching {program} to {interface}"))?;
        Ok(())
    }

    fn array<T: aya::Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, T>> {
        let map = self.ebpf.map_mut(name);
        Ok(map
            .with_context(|| format!("the object has no map {name}"))?
            .try_into()?)
    }

    /// Says where [`FORWARD`] sends frames: an interface of this thread's namespace.
    pub fn set_next(&mut self, ifindex: u32) -> Result<()> {
        Ok(self.array::<u32>("LIVE_NEXT")?.set(0, ifindex, 0)?)
    }

    /// Says what the sink counts as right from now on, and forgets what has arrived.
    pub fn expect(&mut self, expected: &Expected) -> Result<()> {
        let mask: [u8; 4] =
            std::array::from_fn(|index| if index < expected.leading { 0xff } else { 0 });
        let (mask, destination) = (
            u32::from_ne_bytes(mask),
            u32::from_ne_bytes(expected.destination),
        );
        let mut words = [0_u64; layout::EXPECTED_WORDS];
        words[layout::EXPECTED_PROTOCOL] = expected.protocol.into();
        words[layout::EXPECTED_DESTINATION] = (destination & mask).into();
        words[layout::EXPECTED_MASK] = mask.into();
        self.array::<[u64; layout::EXPECTED_WORDS]>("LIVE_EXPECTED")?
            .set(0, words, 0)?;
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| {
            anyhow::Error::from(error).context(format!("reading {file}"))
        })?;
        let mut counters = self.counters()?;
        for index in 0..layout::ARRIVED_LEN {
            let zeros = PerCpuValues::try_from(vec![0; cpus])?;
            counters.set(index, zeros, 0)?;
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<PerCpuArray<&mut MapData, u64>> {
        let map = self.ebpf.map_mut("LIVE_ARRIVED");
        Ok(map
            .context("the object has no map LIVE_ARRIVED")?
            .try_into()?)
    }

    /// What has arrived since [`Live::expect`].
    pub fn arrived(&mut self) -> Result<Arrived> {
        let counters = self.counters()?;
        let mut arrived = Arrived::default();
        for index in 0..layout::ARRIVED_LEN {
            let frames = counters.get(&index, 0)?.iter().sum();
            match u8::try_from(index) {
                Ok(station) if frames > 0 => {
                    arrived.stations.insert(station, frames);
                }
                Ok(_) => {}
                // `layout::ARRIVED_OTHER`, the only index above 255.
                Err(_) => arrived.others = frames,
            }
        }
        Ok(arrived)
    }

    /// Sends `count` frames out of an interface of this thread's namespace, on this CPU. The frame
    /// is the template: its source port and the lower half of its source address are zero, its
    /// checksums right. Returns how long it took until the devices had worked them off.
    pub fn send(&mut self, frame: &[u8], ifindex: u32, count: u32) -> Result<Duration> {
        ensure!(frame.len() == FRAME, "frames have {FRAME} bytes");
        let checksum = |offset: usize| {
            let sum = u16::from_ne_bytes([frame[offset], frame[offset + 1]]);
            u64::from(!sum)
        };
        let mut words = [0_u64; layout::LIVE_WORDS];
        words[layout::LIVE_IP_SUM] = checksum(24);
        words[layout::LIVE_TCP_SUM] = checksum(50);
        for (word, bytes) in words[layout::LIVE_HEADERS..]
            .iter_mut()
            .zip(frame.chunks_exact(8))
        {
            *word = u64::from_ne_bytes(bytes.try_into().context("a chunk of 8 bytes")?);
        }
        self.array::<[u64; layout::LIVE_WORDS]>("LIVE_FRAME")?
            .set(0, words, 0)?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress.
        let context: Vec<u8> = [0, frame.len() as u32, 0, ifindex, 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let generator = self.program(GENERATOR)?;
        let result = generator
            .test_run(options)
            .context("the kernel does not send live frames")?;
        // The kernel's own clock: preparing a run takes tens of milliseconds.
        Ok(result.duration * count)
    }
}
