//! No secret in anything that is printed, whoever prints it: a full outage at TRACE, searched for every secret used.
#![cfg(all(feature = "oauth2", feature = "reqwest"))]
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::{
    error::Error,
    fmt::Debug,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use steadfast::{
    AuthStatus, MonitoredTokenSource, RefreshPolicy, StatusEvent,
    oauth::RefreshTokenGrant,
    sink_fn,
    testing::{Answer, Mishap, ScriptedIdp},
};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;

#[tokio::test(start_paused = true)]
async fn a_full_outage_at_trace_prints_no_secret() {
    let output = Output::default();
    tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(output.clone()).init();
    let idp = ScriptedIdp::start().await;
    idp.rotating().client(CLIENT_ID, CLIENT_SECRET).always(Answer::success().expires_in(600));
    let tokens = {
        let printed = output.clone();
        let sink = sink_fn(move |event: StatusEvent| {
            let mut output = printed.clone();
            async move { Ok(write!(output, "{event} {event:?}")?) }
        });
        let policy = RefreshPolicy { auth_retrying_ceiling: Duration::from_secs(3600), ..RefreshPolicy::DEFAULT };
        let grant = grant(&idp, idp.login());
        output.show(&grant);
        let builder = MonitoredTokenSource::builder(grant).name("drill").policy(policy).sink(sink);
        output.show(&builder);
        builder.spawn().unwrap()
    };
    let mut status = tokens.subscribe();
    let token = tokens.token().await.unwrap();
    output.show(&token);

    let refresh_token = idp.current_refresh_token().unwrap();
    let echo = format!("the refresh token {refresh_token} of {CLIENT_SECRET} is not known\u{1b}[31m");
    for answer in [
        Answer::waf(),
        Answer::captive_portal(),
        Answer::error("access_denied").with("error_description", echo.as_str()),
        Answer::error(&refresh_token),
        Answer::status(503).body(echo.clone()),
        Answer::raw(echo.clone()),
        Answer::reset(),
        Answer::success().but(Mishap::Truncated).without("refresh_token"),
    ] {
        idp.then(answer);
    }
    idp.always(Answer::redirect("http://169.254.169.254/"));
    until(&mut status, |status| matches!(status, AuthStatus::AuthRetrying(_))).await;
    while let Ok(held) = tokens.token().await {
        output.show(&held);
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    for _ in 0..100 {
        let error = tokens.token().await.unwrap_err();
        output.show(&error);
        output.show_chain(&error);
        output.show(&error.to_response());
        output.show(&tokens);
        output.show(&tokens.snapshot());
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    idp.always(Answer::error("invalid_grant").with("error_description", echo.as_str()));
    until(&mut status, |status| matches!(status, AuthStatus::Unauthenticated(_))).await;
    output.show_chain(&tokens.token().await.unwrap_err());

    idp.always(Answer::success());
    tokens.reauthenticate(grant(&idp, idp.login())).unwrap();
    output.show(&tokens.token().await.unwrap());
    tokens.reject(tokens.token().await.unwrap().generation(), None);
    tokens.shutdown().await;

    let mut secrets = idp.secrets();
    secrets.push(CLIENT_SECRET.to_owned());
    let output = output.text();
    assert!(secrets.len() > 5, "the run used {} secrets", secrets.len());
    for wanted in ["drill: pending -> running", "invalid_grant", "an attempt starts"] {
        assert!(output.contains(wanted), "the run never printed {wanted:?}");
    }
    let lower_case = output.to_lowercase();
    for secret in secrets {
        if let Some(at) = lower_case.find(&secret.to_lowercase()) {
            let context: String = lower_case.chars().skip(at.saturating_sub(300)).take(400).collect();
            panic!("printed {secret}: {context}");
        }
    }
    assert!(!output.contains("\u{1b}[31m"), "a server's control characters were printed");
}

fn grant(idp: &ScriptedIdp, refresh_token: String) -> RefreshTokenGrant {
    let grant = RefreshTokenGrant::builder(idp.token_url(), CLIENT_ID, refresh_token);
    grant.client_secret(CLIENT_SECRET).build().unwrap()
}

async fn until(status: &mut watch::Receiver<AuthStatus>, wanted: impl Fn(&AuthStatus) -> bool) {
    let hours = Duration::from_secs(4 * 3600);
    tokio::time::timeout(hours, status.wait_for(wanted)).await.unwrap().unwrap();
}

/// Where everything is printed to.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn show(&self, anything: &impl Debug) {
        write!(self.clone(), "{anything:?} {anything:#?}").unwrap();
    }

    fn show_chain(&self, error: &dyn Error) {
        let mut next = Some(error);
        while let Some(error) = next {
            write!(self.clone(), "{error} {error:?}").unwrap();
            next = error.source();
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Output {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const CLIENT_ID: &str = "drill-client";
const CLIENT_SECRET: &str = "client-s3cret-0123456789";
