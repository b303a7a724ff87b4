//! Three replicas of a service share one login on Redis, and nobody is signed out.
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1:6379/ cargo run --example replicas --features redis
//! ```
//!
//! The replicas are processes here; the token endpoint is the scripted one of the `shared_login` example.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

#[path = "../shared_login/crowd.rs"]
mod crowd;
#[path = "../support/terminal.rs"]
mod terminal;

use std::{env, process::ExitCode};

use steadfast::{BoxError, store::RedisStore};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let Ok(url) = env::var("REDIS_URL") else {
        println!("set REDIS_URL to a Redis server, for instance redis://127.0.0.1:6379/");
        return Ok(ExitCode::FAILURE);
    };
    if crowd::is_worker() {
        crowd::work(RedisStore::open(&url, &env::var("LOGIN_PLACE")?)?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut arguments = env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (replicas, turns) = (arguments.next().unwrap_or(3), arguments.next().unwrap_or(50));
    println!("{replicas} replicas, {turns} tokens each, one login on Redis\n");
    // A login of this run only: what an earlier one has left is another user's.
    crowd::run(replicas, turns, &format!("replicas-example-{:x}", fastrand::u64(..))).await
}
