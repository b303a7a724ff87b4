//! reqwest, with a token on each request. A request that is refused is sent again with a new token.
//!
//! ```sh
//! cargo run --example reqwest_client
//! ```
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::time::Duration;

use reqwest::{Client, Method, Request};
use steadfast::{
    Auth, AuthLayer, BoxError, Generation, MonitoredTokenSource, RefreshPolicy,
    layer::ReplayOnce,
    oauth::RefreshTokenGrant,
    testing::{Answer, ProtectedApi, ScriptedIdp},
};

type AuthClient = Auth<Client, ReplayOnce>;

/// What a host does once. The client is cheap to clone, and its clones share the token.
fn client(token_url: String, refresh_token: String, api: &str) -> Result<AuthClient, BoxError> {
    let grant = RefreshTokenGrant::builder(token_url, "my-client", refresh_token).build()?;
    let tokens = MonitoredTokenSource::builder(grant).name("notes").policy(POLICY).spawn()?;
    // This API is on this machine: through a proxy from the environment, the token would leave it in the clear.
    let http = Client::builder().no_proxy().build()?;
    Ok(AuthLayer::new(tokens, api)?.replay_once().tag_responses().wrap(http))
}

/// What a host does for each request: everything about tokens happens inside `send`.
async fn save(client: &AuthClient, api: &str, note: &str) -> Result<(u64, String), BoxError> {
    let mut request = Request::new(Method::POST, format!("{api}/notes").parse()?);
    *request.body_mut() = Some(note.to_owned().into());

    let response = client.send(request).await?.error_for_status()?;
    // Only because of `tag_responses()`; most hosts need not know.
    let generation = response.extensions().get().map_or(0, |generation: &Generation| generation.get());
    Ok((generation, response.text().await?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success());
    let api = ProtectedApi::start(&idp).await;
    let client = client(idp.token_url(), idp.login(), &api.url())?;

    let (first, saved) = save(&client, &api.url(), "buy milk").await?;
    println!("saved {saved:?} with token {first}");

    println!("the API revokes each token issued so far");
    api.revoke_all();
    let (second, saved) = save(&client, &api.url(), "buy bread").await?;
    println!("saved {saved:?} with token {second}: refused once, refreshed once, sent again");

    let (requests, refreshes) = (api.calls(), idp.calls() - 1);
    println!("the API saw {requests} requests, the token endpoint {refreshes} refresh");
    let as_shown = (first, second, saved.as_str(), requests, refreshes) == (1, 2, "buy bread", 3, 1);
    if as_shown { Ok(()) } else { Err("it did not happen as shown".into()) }
}

/// A fresh token is given two seconds to become known everywhere before its refusal counts. This API knows each at once,
/// so the example need not wait.
const POLICY: RefreshPolicy = RefreshPolicy { settle: Duration::ZERO, ..RefreshPolicy::DEFAULT };
