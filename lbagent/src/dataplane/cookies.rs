//! Whether this kernel lets programs answer SYNs with its own cookies.

use std::sync::OnceLock;

use anyhow::anyhow;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};

use super::DataplaneError;

/// The global of the object that leaves all of it out, helpers included, when it is 0.
pub(super) const GLOBAL: &str = "COOKIES";

/// What the programs call; the checks came last, in Linux 6.0.
const HELPERS: [BpfHelper; 3] = [
    BpfHelper::BPF_FUNC_tcp_gen_syncookie,
    BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv4,
    BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6,
];

/// Whether the kernel has the helpers. Where it does not tell, loading the programs does.
pub(super) fn are_supported() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    let has = |helper: BpfHelper| is_helper_supported(ProgramType::Xdp, helper).unwrap_or(true);
    *SUPPORTED.get_or_init(|| HELPERS.into_iter().all(has))
}

/// Says what the kernel lacks.
pub(super) fn require() -> Result<(), DataplaneError> {
    if are_supported() {
        return Ok(());
    }
    Err(DataplaneError::Host {
        operation: "answer",
        object: "SYNs with cookies".to_owned(),
        source: anyhow!("this kernel has no SYN cookies for XDP programs (CONFIG_SYN_COOKIES)"),
    })
}
