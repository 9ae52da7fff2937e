//! `./dev fuzz notify`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lifecycle_tests::fuzzing::body("notify")(bytes));
