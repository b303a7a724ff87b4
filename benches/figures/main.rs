//! Every figure of the README, each beside its floor, measured in turns in one run.
//!
//! `cargo bench --bench figures` prints them all as one table, `-- token layer` those of some situations only.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is its work")]
#![allow(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]

mod classify;
mod counted;
mod herd;
mod idle;
mod layer;
mod measure;
mod outage;
mod token;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use measure::Table;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut table = Table::default();
    for (name, situation) in SITUATIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("{name} ...");
            situation(&mut table);
        }
    }
    print!("{table}");
}

/// What a future comes to that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not at once"),
    }
}

type Situation = fn(&mut Table);

const SITUATIONS: &[(&str, Situation)] = &[
    ("token", token::measure),
    ("layer", layer::measure),
    ("classify", classify::measure),
    ("herd", herd::measure),
    ("outage", outage::measure),
    ("idle", idle::measure),
];
