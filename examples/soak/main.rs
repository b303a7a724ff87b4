//! Minutes of real HTTP in which everything goes wrong at random, and nothing may pile up.
//!
//! ```sh
//! cargo run --release --example soak -- --minutes 10   # or --seconds 15; one minute unless told
//! cargo run --example soak -- --seed 4711              # other dice
//! cargo run --example soak -- --leak task              # or handle, socket, heap: spoils it, and has to fail
//! ```
//!
//! An authorization server that rotates refresh tokens, an API that checks them, and four hosts that call it: one with a login
//! of its own, two that share a login in a file, one with client credentials. Tokens live two seconds. The servers fail in
//! each way they know; callers hang up; the host nudges, signs in again, and makes and drops handles; sinks are slow or fail.
//!
//! The time is cut into rounds. Each ends with a quiet phase, in which every host has to be served again, and a rest: the
//! callers stop, the connections close, and what is still there is counted. It fails if tasks or open files are more than at
//! the first rest, if the heap has grown by more than a bound that does not depend on the time, or if a promise was broken.
//! The seed makes the dice the same, not the run: who throws them when is up to the machine.
#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it lives in real time")]

mod api;
mod arguments;
mod hosts;
mod idp;
mod ledger;
mod people;
mod reading;
mod server;
mod soak;
mod table;
#[path = "../support/terminal.rs"]
mod terminal;
mod weather;

use std::process::ExitCode;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let outcome = match arguments::Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => soak::run(arguments).await,
        Err(usage) => Err(usage.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", terminal::hanging("soak: ", &error.to_string()));
            ExitCode::from(2)
        }
    }
}
