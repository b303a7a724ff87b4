//! Eight processes share one login in a file, and nobody is signed out.
//!
//! ```sh
//! cargo run --example shared_login
//! cargo run --release --example shared_login -- 32 200   # processes, tokens for each
//! ```
//!
//! A scripted authorization server on the loopback interface rotates the refresh token with each exchange and revokes the
//! login if one is presented twice. Each process obtains one token after the other, as fast as it can; one that another
//! process has brought is taken up from the file.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod crowd;
#[path = "../support/terminal.rs"]
mod terminal;

use std::{env, path::PathBuf, process::ExitCode};

use steadfast::{BoxError, store::FileStore};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    if crowd::is_worker() {
        let path = env::var("LOGIN_PLACE")?;
        crowd::work(FileStore::new(path)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut arguments = env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (processes, turns) = (arguments.next().unwrap_or(8), arguments.next().unwrap_or(50));
    let directory = env::temp_dir().join(format!("shared-login-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let path: PathBuf = directory.join("login.json");
    let scene = format!("{processes} processes, {turns} tokens each, one login in {}", path.display());
    println!("{}\n", terminal::hanging("", &scene));
    let outcome = crowd::run(processes, turns, &path.to_string_lossy()).await;
    std::fs::remove_dir_all(&directory)?;
    outcome
}
