//! The testing kit, driven by a real HTTP client.

use std::time::Duration;

use steadfast::testing::{Answer, ScriptedIdp};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(start_paused = true)]
async fn an_exchange_takes_no_virtual_time() {
    let idp = ScriptedIdp::start().await;
    idp.always(Answer::success());
    for _ in 0..50 {
        let url = idp.token_url();
        let begun = Instant::now();
        // In a task of its own: tokio holds the clock for what wakes the test itself.
        let exchange =
            tokio::spawn(async move { timeout(Duration::from_secs(20), post(&url, CLIENT_CREDENTIALS)).await });
        let other = tokio::spawn(sleep(Duration::from_millis(3)));
        let response = exchange.await.unwrap().expect("no time-out").unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        other.abort();
    }
}

async fn post(url: &str, form: &str) -> reqwest::Result<reqwest::Response> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form.to_owned()).send().await
}

const CLIENT_CREDENTIALS: &str = "grant_type=client_credentials";
