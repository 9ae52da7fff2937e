//! `./dev fuzz state`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lifecycle_tests::fuzzing::body("state")(bytes));
