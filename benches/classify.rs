//! What reading an error costs. The yardstick for texts is lower-casing them and 13 `contains`.

use std::{error::Error, fmt, hint::black_box, io};

use divan::{Bencher, counter::BytesCount};
use steadfast::classify::Classifier;

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 1000)]
fn typed_hit(bencher: Bencher<'_, '_>) {
    let error = io::Error::from(io::ErrorKind::ConnectionRefused);
    bencher.bench_local(|| CLASSIFIER.classify(black_box(&error)));
}

#[divan::bench(sample_size = 1000)]
fn typed_hit_under_three_wrappers(bencher: Bencher<'_, '_>) {
    let error = Wrapped(Box::new(Wrapped(Box::new(Wrapped(Box::new(io::Error::from(io::ErrorKind::TimedOut)))))));
    bencher.bench_local(|| CLASSIFIER.classify(black_box(&error)));
}

#[divan::bench(sample_size = 200, args = [40, 400, 4096, 16 * 1024])]
fn text_miss(bencher: Bencher<'_, '_>, len: usize) {
    let text = prose(len);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| CLASSIFIER.classify_text(black_box(&text)));
}

#[divan::bench(sample_size = 200, args = [40, 400, 4096, 16 * 1024])]
fn text_miss_by_lower_casing(bencher: Bencher<'_, '_>, len: usize) {
    let text = prose(len);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| contains_one_of_13(black_box(&text)));
}

fn contains_one_of_13(text: &str) -> bool {
    let text = text.to_lowercase();
    PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// What a backend prints that has nothing to say to us.
fn prose(len: usize) -> String {
    PROSE.chars().cycle().take(len).collect()
}

#[derive(Debug)]
struct Wrapped(Box<dyn Error>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call failed")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

static CLASSIFIER: Classifier = Classifier::standard();

const PHRASES: [&str; 13] = [
    "authentication failed",
    "authentication error",
    "401 unauthorized",
    "403 forbidden",
    "unauthorized (401)",
    "http 401",
    "http 403",
    "status code 401",
    "status code 403",
    "request unauthenticated",
    "request unauthorized",
    "access denied",
    "authorization required",
];

const PROSE: &str = "failed to list the tools of backend 'github': calling \"tools/list\": the response has no \
    result: Invalid params: the cursor of page 3 does not belong to this listing (it was made at 10:42:07 by \
    instance mcp-7f9c), so nothing was read from it; start again with the first page, or ask for fewer tools at once. ";
