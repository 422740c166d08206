#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lbagent_fuzz::redirect::redirect(input));
