//! The testing kit, driven by a real HTTP client, and by bare sockets where a client would hide what happens.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests read the clock of the test, and helpers of tests panic"
)]

use std::{
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use steadfast::testing::{Answer, Mishap, ProtectedApi, ScriptedIdp, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, advance, sleep, timeout},
};

// The clock.

#[tokio::test(start_paused = true)]
async fn an_exchange_takes_no_virtual_time() {
    let idp = idp_that(Answer::success()).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let url = idp.token_url();
        // In a task of its own, as a refresh in the background is.
        let exchange = async move { timeout(PATIENCE, post(&url, CLIENT_CREDENTIALS)).await };
        let response = tokio::spawn(exchange).await.unwrap().expect("no time-out");
        assert_eq!(response.unwrap().status, 200);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_takes_exactly_its_delay() {
    let idp = idp_that(Answer::success().after(Duration::from_secs(7))).await;
    let begun = Instant::now();
    assert_eq!(ask(&idp).await.status, 200);
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_hang_lasts_until_the_client_gives_up() {
    let idp = idp_that(Answer::hang()).await;
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(timeout(PATIENCE, post(&idp.token_url(), CLIENT_CREDENTIALS)).await.is_err());
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(begun.elapsed(), 3 * (PATIENCE + Duration::from_secs(1)));
    assert_eq!((idp.calls(), idp.most_in_flight()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_a_late_answer_too() {
    let idp = idp_that(Answer::success().after(Duration::from_secs(60))).await;
    for _ in 0..2 {
        assert!(timeout(PATIENCE, post(&idp.token_url(), CLIENT_CREDENTIALS)).await.is_err());
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(idp.most_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn called_waits_for_the_request_and_the_log_says_when_it_came() {
    let idp = idp_that(Answer::hang()).await;
    let url = idp.token_url();
    let clients = tokio::spawn(async move {
        sleep(Duration::from_secs(5)).await;
        tokio::join!(post(&url, CLIENT_CREDENTIALS), post(&url, CLIENT_CREDENTIALS))
    });
    idp.called(2).await;
    assert_eq!((idp.calls(), idp.most_in_flight()), (2, 2));
    assert!(idp.log().iter().all(|call| call.at() == Duration::from_secs(5)));
    clients.abort();
}

// What a success says.

#[tokio::test(start_paused = true)]
async fn a_success_issues_a_token_for_an_hour() {
    let idp = idp_that(Answer::success()).await;
    let token = ask(&idp).await.json();
    assert_eq!(token["access_token"].as_str(), idp.current_access_token().as_deref());
    assert_eq!((&token["token_type"], &token["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(token.get("refresh_token"), None, "client_credentials brings none");
    assert_ne!(ask(&idp).await.json()["access_token"], token["access_token"]);
}

#[tokio::test(start_paused = true)]
async fn expires_in_is_whatever_the_script_says() {
    let idp = ScriptedIdp::start().await;
    for value in [json!(60), json!("60"), json!(0), json!(-1), json!(1e300), json!("soon"), json!([1]), json!(null)] {
        idp.then(Answer::success().expires_in(value.clone()));
        assert_eq!(ask(&idp).await.json()["expires_in"], value);
    }
    idp.then(Answer::success().without("expires_in"));
    assert_eq!(ask(&idp).await.json().get("expires_in"), None);
}

#[tokio::test(start_paused = true)]
async fn each_field_of_a_success_can_be_set_and_left_out() {
    let idp = ScriptedIdp::start().await;
    idp.then(Answer::success().with("scope", "a b").with("token_type", "bot").with("access_token", "mine"));
    let token = ask(&idp).await.json();
    assert_eq!(token, json!({"access_token": "mine", "token_type": "bot", "expires_in": 3600, "scope": "a b"}));
    assert_eq!(idp.current_access_token().as_deref(), Some("mine"));

    idp.then(Answer::success().without("access_token"));
    assert_eq!(ask(&idp).await.json(), json!({"token_type": "Bearer", "expires_in": 3600}));
}

#[tokio::test(start_paused = true)]
async fn a_success_can_be_a_form() {
    let idp = idp_that(Answer::success().with("access_token", "a b&c").without("token_type").form_encoded()).await;
    let response = ask(&idp).await;
    assert_eq!(response.header("content-type"), FORM);
    assert_eq!(response.body, "access_token=a+b%26c&expires_in=3600");
}

// What a failure says.

#[tokio::test(start_paused = true)]
async fn an_oauth_error_comes_as_json_as_a_form_and_on_any_status() {
    let idp = ScriptedIdp::start().await;
    let error = Answer::error("invalid_grant").with("error_description", "gone").with("error_codes", json!([50196]));
    let object = json!({"error": "invalid_grant", "error_description": "gone", "error_codes": [50196]});
    for status in [400, 200, 503] {
        idp.then(error.clone().with_status(status));
        let response = ask(&idp).await;
        assert_eq!((response.status, response.json()), (status, object.clone()));
    }
    idp.then(Answer::error("bad_verification_code").form_encoded());
    let response = ask(&idp).await;
    assert_eq!((response.status, &*response.body), (400, "error=bad_verification_code"));
    assert_eq!(idp.log()[2].answered(), "503 invalid_grant");
}

#[tokio::test(start_paused = true)]
async fn a_firewall_and_a_captive_portal_answer_in_html() {
    let idp = ScriptedIdp::start().await;
    idp.then(Answer::waf()).then(Answer::captive_portal());
    for status in [403, 200] {
        let response = ask(&idp).await;
        assert_eq!((response.status, response.header("content-type")), (status, "text/html; charset=utf-8"));
        assert!(response.body.starts_with("<!DOCTYPE html>"));
    }
}

#[tokio::test(start_paused = true)]
async fn any_status_comes_with_an_empty_body_or_another() {
    let idp = ScriptedIdp::start().await;
    for status in [200, 204, 400, 401, 408, 418, 429, 500, 502, 503, 599] {
        idp.then(Answer::status(status)).then(Answer::status(status).header("x-a", "b").body("text"));
        let empty = ask(&idp).await;
        assert_eq!((empty.status, &*empty.body), (status, ""));
        let full = ask(&idp).await;
        assert_eq!((full.status, full.header("x-a")), (status, "b"));
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_comes_in_seconds_or_as_a_date_after_the_servers_own() {
    let idp = ScriptedIdp::start().await;
    let delay = Duration::from_secs(90);
    idp.then(Answer::status(503).retry_after(delay)).then(Answer::status(429).retry_after_date(delay));
    assert_eq!(ask(&idp).await.header("retry-after"), "90");
    let dated = ask(&idp).await;
    let date = |name| httpdate::parse_http_date(dated.header(name)).unwrap();
    assert_eq!(date("retry-after").duration_since(date("date")).unwrap(), delay);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_says_where_to() {
    let idp = idp_that(Answer::redirect("https://login.example/")).await;
    let response = ask(&idp).await;
    assert_eq!((response.status, response.header("location")), (302, "https://login.example/"));
}

#[tokio::test(start_paused = true)]
async fn raw_bytes_go_out_as_they_are() {
    let idp = idp_that(Answer::raw("SSH-2.0-OpenSSH_9.9\r\n")).await;
    assert_eq!(bare(&idp).await.unwrap(), "SSH-2.0-OpenSSH_9.9\r\n");
}

// What goes wrong on the way back.

#[tokio::test(start_paused = true)]
async fn a_truncated_body_is_shorter_than_it_says() {
    let idp = idp_that(Answer::status(200).body("0123456789").but(Mishap::Truncated)).await;
    let response = bare(&idp).await.unwrap();
    assert!(response.contains("content-length: 10\r\n") && response.ends_with("\r\n\r\n01234"));
    assert!(post(&idp.token_url(), CLIENT_CREDENTIALS).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn half_a_status_line_is_no_answer() {
    let idp = idp_that(Answer::success().but(Mishap::HalfAStatusLine)).await;
    assert_eq!(bare(&idp).await.unwrap(), "HTTP/1.1 2");
    assert!(post(&idp.token_url(), CLIENT_CREDENTIALS).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_eof_is_an_end_and_a_reset_is_an_error() {
    let idp = ScriptedIdp::start().await;
    idp.then(Answer::eof()).then(Answer::reset());
    assert_eq!(bare(&idp).await.unwrap(), "");
    assert_eq!(bare(&idp).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_dripping_body_arrives_byte_by_byte() {
    let drip = Mishap::Drip(Duration::from_secs(1));
    let idp = idp_that(Answer::status(200).body("0123456789").but(drip)).await;
    let begun = Instant::now();
    assert_eq!(ask(&idp).await.body, "0123456789");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_mishap_comes_after_the_token_was_issued_and_a_failure_before() {
    let idp = ScriptedIdp::start().await;
    idp.rotating().then(Answer::reset()).then(Answer::success().but(Mishap::Reset));
    let login = idp.login();
    for expected in [login.clone(), "refresh-2-".to_owned()] {
        assert!(post(&idp.token_url(), &refresh(&login)).await.is_err());
        assert!(idp.current_refresh_token().unwrap().starts_with(&expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_refuses_connections_and_comes_back_at_its_port() {
    let idp = idp_that(Answer::success()).await;
    for _ in 0..2 {
        idp.refuse_connections().await;
        assert_eq!(bare(&idp).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        idp.listen_again().await;
        assert_eq!(ask(&idp).await.status, 200);
    }
    assert_eq!(idp.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn going_down_cuts_what_is_in_flight() {
    let idp = idp_that(Answer::hang()).await;
    let url = idp.token_url();
    let client = tokio::spawn(async move { post(&url, CLIENT_CREDENTIALS).await });
    idp.called(1).await;
    idp.refuse_connections().await;
    assert!(client.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_server_with_it() {
    let idp = idp_that(Answer::success()).await;
    let url = idp.token_url();
    let clone = idp.clone();
    drop(idp);
    assert_eq!(ask(&clone).await.status, 200);
    drop(clone);
    // The task ends in the next turn of the runtime.
    sleep(Duration::from_millis(1)).await;
    assert!(post(&url, CLIENT_CREDENTIALS).await.is_err());
}

// The script.

#[tokio::test(start_paused = true)]
async fn queued_answers_come_first_and_in_order() {
    let idp = idp_that(Answer::status(500)).await;
    idp.then(Answer::status(501)).then(Answer::status(502));
    assert_eq!(idp.queued(), 2);
    for expected in [501, 502, 500, 500] {
        assert_eq!(ask(&idp).await.status, expected);
    }
    idp.always(Answer::status(503));
    assert_eq!(ask(&idp).await.status, 503);
    assert_eq!((idp.queued(), idp.calls()), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_scripted_fails_the_test() {
    let idp = idp_that(Answer::success()).await;
    idp.always(None);
    assert_eq!(ask(&idp).await.status, 500);
    assert!(panic_of(|| idp.verify()).contains("nothing scripted"));
    idp.verify();
    assert_eq!(ask(&idp).await.status, 500);
    assert!(panic_of(|| drop(idp)).contains("nothing scripted"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_no_token_request_fails_the_test_and_the_complaint_keeps_its_secrets() {
    let idp = idp_that(Answer::success()).await;
    let url = idp.token_url();
    let client = client();
    let form = |body: &'static str| client.post(&url).header("content-type", FORM).body(body);
    for (request, complaint) in [
        (client.get(&url), "GET /token instead of POST /token"),
        (client.post(format!("{url}s?s3cret")), "POST /tokens instead of POST /token"),
        (client.post(&url).body(CLIENT_CREDENTIALS), "content type none"),
        (form("refresh_token=s3cret"), "without grant_type"),
        (form("grant_type=password&password=s3cret"), "grant_type that the kit does not know"),
        (form("grant_type=refresh_token"), "the refresh_token grant without one"),
        (form("grant_type=client_credentials&scope=a&scope=b"), "more than one scope"),
        (form(CLIENT_CREDENTIALS).bearer_auth("s3cret"), "not Basic credentials"),
        (
            form("grant_type=client_credentials&client_secret=s3cret").basic_auth("a", Some("b")),
            "header and in the form",
        ),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 500);
        let said = panic_of(|| idp.verify());
        assert!(said.contains(complaint) && !said.contains("s3cret"), "{said}");
    }
    assert_eq!(idp.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_fails_the_test() {
    let idp = idp_that(Answer::success()).await;
    let mut stream = TcpStream::connect(address(&idp)).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(panic_of(|| idp.verify()).contains("not an HTTP request"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_none_of_the_tests_business() {
    let idp = ScriptedIdp::start().await;
    drop(TcpStream::connect(address(&idp)).await.unwrap());
    sleep(Duration::from_secs(1)).await;
    idp.verify();
}

// Grants.

#[tokio::test(start_paused = true)]
async fn a_refresh_token_stays_as_it_is_unless_the_server_rotates() {
    let idp = idp_that(Answer::success()).await;
    let token = idp.login();
    for _ in 0..2 {
        assert_eq!(exchange(&idp, &token).await.json()["refresh_token"], token);
    }
    idp.rotating();
    let rotated = exchange(&idp, &token).await.json()["refresh_token"].clone();
    assert_ne!(rotated, token);
    assert_eq!(idp.current_refresh_token().as_deref(), rotated.as_str());
}

#[tokio::test(start_paused = true)]
async fn a_used_refresh_token_revokes_all_that_came_of_its_login() {
    let idp = idp_that(Answer::success()).await;
    let (first, other) = (idp.rotating().login(), idp.login());
    let second = exchange(&idp, &first).await.refresh_token();
    assert!(!idp.reuse_detected());
    for used_or_revoked in [&first, &second] {
        let response = exchange(&idp, used_or_revoked).await;
        assert_eq!((response.status, response.json()), (400, json!({"error": "invalid_grant"})));
        assert!(idp.reuse_detected());
    }
    assert_eq!(exchange(&idp, &other).await.status, 200);
    assert_eq!(idp.log()[1].answered(), "400 invalid_grant");
}

#[tokio::test(start_paused = true)]
async fn within_its_grace_the_previous_refresh_token_brings_the_same_pair() {
    let idp = idp_that(Answer::success()).await;
    let first = idp.rotating_with_grace(Duration::from_secs(30)).login();
    let pair = exchange(&idp, &first).await.json();
    advance(Duration::from_secs(29)).await;
    assert_eq!(exchange(&idp, &first).await.json(), pair);
    assert!(!idp.reuse_detected());
    advance(Duration::from_secs(1)).await;
    assert_eq!(exchange(&idp, &first).await.status, 400);
    assert!(idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn the_grace_ends_with_the_use_of_the_successor() {
    let idp = idp_that(Answer::success()).await;
    let first = idp.rotating_with_grace(Duration::from_secs(30)).login();
    let second = exchange(&idp, &first).await.refresh_token();
    assert_eq!(exchange(&idp, &second).await.status, 200);
    assert_eq!(exchange(&idp, &first).await.status, 400);
    assert!(idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn a_success_without_a_refresh_token_leaves_the_old_one_in_use() {
    let idp = idp_that(Answer::success().without("refresh_token")).await;
    let token = idp.rotating().login();
    for _ in 0..2 {
        assert_eq!(exchange(&idp, &token).await.json().get("refresh_token"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_or_revoked_refresh_token_is_no_good() {
    let idp = idp_that(Answer::success()).await;
    idp.login_as("mine");
    assert_eq!(exchange(&idp, "mine").await.status, 200);
    assert_eq!(exchange(&idp, "stolen").await.status, 400);
    idp.revoke_logins();
    assert_eq!(exchange(&idp, "mine").await.status, 400);
    let again = idp.login();
    assert_eq!(exchange(&idp, &again).await.status, 200);
    assert!(!idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn a_client_is_checked_wherever_it_puts_its_credentials() {
    let idp = idp_that(Answer::success()).await;
    idp.client("a client", "s3:cret");
    let form = "grant_type=client_credentials&client_id=a+client&client_secret=";
    let with = |secret: &str| format!("{form}{secret}");
    assert_eq!(post(&idp.token_url(), &with("s3%3Acret")).await.unwrap().status, 200);
    let wrong = post(&idp.token_url(), &with("wrong")).await.unwrap();
    assert_eq!((wrong.status, wrong.json()), (401, json!({"error": "invalid_client"})));
    assert_eq!(ask(&idp).await.status, 401);

    let request = client().post(idp.token_url()).header("content-type", FORM).body(CLIENT_CREDENTIALS);
    let request = request.basic_auth("a+client", Some("s3%3Acret"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(idp.log()[3].client_id(), Some("a client"));
}

#[tokio::test(start_paused = true)]
async fn every_secret_is_on_the_list_and_in_no_debug_output() {
    let idp = idp_that(Answer::success()).await;
    idp.client("id", "client-s3cret").rotating();
    let login = idp.login();
    let request = client().post(idp.token_url()).header("content-type", FORM).body(refresh(&login));
    let token = Response::read(request.basic_auth("id", Some("client-s3cret"))).await.unwrap().json();
    let (access, refresh) = (token["access_token"].as_str().unwrap(), token["refresh_token"].as_str().unwrap());

    let secrets = idp.secrets();
    for secret in ["client-s3cret", &login, access, refresh, "aWQ6Y2xpZW50LXMzY3JldA=="] {
        assert_eq!(secrets.iter().filter(|known| *known == secret).count(), 1, "{secret}");
    }
    assert_eq!(secrets.len(), 5);
    let shown = format!("{:?} {idp:?} {:?}", idp.log(), Answer::success().with("access_token", "client-s3cret"));
    assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    assert_eq!(idp.log()[0].refresh_token(), Some(&*login));
}

// The API.

#[tokio::test(start_paused = true)]
async fn the_api_lets_in_what_was_issued_until_it_expires_or_is_revoked() {
    let idp = idp_that(Answer::success().expires_in(60)).await;
    let api = ProtectedApi::start(&idp).await;
    let first = ask(&idp).await.access_token();
    advance(Duration::from_secs(59)).await;
    let second = ask(&idp).await.access_token();
    assert_eq!(visit(&api, &first).await.status, 200);
    advance(Duration::from_secs(1)).await;
    assert_eq!((visit(&api, &first).await.status, visit(&api, &second).await.status), (401, 200));

    api.revoke(&second);
    assert_eq!(visit(&api, &second).await.status, 401);
    let third = ask(&idp).await.access_token();
    api.revoke_all();
    let fourth = ask(&idp).await.access_token();
    assert_eq!((visit(&api, &third).await.status, visit(&api, &fourth).await.status), (401, 200));
    assert_eq!(visit(&api, "forged").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_has_lost_its_keys_refuses_everything_until_it_has_them_again() {
    let api = ProtectedApi::alone().await;
    api.accept("good").reject_everything();
    assert_eq!(visit(&api, "good").await.status, 401);
    api.accept_again();
    assert_eq!(visit(&api, "good").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_refused_until_it_has_got_round() {
    let idp = idp_that(Answer::success()).await;
    let api = ProtectedApi::start(&idp).await;
    api.replication_lag(Duration::from_millis(500));
    let token = ask(&idp).await.access_token();
    assert_eq!(visit(&api, &token).await.status, 401);
    advance(Duration::from_millis(500)).await;
    assert_eq!(visit(&api, &token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_carries_the_challenge_it_was_told() {
    let api = ProtectedApi::alone().await;
    let challenges = async |api: &ProtectedApi| {
        let response = client().get(api.url()).bearer_auth("bad").send().await.unwrap();
        let lines = response.headers().get_all("www-authenticate").iter();
        lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(challenges(&api).await, ["Bearer error=\"invalid_token\""]);
    api.challenge("Bearer");
    assert_eq!(challenges(&api).await, ["Bearer"]);
    api.challenges(["Negotiate", "Bearer realm=\"a, b\""]);
    assert_eq!(challenges(&api).await, ["Negotiate", "Bearer realm=\"a, b\""]);
    api.challenges([]);
    assert!(challenges(&api).await.is_empty());

    let anonymous = client().get(api.url()).send().await.unwrap();
    assert_eq!(
        (anonymous.status().as_u16(), &anonymous.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn the_api_echoes_the_body_and_logs_the_request() {
    let api = ProtectedApi::alone().await;
    api.accept("good");
    let request = client().put(format!("{}/a?b", api.url())).bearer_auth("good").header("X-C", "d");
    let response = Response::read(request.header("content-type", "text/plain").body("hello")).await.unwrap();
    assert_eq!((response.status, &*response.body, response.header("content-type")), (200, "hello", "text/plain"));

    let [call] = &api.log()[..] else { panic!("one call") };
    assert_eq!((call.method(), call.path(), call.token(), call.body()), ("PUT", "/a?b", Some("good"), &b"hello"[..]));
    assert_eq!((call.header("x-c"), call.answered()), (Some("d"), "200"));
    assert!(!format!("{call:?}").contains("good"));
}

#[tokio::test(start_paused = true)]
async fn the_api_answers_by_script_whatever_the_token() {
    let api = ProtectedApi::alone().await;
    api.accept("good").then(Answer::status(429)).always(Answer::status(407));
    for expected in [429, 407, 407] {
        assert_eq!(visit(&api, "good").await.status, expected);
    }
    api.always(None);
    assert_eq!(visit(&api, "good").await.status, 200);
    assert!(panic_of(|| _ = api.then(Answer::success())).contains("an API issues no tokens"));
}

#[tokio::test(start_paused = true)]
async fn a_request_with_two_tokens_fails_the_test() {
    let api = ProtectedApi::alone().await;
    let request = client().get(api.url()).bearer_auth("one").bearer_auth("two");
    assert_eq!(request.send().await.unwrap().status(), 500);
    assert!(panic_of(|| drop(api)).contains("more than one Authorization"));
}

// Helpers.

struct Response {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Response {
    async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        self.body.parse().unwrap()
    }

    fn access_token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn refresh_token(&self) -> String {
        self.json()["refresh_token"].as_str().unwrap().to_owned()
    }
}

async fn idp_that(answer: Answer) -> ScriptedIdp {
    let idp = ScriptedIdp::start().await;
    idp.always(answer);
    idp
}

async fn ask(idp: &ScriptedIdp) -> Response {
    post(&idp.token_url(), CLIENT_CREDENTIALS).await.unwrap()
}

async fn exchange(idp: &ScriptedIdp, refresh_token: &str) -> Response {
    post(&idp.token_url(), &refresh(refresh_token)).await.unwrap()
}

async fn visit(api: &ProtectedApi, token: &str) -> Response {
    Response::read(client().get(api.url()).bearer_auth(token)).await.unwrap()
}

async fn post(url: &str, form: &str) -> reqwest::Result<Response> {
    Response::read(client().post(url).header("content-type", FORM).body(form.to_owned())).await
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.build().unwrap()
}

fn refresh(token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}")
}

/// What a client sees that looks at nothing but bytes.
async fn bare(idp: &ScriptedIdp) -> io::Result<String> {
    let mut stream = TcpStream::connect(address(idp)).await?;
    let length = CLIENT_CREDENTIALS.len();
    let head = format!("POST /token HTTP/1.1\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{CLIENT_CREDENTIALS}").as_bytes()).await?;
    let mut received = String::new();
    stream.read_to_string(&mut received).await?;
    Ok(received)
}

fn address(idp: &ScriptedIdp) -> String {
    idp.token_url().trim_start_matches("http://").trim_end_matches("/token").to_owned()
}

/// What an action says as it panics.
fn panic_of(action: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(action)).expect_err("a panic");
    panic.downcast_ref::<String>().cloned().or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned())).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT_CREDENTIALS: &str = "grant_type=client_credentials";
const FORM: &str = "application/x-www-form-urlencoded";
