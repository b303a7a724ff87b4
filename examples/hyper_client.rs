//! hyper-util's client, with a token on each request. Many requests are refused at once; one refresh cures them all.
//!
//! ```sh
//! cargo run --example hyper_client
//! ```
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

#[path = "support/terminal.rs"]
mod terminal;

use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use steadfast::{
    Auth, AuthLayer, BoxError, LayerError, MonitoredTokenSource, RefreshPolicy,
    layer::ReplayOnce,
    oauth::RefreshTokenGrant,
    testing::{Answer, ProtectedApi, ScriptedIdp},
};

type AuthClient = Auth<Client<HttpConnector, Full<Bytes>>, ReplayOnce>;

/// What a host does once. Bodies that can be cloned can be sent again, whatever the method.
fn client(tokens: MonitoredTokenSource, api: &str) -> Result<AuthClient, BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http();
    Ok(AuthLayer::new(tokens, api)?.replay_once().wrap(http))
}

/// What a host does for each request. Where no token is to be had, its own client gets a 503 that says when to come back.
async fn fetch(client: &AuthClient, url: String) -> Result<(StatusCode, Bytes), BoxError> {
    match client.send(Request::get(url).body(Full::default())?).await {
        Ok(response) => Ok((response.status(), response.into_body().collect().await?.to_bytes())),
        Err(LayerError::Auth(error)) => {
            let answer = error.to_response();
            Ok((answer.status(), answer.into_body().into()))
        }
        Err(LayerError::Inner(error)) => Err(error),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success());
    let api = ProtectedApi::start(&idp).await;
    let grant = RefreshTokenGrant::builder(idp.token_url(), "my-client", idp.login()).build()?;
    let tokens = MonitoredTokenSource::builder(grant).name("orders").policy(POLICY).spawn()?;
    let client = client(tokens.clone(), &api.url())?;
    let fetch = |order| fetch(&client, format!("{}/orders/{order}", api.url()));

    let (status, _) = fetch(0).await?;
    println!("one request: {status}");

    println!("the API revokes the token, and {CROWD} requests arrive with it");
    api.revoke_all();
    let answers: Vec<_> = join_all((1..=CROWD).map(fetch)).await.into_iter().collect::<Result<_, _>>()?;
    let served = answers.iter().filter(|(status, _)| *status == StatusCode::OK).count();
    let refreshes = idp.calls() - 1;
    println!("served: {served}, after {refreshes} refresh");

    println!("the handle is shut down");
    tokens.shutdown().await;
    let (status, problem) = fetch(0).await?;
    println!("one request: {status}");
    println!("{}", terminal::hanging("  ", &String::from_utf8_lossy(&problem)));

    let as_shown = (served, refreshes, status) == (CROWD, 1, StatusCode::SERVICE_UNAVAILABLE);
    if as_shown { Ok(()) } else { Err("it did not happen as shown".into()) }
}

const CROWD: usize = 50;

/// A fresh token is given two seconds to become known everywhere before its refusal counts. This API knows each at once,
/// so the example need not wait.
const POLICY: RefreshPolicy = RefreshPolicy { settle: Duration::ZERO, ..RefreshPolicy::DEFAULT };
