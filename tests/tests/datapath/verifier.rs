//! What the kernel's verifier has to do for the programs. Kernels differ much in it.

use std::io::Write;

use lbagent::dataplane::{decap, embedded_object};
use lbagent_tests::bpf_stack::{self, callers_of_byte_loops, deepest_chains};
use lbagent_tests::prog_run::Rig;
use lbagent_tests::require_root;

/// A kernel gives up at a million instructions (`BPF_COMPLEXITY_LIMIT_INSNS`), which takes it
/// seconds; a hundred thousand take less than the 250 ms that a program may take to load. `lb_ingress`
/// takes 61,500 on Linux 6.18 and 110,400 on 6.1, since it answers requests.
///
/// Where ordinary functions call each other, Linux 6.1 needs four to thirteen times as many as later
/// kernels: before Linux 6.4 the search for what a branch depended on ended at every call, and
/// everything that was known then counted as needed, so that hardly any state equals an earlier one.
/// That is one reason why the larger stages are checked on their own (`apart.rs`).
///
/// The stack is the other limit that 6.1 reaches first: 512 bytes for a chain of calls, in which it
/// rounds each function's part up to 32 bytes, where kernels since 6.9 round up to 16. A chain of
/// 264 + 160 + 72 bytes is 512 to them, and 544 to 6.1, which refuses it.
const MOST: u32 = 120_000;

#[test]
fn programs_are_verified_with_room_to_spare() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    let ingress = rig.dataplane.ingress_program().unwrap().info().unwrap();
    let back = rig.dataplane.return_program().unwrap().info().unwrap();
    for program in [ingress, back] {
        let name = program.name_as_str().unwrap().to_owned();
        let verified = program.verified_instruction_count().unwrap();
        // The runner hides what a good test prints by `println!`, and these are figures to read.
        writeln!(
            std::io::stderr(),
            "{name}: {verified} instructions verified, {} bytes of machine code",
            program.size_jitted()
        )
        .unwrap();
        assert!((1..=MOST).contains(&verified), "{name}: {verified}");
    }
}

/// Kernels from 6.9 on accept chains that Linux 6.1 refuses, so loading shows nothing here.
#[test]
fn chains_of_calls_fit_the_stack_of_the_oldest_kernel() {
    for chain in deepest_chains(embedded_object()).unwrap() {
        assert!(
            chain.bytes <= bpf_stack::LIMIT,
            "a chain takes {} bytes of stack of {} on Linux 6.1: {:#?}",
            chain.bytes,
            bpf_stack::LIMIT,
            chain.frames
        );
    }
}

/// A `memset` of 36 bytes had cost a quarter of all that is done for a packet before anybody saw it.
#[test]
fn nothing_goes_byte_by_byte() {
    for object in [embedded_object(), decap::embedded_object()] {
        let callers = callers_of_byte_loops(object).unwrap();
        assert!(callers.is_empty(), "byte loops are called by {callers:#?}");
    }
}
