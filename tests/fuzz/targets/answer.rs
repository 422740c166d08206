#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lbterm::http::fuzzing::answer(input));
