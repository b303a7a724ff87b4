//! A host lives through an outage of its token endpoint, over real HTTP and in about 15 seconds.
//!
//! Without arguments, a scripted authorization server on the loopback interface plays healthy, hides behind a WAF page,
//! comes back, and revokes the login, while steady callers ask for tokens all along:
//!
//! ```sh
//! cargo run --example outage
//! ```
//!
//! With a real authorization server, the same monitor prints its transitions until Ctrl-C:
//!
//! ```sh
//! cargo run --example outage -- --token-url URL --client-id ID [--client-secret S] [--refresh-token T] [--scope S]
//! ```
//!
//! Give it a login of its own: where the server rotates refresh tokens, the one given is spent with the first refresh.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it measures how long real callers wait")]

mod callers;
mod drill;
mod live;
#[path = "../support/terminal.rs"]
mod terminal;
#[path = "../support/timeline.rs"]
mod timeline;
#[path = "../support/words.rs"]
mod words;

use std::process::ExitCode;

use steadfast::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match live::Arguments::read(std::env::args().skip(1)) {
        Ok(None) => drill::run().await,
        Ok(Some(arguments)) => live::run(arguments).await.map(|()| true),
        Err(usage) => Err(BoxError::from(usage)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", terminal::hanging("outage: ", &error.to_string()));
            ExitCode::from(2)
        }
    }
}
