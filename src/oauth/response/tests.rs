use std::time::Duration;

use http::Response;
use proptest::prelude::*;

use super::*;
use crate::Lifetime;

#[test]
fn every_code_of_the_rejected_list_is_final() {
    for (code, _) in REJECTED {
        for body in [format!(r#"{{"error":"{code}"}}"#), format!("error={code}&error_description=no")] {
            for status in [200, 400, 401, 403] {
                let refusal = refused(status, &body);
                if status == 200 && body.starts_with("error=") {
                    assert_eq!(refusal.rule, "rejected-code", "GitHub's old endpoint answers so");
                }
                assert_eq!(refusal.verdict, Verdict::Rejected(OAuthCode::new(code).unwrap()), "{status} {body}");
                assert_eq!(refusal.code.unwrap(), *code);
                assert_eq!(refusal.delivery, Delivery::Answered);
            }
        }
    }
}

#[test]
fn every_code_of_the_transient_list_passes() {
    for code in TRANSIENT {
        for status in [200, 400, 403] {
            let refusal = refused(status, &format!(r#"{{"error":"{code}"}}"#));
            assert_eq!((refusal.rule, refusal.verdict), ("transient-code", Verdict::Transient));
            assert_eq!(refusal.code.unwrap(), *code);
        }
    }
}

#[test]
fn ambiguous_and_unknown_codes_wait_for_confirmation() {
    for code in AMBIGUOUS.iter().chain(&["e4711", "policy.violation", "some-new_code"]) {
        let refusal = refused(400, &format!(r#"{{"error":"{code}"}}"#));
        assert_eq!(refusal.rule, "unconfirmed-code");
        assert_eq!(refusal.verdict, Verdict::Unconfirmed(OAuthCode::new(code).unwrap()));
    }
}

#[test]
fn no_code_stands_in_two_lists() {
    let rejected: Vec<_> = REJECTED.iter().map(|(code, _)| *code).collect();
    let mut all: Vec<_> = [&rejected, TRANSIENT, THROTTLED, AMBIGUOUS].concat();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn a_description_that_says_it_passes_outweighs_a_final_code() {
    for description in [
        "Token request is already being processed",
        "Please RETRY the request",
        "Rate limit exceeded",
        "AADSTS50196: The server terminated an operation because it encountered a client request loop",
        "AADSTS53003: Access has been blocked by Conditional Access policies",
    ] {
        let refusal = refused(400, &format!(r#"{{"error":"invalid_grant","error_description":"{description}"}}"#));
        assert_eq!((refusal.rule, refusal.verdict), ("passing-description", Verdict::Transient), "{description}");
    }
    for codes in ["[50196]", r#"["53003"]"#, "[70000, 53003]"] {
        let refusal = refused(400, &format!(r#"{{"error":"invalid_grant","error_codes":{codes}}}"#));
        assert_eq!(refusal.verdict, Verdict::Transient, "{codes}");
    }
    for body in [
        r#"{"error":"invalid_grant","error_description":"AADSTS500196: something else"}"#,
        r#"{"error":"invalid_grant","error_codes":[150196]}"#,
    ] {
        assert_eq!(refused(400, body).rule, "rejected-code", "{body}");
    }
}

#[test]
fn a_known_code_counts_where_servers_put_it_in_place_of_error() {
    for body in [
        r#"{"errorCode":"invalid_grant","errorSummary":"no"}"#,
        r#"{"code":400,"error_code":"INVALID_GRANT","msg":"no"}"#,
        r#"{"status":"INVALID_GRANT","message":"no"}"#,
        r#"{"error":"Not Found","code":"invalid_grant"}"#,
        r#"{"error":{"message":"no","code":"invalid_grant"}}"#,
        r#"{"error":"Invalid_Grant"}"#,
        r#"{"error":" invalid_grant "}"#,
    ] {
        assert_eq!(refused(400, body).rule, "rejected-code", "{body}");
    }
}

#[test]
fn what_is_no_code_decides_nothing() {
    for body in [
        r#"{"error":"Not Found"}"#,
        r#"{"error":"Unauthorized"}"#,
        r#"{"error":"Forbidden","code":"E4711","status":"error"}"#,
        r#"{"error":{"code":403,"status":"PERMISSION_DENIED"}}"#,
        r#"{"error":true}"#,
        r#"{"error":""}"#,
        r#"{"message":"invalid_grant"}"#,
        r#"["invalid_grant"]"#,
        r#""invalid_grant""#,
        "invalid_grant",
        "<html>error=invalid_grant</html>",
        r#"<a href="/?a=1&error=invalid_grant&b=2">"#,
        "",
        "{",
    ] {
        let refusal = refused(403, body);
        assert_eq!((refusal.rule, refusal.verdict), ("no-code", Verdict::Transient), "{body}");
        assert_eq!((refusal.code, refusal.delivery), (None, Delivery::Answered));
    }
}

#[test]
fn statuses_that_decide_whatever_the_body_says() {
    for (status, rule, in_doubt) in [
        (302, "redirect", false),
        (307, "redirect", false),
        (408, "request-timeout", true),
        (425, "too-early", false),
        (429, "rate-limited", false),
        (500, "server-error", true),
        (503, "server-error", true),
        (599, "server-error", true),
        (101, "unexpected-status", false),
        (999, "unexpected-status", false),
    ] {
        for body in [r#"{"error":"invalid_grant"}"#, r#"{"access_token":"at"}"#, "<html>", ""] {
            let refusal = refused(status, body);
            assert_eq!((refusal.rule, refusal.verdict), (rule, Verdict::Transient), "{status} {body}");
            assert_eq!(refusal.code, None);
            let expected = if in_doubt { Delivery::Unknown } else { Delivery::Answered };
            assert_eq!(refusal.delivery, expected, "{status}");
        }
    }
}

#[test]
fn a_success_without_a_token_came_from_something_in_between() {
    for body in [
        "",
        "{}",
        "<html>sign in to the wifi</html>",
        r#"<a href="?access_token=at&token_type=bearer">"#,
        "access_token=at&token_type=bearer",
        r#"{"access_token":""}"#,
        r#"{"access_token":null,"token_type":"bearer"}"#,
        r#"{"access_token":7}"#,
        r#"{"access_token":"line\nbreak"}"#,
        r#"{"error":null}"#,
        r#"{"error":"Not Found"}"#,
        r#"{"ok":true}"#,
        "null",
    ] {
        let refusal = refused(200, body);
        assert_eq!((refusal.rule, refusal.verdict), ("no-token", Verdict::Transient), "{body}");
        assert_eq!(refusal.delivery, Delivery::Unknown);
    }
}

#[test]
fn only_a_rotating_token_is_ever_in_doubt() {
    let plain = Asked { rotating: false, secrets: Secrets::default() };
    for (status, body) in [(408, ""), (500, ""), (200, ""), (200, r#"{"access_token":"at","token_type":"x"}"#)] {
        let judged = judge(&answer(status, "application/json", body), &plain);
        assert_eq!(judged.issued.err().unwrap().delivery, Delivery::Answered, "{status} {body}");
    }
}

#[test]
fn bearer_like_types_are_taken() {
    for token_type in
        ["null", r#""""#, r#""Bearer""#, r#""BEARER""#, r#""bearer ""#, r#""BearerToken""#, r#""bot""#, r#""user""#]
    {
        let body = format!(r#"{{"ok":true,"access_token":"at","token_type":{token_type}}}"#);
        assert_eq!(issued(200, &body).expose_secret(), "at", "{token_type}");
    }
    assert_eq!(issued(201, r#"{"access_token":"at"}"#).expose_secret(), "at");
}

#[test]
fn types_that_need_a_proof_of_possession_are_refused_for_good() {
    for token_type in ["DPoP", "mac", "N_A"] {
        let refusal = refused(200, &format!(r#"{{"access_token":"at","token_type":"{token_type}"}}"#));
        assert_eq!(refusal.rule, "unsupported-token-type");
        assert_eq!(refusal.verdict, Verdict::Rejected(OAuthCode::new("unsupported_token_type").unwrap()));
    }
    let refusal = refused(200, r#"{"access_token":"at","token_type":"hologram"}"#);
    assert_eq!((refusal.rule, refusal.verdict), ("unknown-token-type", Verdict::Transient));
}

#[test]
fn a_rotated_refresh_token_counts_even_in_a_useless_success() {
    let body = r#"{"access_token":"at","token_type":"DPoP","refresh_token":"rt-2"}"#;
    let judged = judge(&answer(200, "application/json", body), &asked());
    assert!(judged.issued.is_err());
    assert_eq!(judged.refresh_token.unwrap().expose_secret(), "rt-2");

    let judged = judge(&answer(500, "application/json", body), &asked());
    assert!(judged.refresh_token.is_none(), "a server in trouble changes nothing");
}

#[test]
fn an_omitted_or_empty_refresh_token_is_none() {
    for body in [
        r#"{"access_token":"at"}"#,
        r#"{"access_token":"at","refresh_token":""}"#,
        r#"{"access_token":"at","refresh_token":null}"#,
    ] {
        assert!(judge(&answer(200, "application/json", body), &asked()).refresh_token.is_none(), "{body}");
    }
}

#[test]
fn no_lifetime_breaks_a_success() {
    let hour = Lifetime::Known(Duration::from_secs(3600));
    for (expires_in, expected) in [
        ("3600", hour),
        ("3600.0", hour),
        (r#""3600""#, hour),
        ("9223372036854775807", Lifetime::Known(Lifetime::LONGEST)),
        ("99999999999999999999999999", Lifetime::Known(Lifetime::LONGEST)),
        ("null", Lifetime::Unknown),
        ("0", Lifetime::Malformed),
        ("-1", Lifetime::Malformed),
        (r#""NaN""#, Lifetime::Malformed),
        (r#""soon""#, Lifetime::Malformed),
        ("{}", Lifetime::Malformed),
    ] {
        let body = format!(r#"{{"access_token":"at","expires_in":{expires_in}}}"#);
        assert_eq!(issued(200, &body).lifetime(), expected, "{expires_in}");
    }
    assert_eq!(issued(200, r#"{"access_token":"at"}"#).lifetime(), Lifetime::Unknown);
}

#[test]
fn scopes_come_in_three_spellings() {
    for scope in [r#""repo user""#, r#""repo,user""#, r#"["repo","user"]"#] {
        let token = issued(200, &format!(r#"{{"access_token":"at","scope":{scope}}}"#));
        assert!(format!("{token:?}").contains(r#"["repo", "user"]"#), "{scope}");
    }
}

#[test]
fn no_more_than_1024_scopes_are_kept() {
    let body = format!(r#"{{"access_token":"at","scope":"{}"}}"#, "a ".repeat(100_000));
    assert_eq!(issued(200, &body).granted_scopes().len(), 1024);
}

#[test]
fn a_form_that_says_it_is_one_is_a_success() {
    let body = "access_token=a%2Bt&token_type=bearer&scope=repo%2Cuser&expires_in=3600&refresh_token=rt-2";
    let judged = judge(&answer(200, "Application/X-WWW-Form-Urlencoded; charset=utf-8", body), &asked());
    let token = judged.issued.ok().unwrap();
    assert_eq!(token.expose_secret(), "a+t");
    assert_eq!(token.lifetime(), Lifetime::Known(Duration::from_secs(3600)));
    assert_eq!(judged.refresh_token.unwrap().expose_secret(), "rt-2");
}

#[test]
fn the_wrapping_of_the_json_does_not_matter() {
    let success = r#"{"access_token":"at"}"#;
    for (content_type, body) in [
        ("text/html; charset=iso-8859-1", success.into()),
        ("text/javascript", success.into()),
        ("", format!("\u{feff}{success}\r\n")),
        ("application/json", r#"{"access_token":"old","access_token":"at"}"#.into()),
    ] {
        let judged = judge(&answer(200, content_type, &body), &asked());
        assert_eq!(judged.issued.ok().unwrap().expose_secret(), "at", "{content_type}");
    }
    let latin_1 = [br#"{"error":"invalid_grant","error_description":"pass"# as &[u8], b"\xe9", br#""}"#].concat();
    let refusal = judge(&Response::builder().status(400).body(latin_1).unwrap(), &asked()).issued.err().unwrap();
    assert_eq!(refusal.rule, "rejected-code");
    assert_eq!(refusal.description.unwrap(), "pass\u{fffd}");
}

#[test]
fn a_body_beyond_the_limit_is_not_looked_at() {
    let padding = " ".repeat(super::super::http::MAX_BODY);
    assert_eq!(refused(200, &format!(r#"{{"access_token":"at"}}{padding}"#)).rule, "no-token");
    assert_eq!(refused(400, &format!(r#"{{"error":"invalid_grant"}}{padding}"#)).rule, "no-code");
}

#[test]
fn a_description_is_cleaned_before_it_is_cut() {
    let long = format!("{}rt-secret and more", "x".repeat(DESCRIPTION - 4));
    let description = refused(400, &format!(r#"{{"error":"e","error_description":"{long}"}}"#)).description.unwrap();
    assert_eq!(description.chars().count(), 256);
    assert!(!description.contains("rt-s"), "half a secret is a leak");

    let body = r#"{"error":"e","error_description":"a\u001b[31m\n\u202e b"}"#;
    assert_eq!(refused(400, body).description.unwrap(), r"a\u{1b}[31m\u{a}\u{202e} b");

    let escapes = r"\u0001".repeat(1000);
    let description =
        refused(400, &format!(r#"{{"error":"e","error_description":"{escapes}x"}}"#)).description.unwrap();
    assert!(description.chars().count() <= 256);
}

#[test]
fn a_token_that_came_with_a_useless_answer_is_not_repeated() {
    let body =
        r#"{"access_token":"at-1","token_type":"hologram","refresh_token":"rt-2","message":"take at-1 and rt-2"}"#;
    assert_eq!(refused(200, body).description.unwrap(), "take [redacted] and [redacted]");
}

#[test]
fn a_secret_in_the_place_of_the_code_is_no_code() {
    let refusal = refused(400, r#"{"error":"rt-secret"}"#);
    assert_eq!((refusal.rule, refusal.code), ("no-code", None));
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic_and_only_a_2xx_is_a_success(
        status in 100_u16..1000,
        content_type in "(application/json|application/x-www-form-urlencoded|text/html|)",
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[{}\\[\\]\":,a-z_=&%0-9 ]{0,80}".prop_map(String::into_bytes),
            r#"\{"(access_token|error|code|error_codes)":("[a-zA-Z_ .-]{0,20}"|[0-9]{1,30}|null|\[1\]|\{\})\}"#.prop_map(String::into_bytes),
            "(access_token|error)=[a-z_%&=]{0,20}".prop_map(String::into_bytes),
        ],
    ) {
        let mut answer = answer(status, &content_type, "");
        *answer.body_mut() = body;
        let judged = judge(&answer, &asked());
        prop_assert!(judged.issued.is_err() || (200..300).contains(&status));
    }
}

fn refused(status: u16, body: &str) -> Refusal {
    judge(&answer(status, "application/json", body), &asked()).issued.err().unwrap()
}

fn issued(status: u16, body: &str) -> IssuedToken {
    judge(&answer(status, "application/json", body), &asked()).issued.ok().unwrap()
}

fn answer(status: u16, content_type: &str, body: &str) -> Response<Vec<u8>> {
    Response::builder().status(status).header("content-type", content_type).body(body.into()).unwrap()
}

fn asked() -> Asked {
    let mut secrets = Secrets::default();
    secrets.add("rt-secret");
    Asked { rotating: true, secrets }
}
