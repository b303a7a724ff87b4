//! A status sink that acts on what it is told: it prints each transition, keeps a readiness flag, and signs in again when
//! the login is dead.
//!
//! ```sh
//! cargo run --example status_sink
//! ```
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

#[path = "support/terminal.rs"]
mod terminal;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use steadfast::{
    AuthStatus, BoxError, MonitoredTokenSource, StatusEvent, StatusSink, WeakTokenSource,
    oauth::RefreshTokenGrant,
    testing::{Answer, ScriptedIdp},
};
use tokio::{sync::watch, time::timeout};

/// What a host writes.
struct Janitor<F> {
    /// Weak, because the monitor keeps its sink: a full handle in here would keep the monitor alive for ever. Set once there
    /// is a handle, for the sink has to be there before it.
    tokens: Arc<OnceLock<WeakTokenSource>>,
    ready: watch::Sender<bool>,
    sign_in: F,
}

#[async_trait]
impl<F> StatusSink for Janitor<F>
where
    F: Fn() -> Result<RefreshTokenGrant, BoxError> + Send + Sync + 'static,
{
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        println!("{}", terminal::hanging(&format!("{:>2}. ", event.sequence), &event.to_string()));
        // Not the status: a token can outlive its grant, and be gone before anybody says `AuthRetrying`.
        self.ready.send_replace(event.serving);

        let handle = self.tokens.get().and_then(WeakTokenSource::upgrade);
        if let (AuthStatus::Unauthenticated(_), Some(tokens)) = (&event.to, handle) {
            println!("    to do: {}; done here", event.remediation.as_deref().unwrap_or("give it new credentials"));
            // If this fails, the event is offered again, with backoff.
            tokens.reauthenticate((self.sign_in)()?)?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success());
    let sign_in = {
        let idp = idp.clone();
        move || Ok(RefreshTokenGrant::builder(idp.token_url(), "my-client", idp.login()).build()?)
    };

    let (ready, mut readiness) = watch::channel(false);
    let slot = Arc::new(OnceLock::new());
    let grant = sign_in()?;
    let sink = Janitor { tokens: Arc::clone(&slot), ready, sign_in };
    let tokens = MonitoredTokenSource::builder(grant).name("mail").sink(sink).spawn()?;
    let _ = slot.set(tokens.downgrade());

    timeout(PATIENCE, readiness.wait_for(|ready| *ready)).await??;
    println!("    ready");

    println!("    the user revokes the login; a nudge lets the monitor notice at once");
    idp.revoke_logins();
    tokens.retry_now();
    // The first attempt, the one that meets `invalid_grant`, and the one of the new login.
    timeout(PATIENCE, idp.called(3)).await?;
    let generation = tokens.token().await?.generation().get();
    println!("    token {generation} is served");

    // The shutdown waits for the sink, so the last word is printed, too.
    tokens.shutdown().await;
    let (attempts, ready) = (idp.calls(), *readiness.borrow());
    if (generation, attempts, ready) == (2, 3, false) { Ok(()) } else { Err("it did not happen as shown".into()) }
}

const PATIENCE: Duration = Duration::from_secs(10);
