#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| adamant_tests::entries::credentials(bytes));
