//! A reverse proxy that puts a token on each request, keeps serving through outages of the token endpoint, and says what
//! state it is in: to an orchestrator (`/healthz`, `/readyz`), to scripts (`/status`) and to people (`/`). All but the first
//! say it in the same line, too: whether requests are served, what is wrong, and whether anything needs doing.
//!
//! Without arguments it plays ten seconds of outages to itself on the loopback interface, and says whether it kept its
//! promises. With `--serve` the play goes on, slowly, until Ctrl-C, and its status page can be watched in a browser:
//!
//! ```sh
//! cargo run --example gateway
//! cargo run --example gateway -- --serve
//! ```
//!
//! In front of a real service:
//!
//! ```sh
//! cargo run --example gateway -- --upstream URL --token-url URL --client-id ID \
//!     [--client-secret S] [--refresh-token T] [--scope S] [--listen ADDRESS]
//! ```
//!
//! Whoever reaches the gateway speaks with its token. It listens on the loopback interface, and checks nobody: before it
//! goes anywhere else, it needs authentication of its own.
//!
//! What to copy: `proxy.rs`, `health.rs`, and [`Gateway`] below.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real requests, and a page says how long ago things were")]

mod arguments;
mod clients;
mod demo;
mod health;
mod in_words;
mod page;
mod proxy;
#[path = "../support/terminal.rs"]
mod terminal;
#[path = "../support/timeline.rs"]
mod timeline;
#[path = "../support/words.rs"]
mod words;

use std::{future::Future, process::ExitCode, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    routing::get,
};
use http::Uri;
use steadfast::{BoxError, MonitoredTokenSource, RefreshPolicy, TokenSource};
use tokio::net::TcpListener;

use self::{arguments::Mode, demo::Demo, health::History, proxy::Upstream};

#[derive(Clone)]
struct Gateway {
    tokens: MonitoredTokenSource,
    history: History,
    upstream: Upstream,
}

impl Gateway {
    fn new(source: impl TokenSource, policy: impl Into<Arc<RefreshPolicy>>, upstream: Uri) -> Result<Self, BoxError> {
        let history = History::default();
        let name = upstream.host().unwrap_or("upstream").to_owned();
        let tokens = MonitoredTokenSource::builder(source).name(name).policy(policy).sink(history.clone()).spawn()?;
        Ok(Self { upstream: Upstream::new(upstream, tokens.clone())?, tokens, history })
    }

    async fn serve(
        self,
        listener: TcpListener,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), BoxError> {
        let tokens = self.tokens.clone();
        let app = Router::new()
            .route(
                "/",
                get(|State(Self { tokens, history, .. }), request: Request| async move {
                    page::page(&tokens, &history, request.uri().query())
                }),
            )
            .route("/healthz", get(health::healthz))
            .route(
                "/readyz",
                get(|State(Self { tokens, history, .. })| async move { health::readyz(&tokens, &history) }),
            )
            .route(
                "/status",
                get(|State(Self { tokens, history, .. })| async move { health::status(&tokens, &history) }),
            )
            .fallback(|State(Self { upstream, .. }), request: Request| upstream.forward(request))
            .with_state(self);
        axum::serve(listener, app).with_graceful_shutdown(until).await?;
        // Last, because requests still want tokens while the server winds up.
        tokens.shutdown().await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", terminal::hanging("gateway: ", &error.to_string()));
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<bool, BoxError> {
    match Mode::read(std::env::args().skip(1))? {
        Mode::Demo => Demo::once().await,
        Mode::Watch { listen } => {
            let listener = TcpListener::bind(listen).await?;
            println!("watch http://{} in a browser; Ctrl-C ends it", listener.local_addr()?);
            tokio::select! {
                ended = Demo::forever(listener) => ended,
                () = interrupted() => Ok(true),
            }
        }
        Mode::Live { listen, upstream, source } => {
            let listener = TcpListener::bind(listen).await?;
            let gateway = Gateway::new(source, RefreshPolicy::DEFAULT, upstream.clone())?;
            let what = format!("http://{} is {upstream} with a token; Ctrl-C ends it", listener.local_addr()?);
            println!("{}", terminal::hanging("", &what));
            gateway.serve(listener, interrupted()).await?;
            Ok(true)
        }
    }
}

async fn interrupted() {
    // Without signals nobody can interrupt; the gateway then runs until it is killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
