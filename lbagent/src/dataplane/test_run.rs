//! Runs a program on one packet by hand (`BPF_PROG_TEST_RUN`).

use aya::programs::{ProgramError, TestRun, TestRunOptions};

use super::{KernelDataplane, LoadError};

/// Room for what a program may add: headers, or an answer.
const GROWTH: usize = 640;
/// Bytes of an Ethernet header, the least that the kernel runs a program on.
const SHORTEST: usize = 14;
/// The kernel gives XDP one page (4096 bytes) less its headroom (256) and the end that a socket
/// buffer would need (320).
const LONGEST_XDP: usize = 4096 - 256 - 320;

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its result.
    pub action: Action,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Out of the interface that it came in by.
    Tx,
    /// Out of another interface.
    Redirect,
    /// To the kernel.
    Pass,
    /// Nowhere.
    Drop,
}

/// Why a packet could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has no Ethernet header.
    #[error("a packet of {0} bytes has no Ethernet header")]
    TooShort(usize),
    /// It does not fit.
    #[error("a packet of {0} bytes does not fit into XDP's {LONGEST_XDP}")]
    TooLong(usize),
    /// The object has no such program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error("the kernel does not run the program")]
    Refused(#[source] Box<ProgramError>),
    /// The program ended with a number that means nothing.
    #[error("the program ended with the unknown action {0}")]
    UnknownAction(u32),
}

impl KernelDataplane {
    /// Runs `lb_ingress` on a packet that came in by an interface of this network namespace.
    pub fn run_ingress(&mut self, packet: &[u8], ifindex: u32) -> Result<Run, RunError> {
        if packet.len() > LONGEST_XDP {
            return Err(RunError::TooLong(packet.len()));
        }
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = words([0, packet.len() as u32, 0, ifindex, 0, 0]);
        let (result, packet) = run(self.ingress_program()?, packet, &context)?;
        let action = match result {
            0 | 1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            unknown => return Err(RunError::UnknownAction(unknown)),
        };
        Ok(Run { action, packet })
    }

    /// Runs `lb_return` on a packet that came in by an interface of this network namespace.
    pub fn run_return(&mut self, packet: &[u8], ifindex: u32) -> Result<Run, RunError> {
        // `struct __sk_buff` up to `ifindex`; the two before it are priority and ingress_ifindex.
        let context = words([0, 0, 0, 0, 0, 0, 0, 0, 0, ifindex, ifindex]);
        let (result, packet) = run(self.return_program()?, packet, &context)?;
        let action = match result as i32 {
            -1 | 0 | 3 => Action::Pass,
            2 => Action::Drop,
            7 => Action::Redirect,
            _ => return Err(RunError::UnknownAction(result)),
        };
        Ok(Run { action, packet })
    }
}

fn run<P>(program: &P, packet: &[u8], context: &[u8]) -> Result<(u32, Vec<u8>), RunError>
where
    for<'a> P: TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::programs::TestRunResult>,
{
    if packet.len() < SHORTEST {
        return Err(RunError::TooShort(packet.len()));
    }
    let mut left = vec![0; packet.len() + GROWTH];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut left),
            ctx_in: Some(context),
            ..TestRunOptions::default()
        })
        .map_err(|error| RunError::Refused(Box::new(error)))?;
    left.truncate(result.data_size_out as usize);
    Ok((result.return_value, left))
}

pub(super) fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
