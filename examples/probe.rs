//! A health loop over three backends, all on this machine: one that is healthy behind authentication, one that wants
//! credentials nobody has configured, and one that is dead.
//!
//! `cargo run --example probe`
#![allow(clippy::print_stdout)] // the output is the point

use std::{error::Error, net::SocketAddr, process::ExitCode, time::Instant};

use steadfast::{
    classify::Classifier,
    health::{Assessor, Health, HealthTracker, OutgoingAuth},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let challenging =
        serve("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n").await?;
    let mut backends = [
        Backend::new("github", challenging, OutgoingAuth::TokenExchange, Health::Healthy),
        Backend::new("wiki", challenging, OutgoingAuth::None, Health::Unauthenticated),
        Backend::new("tickets", dead_port().await?, OutgoingAuth::None, Health::Unhealthy),
    ];
    let client = reqwest::Client::builder().no_proxy().build()?;

    for round in 1..=ROUNDS {
        println!("round {round}");
        for backend in &mut backends {
            backend.probe(&client).await;
        }
    }

    println!("\nin the end");
    for backend in &backends {
        println!("  {:<8} {:<16} {} change of health", backend.name, backend.tracker.health(), backend.changes);
    }
    let as_expected =
        backends.iter().all(|backend| backend.tracker.health() == backend.expected && backend.changes == 1);
    Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Backend {
    name: &'static str,
    address: SocketAddr,
    outgoing: OutgoingAuth,
    tracker: HealthTracker,
    changes: u32,
    expected: Health,
}

impl Backend {
    fn new(name: &'static str, address: SocketAddr, outgoing: OutgoingAuth, expected: Health) -> Self {
        let tracker = HealthTracker::new(name).unhealthy_after(2);
        Self { name, address, outgoing, tracker, changes: 0, expected }
    }

    /// A probe carries no credentials: it asks whether anybody is there.
    async fn probe(&mut self, client: &reqwest::Client) {
        let start = now();
        let answer = client.get(format!("http://{}/", self.address)).send().await;
        let result = answer.and_then(reqwest::Response::error_for_status).map(drop);
        let result = result.as_ref().map(|&()| ()).map_err(|error| error as &(dyn Error + 'static));

        let why =
            result.map_or_else(|error| Classifier::standard().classify(error).class().to_string(), |()| "ok".into());
        let health = Assessor::new().assess(result, now() - start, self.outgoing);
        let change = self.tracker.record(health, now());
        self.changes += u32::from(change.is_some());
        let news = change.map_or_else(String::new, |change| format!("was {}, is {}", change.from, change.to));
        let line = format!("  {:<8} {why:<16} {health:<16}   {news}", self.name);
        println!("{}", line.trim_end());
    }
}

/// Answers every connection with these bytes, and closes it.
async fn serve(answer: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    Ok(address)
}

/// Nobody listens there: the port was ours a moment ago.
async fn dead_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

#[allow(clippy::disallowed_methods)] // the library takes time as a parameter; here it comes from
fn now() -> Instant {
    Instant::now()
}

const ROUNDS: u32 = 3;
