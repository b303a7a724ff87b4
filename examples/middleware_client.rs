//! reqwest-middleware, with the layer as one of its middlewares.
//!
//! ```sh
//! cargo run --example middleware_client --features reqwest-middleware
//! ```
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::time::Duration;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use steadfast::{
    AuthLayer, BoxError, MonitoredTokenSource, RefreshPolicy,
    oauth::RefreshTokenGrant,
    testing::{Answer, ProtectedApi, ScriptedIdp},
};

/// What a host does once.
fn client(token_url: String, refresh_token: String, api: String) -> Result<ClientWithMiddleware, BoxError> {
    let grant = RefreshTokenGrant::builder(token_url, "my-client", refresh_token).build()?;
    let tokens = MonitoredTokenSource::builder(grant).name("notes").policy(POLICY).spawn()?;
    let auth = AuthLayer::new(tokens, api)?.replay_once();
    // This API is on this machine: through a proxy from the environment, the token would leave it in the clear.
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(ClientBuilder::new(http).with(auth).build())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let idp = ScriptedIdp::start().await;
    idp.always(Answer::success());
    let api = ProtectedApi::start(&idp).await;
    let client = client(idp.token_url(), idp.login(), api.url())?;

    println!("read with token 1: {}", client.get(api.url()).send().await?.error_for_status()?.status());
    api.revoke_all();
    println!("the API revokes each token issued so far");
    println!("read with token 2: {}", client.get(api.url()).send().await?.error_for_status()?.status());

    let (requests, refreshes) = (api.calls(), idp.calls() - 1);
    println!("the API saw {requests} requests, the token endpoint {refreshes} refresh");
    if (requests, refreshes) == (3, 1) { Ok(()) } else { Err("expected 3 requests and 1 refresh".into()) }
}

/// A revoked token is believed to be revoked at once; a host that has to do with replication lag leaves the default.
const POLICY: RefreshPolicy = RefreshPolicy { settle: Duration::ZERO, ..RefreshPolicy::DEFAULT };
