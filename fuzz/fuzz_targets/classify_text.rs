#![no_main]

#[path = "../../tests/support/classify_text.rs"]
mod holds;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        holds::whatever_is_read_stands_there(text);
    }
});
