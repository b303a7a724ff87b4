//! The same monitor on a real authorization server.

use std::time::Duration;

use steadfast::{
    BoxError, MonitoredTokenSource, StatusEvent, TokenSource,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant},
    sink_fn,
};

use crate::timeline::Timeline;

#[derive(Default)]
pub(crate) struct Arguments {
    token_url: String,
    client_id: String,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    scopes: Vec<String>,
}

impl Arguments {
    /// `None` without arguments.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, &'static str> {
        let mut read = Self::default();
        let mut any = false;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--token-url" => read.token_url = value,
                "--client-id" => read.client_id = value,
                "--client-secret" => read.client_secret = Some(value),
                "--refresh-token" => read.refresh_token = Some(value),
                "--scope" => read.scopes.extend(value.split_whitespace().map(str::to_owned)),
                _ => return Err(USAGE),
            }
            any = true;
        }
        match any {
            true if read.token_url.is_empty() || read.client_id.is_empty() => Err(USAGE),
            any => Ok(any.then_some(read)),
        }
    }

    /// A refresh token makes it a refresh token grant; without one it is a client credentials grant.
    fn source(self) -> Result<Box<dyn TokenSource>, BoxError> {
        let Self { token_url, client_id, client_secret, refresh_token, scopes } = self;
        Ok(match refresh_token {
            Some(refresh_token) => {
                let mut grant = RefreshTokenGrant::builder(token_url, client_id, refresh_token).scopes(scopes);
                if let Some(secret) = client_secret {
                    grant = grant.client_secret(secret);
                }
                Box::new(grant.build()?)
            }
            None => {
                let mut grant = ClientCredentialsGrant::builder(token_url, client_id).scopes(scopes);
                if let Some(secret) = client_secret {
                    grant = grant.client_secret(secret);
                }
                Box::new(grant.build()?)
            }
        })
    }
}

/// Prints transitions until Ctrl-C. A server that rotates refresh tokens has made the given one useless by then, for this
/// program keeps its successor nowhere.
pub(crate) async fn run(arguments: Arguments) -> Result<(), BoxError> {
    let timeline = Timeline::begin();
    let sink = sink_fn(move |event: StatusEvent| async move {
        timeline.status(&event);
        timeline.reason(&event);
        Ok(())
    });
    let source = arguments.source()?;
    // Not the address: it is the user's, and may hold anything.
    timeline.scene("monitoring; Ctrl-C ends it");
    let tokens = MonitoredTokenSource::builder(source).name("live").sink(sink).spawn()?;
    let user = async {
        // One steady caller, so that the monitor also sees demand.
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        loop {
            pace.tick().await;
            let _ = tokens.token().await;
        }
    };
    tokio::select! {
        () = user => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    tokens.shutdown().await;
    Ok(())
}

const USAGE: &str =
    "usage: outage [--token-url URL --client-id ID [--client-secret S] [--refresh-token T] [--scope S]]";
