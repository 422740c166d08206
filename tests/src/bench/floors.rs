//! The benchmark's own BPF object: harness and floor programs, loaded and filled.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader};
use lbagent_common::VipKey;

use super::layout;

/// Names the benchmark's object, where it is not where `cargo xtask build` puts it.
const OBJECT_OVERRIDE: &str = "LBAGENT_BENCH_BPF_OBJECT";

/// Programs that can be measured, in the order of their indexes in `TARGETS`.
const FLOORS: [&str; 3] = ["floor_tx", "floor_ref", "floor_stateless"];
/// What restores the headers of a frame, by family.
const HEADERS: [&str; 2] = ["harness_v4", "harness_v6"];
/// What restores a frame to its end.
const WHOLE: [&str; 2] = ["harness_whole_v4", "harness_whole_v6"];
/// Index of the program that is handed in.
const SUBJECT: u32 = FLOORS.len() as u32;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Sends the frame back, nothing else.
    Tx,
    /// The reference of every ratio.
    Reference,
    /// A balancer without memory.
    Stateless,
    /// lbagent's own program.
    Ingress,
}

impl Target {
    fn index(self) -> u32 {
        match self {
            Self::Tx => 0,
            Self::Reference => 1,
            Self::Stateless => 2,
            Self::Ingress => SUBJECT,
        }
    }
}

/// What the harness restores before every packet.
pub struct Restore<'a> {
    /// The program that gets it.
    pub target: Target,
    /// The frame.
    pub frame: &'a [u8],
    /// Which flow each packet is of.
    pub flows: Flows,
}

/// How the harness picks the flow of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// At random among so many, a power of two.
    Among(u32),
    /// Each of so many once before one comes again; a power of two.
    InTurn(u32),
}

impl Flows {
    /// No flow comes twice within 2^32 packets.
    pub const DISTINCT: Self = Self::InTurn(0);
}

/// The loaded object.
pub struct Floors {
    ebpf: Ebpf,
    /// A program array forgets its programs when user space closes its last descriptor.
    _targets: ProgramArray<MapData>,
}

impl Floors {
    /// Loads the object; `subject` is the program to compare with the floors.
    pub fn load(subject: &ProgramFd) -> Result<Self> {
        let path = object();
        let mut ebpf = EbpfLoader::new().load_file(&path).with_context(|| {
            format!(
                "can't load {}; `cargo xtask build` makes it",
                path.display()
            )
        })?;
        let map = ebpf
            .take_map("TARGETS")
            .context("the object has no map TARGETS")?;
        let mut targets = ProgramArray::try_from(map)?;
        for (index, name) in (0..).zip(FLOORS) {
            let program = load_program(&mut ebpf, name)?;
            targets.set(index, program.fd()?, 0)?;
        }
        targets.set(SUBJECT, subject, 0).context(
            "the kernel does not let the harness call lb_ingress; both must be of one XDP kind",
        )?;
        for harness in [HEADERS, WHOLE].concat() {
            load_program(&mut ebpf, harness)?;
        }
        Ok(Self {
            ebpf,
            _targets: targets,
        })
    }

    /// Fills the floors' maps: this VIP, and a table of `backends` owners.
    pub fn publish(&mut self, vips: &[VipKey], backends: u32) -> Result<()> {
        let destination = |backend: u32| (0x0a64_0001 + backend).to_be();
        let mut map: HashMap<_, VipKey, u32> = HashMap::try_from(self.map("FLOOR_VIPS")?)?;
        for vip in vips {
            map.insert(vip, destination(0), 0)?;
        }
        let mut map: Array<_, u32> = Array::try_from(self.map("FLOOR_BACKENDS")?)?;
        for backend in 0..backends.min(layout::FLOOR_BACKENDS_LEN) {
            map.set(backend, destination(backend), 0)?;
        }
        let mut map: Array<_, u32> = Array::try_from(self.map("FLOOR_RING")?)?;
        for slot in 0..layout::FLOOR_RING_LEN {
            // As scattered as a Maglev table; only the memory that is touched matters here.
            map.set(slot, slot.wrapping_mul(0x9e37_79b1) % backends, 0)?;
        }
        Ok(())
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("the object has no map {name}"))
    }

    /// Says what is restored from now on.
    pub fn prepare(&mut self, restore: &Restore<'_>) -> Result<()> {
        let mut case = [0_u64; layout::CASE_WORDS];
        case[layout::TARGET] = u64::from(restore.target.index());
        case[layout::LENGTH] = restore.frame.len() as u64;
        let (Flows::Among(flows) | Flows::InTurn(flows)) = restore.flows;
        // The number of `DISTINCT` is 2^32, which wraps to 0.
        case[layout::FLOW_MASK] = u64::from(flows.wrapping_sub(1));
        case[layout::FLOW_SHIFT] = match restore.flows {
            Flows::Among(_) => 32,
            Flows::InTurn(_) => 0,
        };
        for (word, bytes) in case[layout::FRAME..]
            .iter_mut()
            .zip(restore.frame.chunks_exact(8))
        {
            *word = u64::from_ne_bytes(bytes.try_into().context("a chunk of 8 bytes")?);
        }
        let mut map: Array<_, [u64; layout::CASE_WORDS]> = Array::try_from(self.map("CASE")?)?;
        Ok(map.set(0, case, 0)?)
    }

    /// Says that the whole frame is restored from now on, for [`run_whole`](Self::run_whole).
    pub fn prepare_whole(&mut self, restore: &Restore<'_>) -> Result<()> {
        let mut words = [0_u64; layout::WHOLE_WORDS];
        ensure!(
            restore.frame.len() <= size_of_val(&words),
            "a frame of {} bytes is too long",
            restore.frame.len()
        );
        for (word, bytes) in words.iter_mut().zip(restore.frame.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(padded);
        }
        let mut map: Array<_, [u64; layout::WHOLE_WORDS]> = Array::try_from(self.map("WHOLE")?)?;
        map.set(0, words, 0)?;
        self.prepare(restore)
    }

    /// Runs the harness `repeat` times on behalf of an interface.
    pub fn run(&mut self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<TestRunResult> {
        self.run_harness(HEADERS, frame, ifindex, repeat)
    }

    /// Runs the harness that restores whole frames.
    pub fn run_whole(&mut self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<TestRunResult> {
        self.run_harness(WHOLE, frame, ifindex, repeat)
    }

    fn run_harness(
        &mut self,
        [v4, v6]: [&str; 2],
        frame: &[u8],
        ifindex: u32,
        repeat: u32,
    ) -> Result<TestRunResult> {
        let is_v4 = frame[12..14] == [0x08, 0x00];
        let harness = if is_v4 { v4 } else { v6 };
        let program: &mut Xdp = self
            .ebpf
            .program_mut(harness)
            .with_context(|| format!("the object has no program {harness}"))?
            .try_into()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress.
        let context: Vec<u8> = [0, frame.len() as u32, 0, ifindex, 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        let mut out = vec![0; frame.len() + 1024];
        Ok(program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        })?)
    }
}

pub(super) fn load_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    program
        .load()
        .with_context(|| format!("the kernel refuses {name}"))?;
    Ok(program)
}

pub(super) fn object() -> PathBuf {
    match std::env::var_os(OBJECT_OVERRIDE) {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/lbagent-bench-ebpf"),
    }
}
