use http::{HeaderMap, HeaderValue, Uri, header::WWW_AUTHENTICATE};
use proptest::prelude::*;

use super::*;

#[test]
fn every_example_of_the_rfcs_and_of_real_servers_is_read_as_it_was_meant() {
    for row in TABLE {
        let headers = headers(row.lines);
        let read: Vec<_> = Challenge::parse(&headers).iter().map(parts).collect();
        assert_eq!(read, expected(row.challenges), "{}", row.origin);
        let meaning = Challenge::most_telling(&headers).map(|it| it.meaning());
        assert_eq!(meaning, Some((row.meaning)()), "{}", row.origin);
    }
}

#[test]
fn what_servers_get_wrong_is_forgiven() {
    let forgiven: &[(&str, &[&str], Expected)] = &[
        ("nothing", &[], &[]),
        ("an empty header", &[""], &[]),
        ("only commas", &[" , ,, "], &[]),
        (
            "empty list elements",
            &[",Bearer ,, error=a,,scope=b, ,"],
            &[("Bearer", None, &[("error", "a"), ("scope", "b")])],
        ),
        (
            "blanks around the equals sign",
            &["Bearer  realm =\t\"x\" ,error= a,scope =b"],
            &[("Bearer", None, &[("realm", "x"), ("error", "a"), ("scope", "b")])],
        ),
        (
            "parameter names of any case",
            &["bEaReR REALM=x, Error=y"],
            &[("bEaReR", None, &[("realm", "x"), ("error", "y")])],
        ),
        (
            "parameters before any scheme belong to nobody",
            &["realm=\"x\", error=y, Bearer scope=z"],
            &[("Bearer", None, &[("scope", "z")])],
        ),
        (
            "a list that a proxy broke into lines",
            &["Bearer realm=\"x\"", "error=\"y\"", "Basic"],
            &[("Bearer", None, &[("realm", "x"), ("error", "y")]), ("Basic", None, &[])],
        ),
        (
            "a missing comma between parameters",
            &["Bearer realm=\"x\" error=\"y\""],
            &[("Bearer", None, &[("realm", "x"), ("error", "y")])],
        ),
        ("semicolons for commas", &["Bearer realm=x; error=y"], &[("Bearer", None, &[("realm", "x"), ("error", "y")])]),
        (
            "an unquoted address",
            &["Bearer realm=https://auth.example.com/token?a=b,service=s"],
            &[("Bearer", None, &[("realm", "https://auth.example.com/token?a=b"), ("service", "s")])],
        ),
        (
            "an unquoted sentence keeps its first word and invents no scheme",
            &["Bearer error_description=The token expired, error=y"],
            &[("Bearer", None, &[("error_description", "The"), ("error", "y")])],
        ),
        (
            "a quoted string without an end ends with its line",
            &["Bearer realm=\"x, error=\\\"y", "Basic realm=\"z\\"],
            &[("Bearer", None, &[("realm", "x, error=\"y")]), ("Basic", None, &[("realm", "z")])],
        ),
        (
            "a comma and a scheme inside a quoted string",
            &[r#"Digest qop="auth, auth-int, Bearer error=x", nonce="n""#],
            &[("Digest", None, &[("qop", "auth, auth-int, Bearer error=x"), ("nonce", "n")])],
        ),
        (
            "quoted strings where parameters belong",
            &[r#"OAuth "Facebook Platform" "invalid_token" "Malformed, Bearer error=x", realm=x"#],
            &[("OAuth", None, &[("realm", "x")])],
        ),
        (
            "a colon after the scheme, and other stray signs",
            &["@Bearer: {error=\"y\"}"],
            &[("Bearer", None, &[("error", "y")])],
        ),
        (
            "token68 of every form, and one that is none",
            &["A abc, B a-._~+/9==  ,C x==y, D a b"],
            &[("A", Some("abc"), &[]), ("B", Some("a-._~+/9=="), &[]), ("C", None, &[("x", "=y")]), ("D", None, &[])],
        ),
        (
            "an empty quoted value",
            &["Bearer realm=\"\", error=\"\""],
            &[("Bearer", None, &[("realm", ""), ("error", "")])],
        ),
    ];
    for (what, lines, challenges) in forgiven {
        let read: Vec<_> = Challenge::parse(&headers(lines)).iter().map(parts).collect();
        assert_eq!(read, expected(challenges), "{what}");
    }
}

#[test]
fn bytes_that_are_no_text_leave_the_rest_readable() {
    let mut headers = HeaderMap::new();
    let latin1 = b"Bearer error_description=\"ung\xfcltig\", error=\"invalid_token\"";
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(latin1).unwrap());
    let utf8 = "Basic realm=\"Müller\"".as_bytes();
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(utf8).unwrap());

    let read = Challenge::parse(&headers);
    assert_eq!(read[0].error_description().as_deref(), Some("ung\u{fffd}ltig"));
    assert_eq!(read[0].meaning(), Meaning::InvalidToken { claims: None });
    assert_eq!(read[1].realm(), Some("Müller"));
}

#[test]
fn the_first_of_two_equal_parameters_counts() {
    let challenge = one(r#"Bearer error="invalid_token", Error="use_dpop_nonce""#);
    assert_eq!(challenge.error(), Some("invalid_token"));
}

#[test]
fn more_than_32_challenges_are_cut_off_with_their_parameters() {
    let line = "Basic realm=a, ".repeat(33);
    let read = Challenge::parse(&headers(&[&line, "error=late", "Bearer error=later"]));
    assert_eq!(read.len(), 32);
    assert!(read.iter().all(|it| it.param("error").is_none()));
    assert!(read.iter().all(|it| it.params.len() == 1));
}

#[test]
fn more_than_64_parameters_of_one_challenge_are_cut_off() {
    let line = (0..65).map(|n| format!("p{n}=x")).collect::<Vec<_>>().join(",");
    let challenge = one(&format!("Bearer {line}"));
    assert_eq!(challenge.param("p63"), Some("x"));
    assert_eq!(challenge.param("p64"), None);
}

#[test]
fn a_line_that_exceeds_64_kib_in_total_is_passed_over() {
    let fits = format!("Basic realm=\"{}\"", "x".repeat(60 * 1024));
    let exceeds = format!("Negotiate {}", "y".repeat(4 * 1024));
    let read = Challenge::parse(&headers(&[&fits, &exceeds, "Bearer error=invalid_token"]));
    let schemes: Vec<_> = read.iter().map(Challenge::scheme).collect();
    assert_eq!(schemes, ["Basic", "Bearer"]);
}

#[test]
fn hostile_lines_of_the_greatest_length_are_read_to_their_end() {
    for unit in ["a", "a ", "a,", "a=", "a=,", "a =", "\"", "\\", "\"\\", "a=\"\\", ",", " ", "=", "a b=", "(", "\"\" "]
    {
        let line = unit.repeat(64 * 1024 / unit.len());
        let read = Challenge::parse(&headers(&[&line]));
        assert!(read.len() <= 32, "{unit:?}");
    }
}

#[test]
fn an_error_is_reported_only_in_the_form_of_a_code() {
    assert_eq!(one("Bearer error=\"\"").error(), None);
    assert_eq!(one("Bearer error=\"no such token\"").error(), None);
    assert_eq!(one(&format!("Bearer error={}", "x".repeat(65))).error(), None);
    assert_eq!(one("Bearer error=\"no such token\"").param("error"), Some("no such token"));
    assert_eq!(one("Bearer error=Invalid_Token").meaning(), Meaning::InvalidToken { claims: None });
}

#[test]
fn a_description_is_fit_to_be_shown() {
    let long = "é".repeat(1000);
    let shown = one(&format!("Bearer error_description=\"{long}\"")).error_description().unwrap();
    assert_eq!(shown.chars().count(), 257);
    let shown = one("Bearer error_description=\"a\tb\u{202e}c\"").error_description().unwrap();
    assert_eq!(shown, "a\\u{9}b\\u{202e}c");
}

#[test]
fn an_error_of_a_scheme_that_is_not_ours_is_only_a_suspicion() {
    for text in
        ["Token error=invalid_token", "OAuth error=use_dpop_nonce", "Basic error=insufficient_claims, claims=e30"]
    {
        assert_eq!(one(text).meaning(), Meaning::Suspect, "{text}");
    }
}

#[test]
fn errors_of_a_bearer_challenge_mean_what_their_specification_says() {
    let meanings = [
        ("invalid_token", Meaning::InvalidToken { claims: None }),
        ("insufficient_user_authentication", Meaning::HandToHost),
        ("use_dpop_nonce", Meaning::HandToHost),
        ("invalid_dpop_proof", Meaning::HandToHost),
        ("insufficient_claims", Meaning::Suspect),
        ("insufficient_scope", Meaning::Suspect),
        ("invalid_request", Meaning::Suspect),
        ("invalid_tokens", Meaning::Suspect),
    ];
    for scheme in ["Bearer", "dpop"] {
        assert_eq!(one(scheme).meaning(), Meaning::Suspect);
        for (error, meaning) in &meanings {
            let challenge = one(&format!("{scheme} error=\"{error}\""));
            assert_eq!(challenge.meaning(), *meaning, "{scheme} {error}");
        }
    }
}

#[test]
fn claims_without_an_error_that_asks_for_them_are_left_alone() {
    assert_eq!(one("Bearer claims=e30").meaning(), Meaning::Suspect);
    assert_eq!(one("Bearer error=insufficient_scope, claims=e30").meaning(), Meaning::Suspect);
}

#[test]
fn claims_are_read_in_either_alphabet_with_or_without_padding() {
    let json = r#"{"a":"~~~???"}"#;
    for encoded in ["eyJhIjoifn5+Pz8/In0=", "eyJhIjoifn5+Pz8/In0", "eyJhIjoifn5-Pz8_In0=", "eyJhIjoifn5-Pz8_In0"] {
        let challenge = one(&format!("Bearer error=insufficient_claims, claims=\"{encoded}\""));
        assert_eq!(challenge.claims().as_deref(), Some(json), "{encoded}");
    }
    let plain = r#"Bearer claims="{\"a\":\"~~~???\"}""#;
    assert_eq!(one(plain).claims().as_deref(), Some(json), "not encoded at all");
}

#[test]
fn claims_that_are_no_json_object_of_bounded_size_are_not_passed_on() {
    let too_long = format!("eyJhIjoi{}In0=", "QUFB".repeat(8 * 1024 / 3));
    for encoded in ["", "====", "eyJh!", "//79", "bnVsbA==", "e30e", &too_long] {
        let challenge = one(&format!("Bearer error=insufficient_claims, claims=\"{encoded}\""));
        assert_eq!(challenge.claims(), None, "{encoded}");
        assert_eq!(challenge.meaning(), Meaning::Suspect, "{encoded}");
    }
}

#[test]
fn the_most_telling_challenge_has_an_error_then_a_scheme_of_ours_then_comes_first() {
    let picked: &[(&[&str], &str)] = &[
        (&["Basic realm=x, Bearer, Negotiate"], "Bearer"),
        (&["Bearer realm=x", "DPoP error=use_dpop_nonce"], "DPoP"),
        (&["Token error=x, DPoP error=y, Bearer error=z"], "DPoP"),
        (&["Bearer, Token error=x"], "Token"),
        (&["Negotiate, Basic realm=x"], "Negotiate"),
        (&["bearer error=\"\", DPOP error=\"not a code\", dpop error=x"], "dpop"),
    ];
    for (lines, scheme) in picked {
        let challenge = Challenge::most_telling(&headers(lines)).unwrap();
        assert_eq!(challenge.scheme(), *scheme, "{lines:?}");
    }
    assert_eq!(Challenge::most_telling(&HeaderMap::new()), None);
}

#[test]
fn a_step_up_challenge_tells_how_recent_the_sign_in_must_be() {
    let max_age = |text: &str| one(&format!("Bearer max_age={text}")).max_age();
    assert_eq!(max_age("\"5\""), Some(Duration::from_secs(5)));
    assert_eq!(max_age("0"), Some(Duration::ZERO));
    assert_eq!(max_age("\" 60 \""), Some(Duration::from_secs(60)));
    assert_eq!(max_age("99999999999999999999999"), Some(Lifetime::LONGEST));
    for nonsense in ["-1", "+1", "soon", "\"\"", "1e3"] {
        assert_eq!(max_age(nonsense), None, "{nonsense}");
    }
}

#[test]
fn resource_metadata_of_another_origin_is_not_offered() {
    let resource: Uri = "https://api.example.com/v1/things".parse().unwrap();
    let offered = |address: &str| {
        let challenge = one(&format!("Bearer resource_metadata=\"{address}\""));
        assert_eq!(challenge.resource_metadata(), Some(address));
        challenge.resource_metadata_for(&resource)
    };
    for same in [
        "https://api.example.com/.well-known/oauth-protected-resource",
        "HTTPS://API.example.com:443/.well-known/oauth-protected-resource/v1?x=y",
    ] {
        assert_eq!(offered(same), Some(same.parse().unwrap()), "{same}");
    }
    for other in [
        "http://api.example.com/",
        "https://api.example.com:8443/",
        "https://api.example.com:99999/",
        "https://api.example.com:/",
        "https://example.com/",
        "https://api.example.com.evil.example/",
        "https://api.example.com@evil.example/",
        "https://evil.example@api.example.com/",
        "https://user:443@api.example.com/",
        "https://user@api.example.com:443/",
        "//api.example.com/",
        "/.well-known/oauth-protected-resource",
        "ftp://api.example.com/",
        "",
    ] {
        assert_eq!(offered(other), None, "{other}");
    }
    let relative: Uri = "/v1/things".parse().unwrap();
    let challenge = one("Bearer resource_metadata=\"https://api.example.com/\"");
    assert_eq!(challenge.resource_metadata_for(&relative), None);
    let local: Uri = "http://[::1]:80/".parse().unwrap();
    let challenge = one("Bearer resource_metadata=\"http://[::1]/m\"");
    assert!(challenge.resource_metadata_for(&local).is_some());
}

#[test]
fn debug_shows_what_helps_and_hides_what_may_be_secret() {
    let shown = format!(
        "{:?}",
        Challenge::parse(&headers(&[
            "Negotiate c2VjcmV0",
            r#"Bearer realm="api", error="invalid_token", error_description="Invalid access token: secret", claims="c2VjcmV0", nonce="secret", x="secret""#,
        ]))
    );
    assert!(!shown.contains("secret") && !shown.contains("c2VjcmV0"), "{shown}");
    for helpful in [
        "\"Negotiate\"",
        "\"Bearer\"",
        r#"("realm", "api")"#,
        r#"("error", "invalid_token")"#,
        r#"("claims", "…")"#,
        r#"("nonce", "…")"#,
        r#"("x", "…")"#,
    ] {
        assert!(shown.contains(helpful), "{helpful} in {shown}");
    }
    let long = format!("{:?}", one(&format!("Bearer realm=\"{}\"", "x".repeat(60_000))));
    assert!(long.len() < 1000, "{}", long.len());
}

#[test]
fn text_is_a_challenge_only_if_it_holds_exactly_one() {
    for text in ["", " , ", "error=invalid_token", "Basic, Bearer", &"x".repeat(64 * 1024 + 1)] {
        let error = text.parse::<Challenge>().unwrap_err();
        assert_eq!(error.to_string(), "the text is not exactly one authentication challenge");
    }
    assert_eq!(one("  Bearer\r\n\terror=x ,").param("error"), Some("x"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_or_exceed_its_bounds(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)
    ) {
        check_bounds(&lines);
    }

    #[test]
    fn no_text_of_the_grammars_own_signs_makes_the_parser_panic_or_exceed_its_bounds(
        lines in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(SIGNS), 0..60), 0..8)
    ) {
        check_bounds(&lines.iter().map(|signs| signs.concat().into_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn whatever_is_written_by_the_grammar_is_read_back(
        list in proptest::collection::vec(any_challenge(), 0..6),
        style in proptest::collection::vec(0..6_u8, 200),
    ) {
        let lines = written(&list, &mut style.into_iter().cycle());
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(Challenge::parse(&headers(&lines)), list, "{:?}", lines);
    }
}

const SIGNS: &[&str] = &[
    "Bearer",
    "DPoP",
    "error",
    "invalid_token",
    "claims",
    "max_age",
    "resource_metadata",
    "https://a:1",
    "a",
    "é",
    "=",
    "\"",
    "\\",
    ",",
    ";",
    " ",
    "\t",
];

fn check_bounds(lines: &[Vec<u8>]) {
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
        let _ = String::from_utf8_lossy(line).parse::<Challenge>();
    }
    let resource: Uri = "https://a:1/".parse().unwrap();
    let read = Challenge::parse(&headers);
    assert!(read.len() <= 32);
    assert_eq!(read.is_empty(), Challenge::most_telling(&headers).is_none());
    for challenge in read {
        assert!(!challenge.scheme().is_empty());
        let _ = (challenge.meaning(), challenge.claims(), challenge.max_age());
        let _ = (challenge.resource_metadata_for(&resource), format!("{challenge:?}"));
    }
}

fn any_challenge() -> impl Strategy<Value = Challenge> {
    let token = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}";
    let name = "[!#$%&'*+.^_`|~0-9a-z-]{1,8}";
    let params = proptest::collection::vec((name, "\\PC{0,12}"), 0..5);
    (token, proptest::option::of("[A-Za-z0-9._~+/-]{1,12}={0,2}"), params).prop_map(|(scheme, token68, params)| {
        Challenge { params: if token68.is_some() { Vec::new() } else { params }, scheme, token68 }
    })
}

/// Every spelling the grammar has for a list of challenges, picked by `style`.
fn written(list: &[Challenge], style: &mut impl Iterator<Item = u8>) -> Vec<String> {
    let blank = |style: u8| ["", "", " ", "\t", "  ", " \t"][usize::from(style)];
    let mut lines = vec![String::new()];
    let separate = |lines: &mut Vec<String>, style: &mut dyn Iterator<Item = u8>| {
        match style.next().unwrap() {
            0 => lines.push(String::new()),
            1 => lines.last_mut().unwrap().push_str(", ,\t,"),
            _ => lines.last_mut().unwrap().push(','),
        }
        lines.last_mut().unwrap().push_str(blank(style.next().unwrap()));
    };
    for challenge in list {
        separate(&mut lines, style);
        lines.last_mut().unwrap().push_str(&challenge.scheme);
        if let Some(token68) = &challenge.token68 {
            *lines.last_mut().unwrap() += &format!(" {token68}{}", blank(style.next().unwrap()));
        }
        for (index, (name, value)) in challenge.params.iter().enumerate() {
            if index == 0 {
                lines.last_mut().unwrap().push(' ');
            } else {
                separate(&mut lines, style);
            }
            let is_token = !value.is_empty() && value.chars().all(|it| it.is_ascii_alphanumeric());
            let value = if is_token && style.next().unwrap() > 2 {
                value.clone()
            } else {
                format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
            };
            let (before, after) = (blank(style.next().unwrap()), blank(style.next().unwrap()));
            *lines.last_mut().unwrap() += &format!("{name}{before}={after}{value}{before}");
        }
    }
    lines
}

fn one(text: &str) -> Challenge {
    text.parse().unwrap()
}

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

type Parts = (String, Option<String>, Vec<(String, String)>);
type Expected = &'static [(&'static str, Option<&'static str>, &'static [(&'static str, &'static str)])];

fn parts(challenge: &Challenge) -> Parts {
    let Challenge { scheme, token68, params } = challenge.clone();
    (scheme, token68, params)
}

fn expected(challenges: Expected) -> Vec<Parts> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    challenges
        .iter()
        .map(|(scheme, token68, params)| {
            ((*scheme).to_owned(), token68.map(str::to_owned), params.iter().map(owned).collect())
        })
        .collect()
}

struct Row {
    origin: &'static str,
    lines: &'static [&'static str],
    challenges: Expected,
    meaning: fn() -> Meaning,
}

const SUSPECT: fn() -> Meaning = || Meaning::Suspect;
const INVALID: fn() -> Meaning = || Meaning::InvalidToken { claims: None };
const FOR_HOST: fn() -> Meaning = || Meaning::HandToHost;

const TABLE: &[Row] = &[
    Row {
        origin: "RFC 9110 §11.6.1",
        lines: &[r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#],
        challenges: &[
            ("Basic", None, &[("realm", "simple")]),
            ("Newauth", None, &[("realm", "apps"), ("type", "1"), ("title", "Login to \"apps\"")]),
        ],
        meaning: SUSPECT,
    },
    Row {
        origin: "RFC 6750 §3, no token sent",
        lines: &[r#"Bearer realm="example""#],
        challenges: &[("Bearer", None, &[("realm", "example")])],
        meaning: SUSPECT,
    },
    Row {
        origin: "RFC 6750 §3, expired token",
        lines: &[r#"Bearer realm="example", error="invalid_token", error_description="The access token expired""#],
        challenges: &[(
            "Bearer",
            None,
            &[("realm", "example"), ("error", "invalid_token"), ("error_description", "The access token expired")],
        )],
        meaning: INVALID,
    },
    Row {
        origin: "RFC 9449 §7.1",
        lines: &[r#"DPoP error="invalid_token", error_description="Invalid DPoP key binding", algs="ES256""#],
        challenges: &[(
            "DPoP",
            None,
            &[("error", "invalid_token"), ("error_description", "Invalid DPoP key binding"), ("algs", "ES256")],
        )],
        meaning: INVALID,
    },
    Row {
        origin: "RFC 9449 §7.2",
        lines: &[r#"Bearer, DPoP algs="ES256 PS256""#],
        challenges: &[("Bearer", None, &[]), ("DPoP", None, &[("algs", "ES256 PS256")])],
        meaning: SUSPECT,
    },
    Row {
        origin: "RFC 9449 §9",
        lines: &[r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof""#],
        challenges: &[(
            "DPoP",
            None,
            &[("error", "use_dpop_nonce"), ("error_description", "Resource server requires nonce in DPoP proof")],
        )],
        meaning: FOR_HOST,
    },
    Row {
        origin: "RFC 9470 §3, acr_values",
        lines: &[
            r#"Bearer error="insufficient_user_authentication", error_description="A different authentication level is required", acr_values="myACR""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("error", "insufficient_user_authentication"),
                ("error_description", "A different authentication level is required"),
                ("acr_values", "myACR"),
            ],
        )],
        meaning: FOR_HOST,
    },
    Row {
        origin: "RFC 9470 §3, max_age",
        lines: &[
            r#"Bearer error="insufficient_user_authentication", error_description="More recent authentication is required", max_age="5""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("error", "insufficient_user_authentication"),
                ("error_description", "More recent authentication is required"),
                ("max_age", "5"),
            ],
        )],
        meaning: FOR_HOST,
    },
    Row {
        origin: "RFC 9728 §5.1",
        lines: &[r#"Bearer resource_metadata="https://resource.example.com/.well-known/oauth-protected-resource""#],
        challenges: &[(
            "Bearer",
            None,
            &[("resource_metadata", "https://resource.example.com/.well-known/oauth-protected-resource")],
        )],
        meaning: SUSPECT,
    },
    Row {
        origin: "Microsoft identity platform, claims challenge",
        lines: &[
            r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiY3AxIn19fQ==""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("realm", ""),
                ("authorization_uri", "https://login.microsoftonline.com/common/oauth2/authorize"),
                ("error", "insufficient_claims"),
                ("claims", "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiY3AxIn19fQ=="),
            ],
        )],
        meaning: || Meaning::ClaimsNeeded {
            claims: r#"{"access_token":{"acrs":{"essential":true,"value":"cp1"}}}"#.to_owned(),
        },
    },
    Row {
        origin: "Azure Resource Manager, the session was revoked",
        lines: &[
            r#"Bearer authorization_uri="https://login.windows.net/", error="invalid_token", error_description="User session has been revoked", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYwMzc0MjgwMCJ9fX0=""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("authorization_uri", "https://login.windows.net/"),
                ("error", "invalid_token"),
                ("error_description", "User session has been revoked"),
                ("claims", "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYwMzc0MjgwMCJ9fX0="),
            ],
        )],
        meaning: || Meaning::InvalidToken {
            claims: Some(r#"{"access_token":{"nbf":{"essential":true, "value":"1603742800"}}}"#.to_owned()),
        },
    },
    Row {
        origin: "Azure Resource Manager, the address is not allowed (claims without padding)",
        lines: &[
            r#"Bearer authorization_uri="https://login.windows.net/", error="invalid_token", error_description="Tenant IP Policy validate failed.", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjEwNTYzMDA2In0sInhtc19ycF9pcGFkZHIiOnsidmFsdWUiOiIxLjIuMy40In19fQ""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("authorization_uri", "https://login.windows.net/"),
                ("error", "invalid_token"),
                ("error_description", "Tenant IP Policy validate failed."),
                (
                    "claims",
                    "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjEwNTYzMDA2In0sInhtc19ycF9pcGFkZHIiOnsidmFsdWUiOiIxLjIuMy40In19fQ",
                ),
            ],
        )],
        meaning: || {
            Meaning::InvalidToken {
            claims: Some(
                r#"{"access_token":{"nbf":{"essential":true,"value":"1610563006"},"xms_rp_ipaddr":{"value":"1.2.3.4"}}}"#
                    .to_owned(),
            ),
        }
        },
    },
    Row {
        origin: "Azure Key Vault",
        lines: &[r#"Bearer authorization="https://login.windows.net/tenant", resource="https://vault.azure.net""#],
        challenges: &[(
            "Bearer",
            None,
            &[("authorization", "https://login.windows.net/tenant"), ("resource", "https://vault.azure.net")],
        )],
        meaning: SUSPECT,
    },
    Row {
        origin: "Exchange Online: several challenges on one line, no blank after the comma",
        lines: &[
            r#"Bearer client_id="00000002-0000-0ff1-ce00-000000000000", trusted_issuers="00000001-0000-0000-c000-000000000000@*", error="invalid_token",Basic Realm="",Basic Realm="""#,
        ],
        challenges: &[
            (
                "Bearer",
                None,
                &[
                    ("client_id", "00000002-0000-0ff1-ce00-000000000000"),
                    ("trusted_issuers", "00000001-0000-0000-c000-000000000000@*"),
                    ("error", "invalid_token"),
                ],
            ),
            ("Basic", None, &[("realm", "")]),
            ("Basic", None, &[("realm", "")]),
        ],
        meaning: INVALID,
    },
    Row {
        origin: "IIS with Windows authentication",
        lines: &["Negotiate", "NTLM TlRMTVNTUAACAAAA==", r#"Basic realm="intranet""#],
        challenges: &[
            ("Negotiate", None, &[]),
            ("NTLM", Some("TlRMTVNTUAACAAAA=="), &[]),
            ("Basic", None, &[("realm", "intranet")]),
        ],
        meaning: SUSPECT,
    },
    Row {
        origin: "Google APIs",
        lines: &[r#"Bearer realm="https://accounts.google.com/", error="invalid_token""#],
        challenges: &[("Bearer", None, &[("realm", "https://accounts.google.com/"), ("error", "invalid_token")])],
        meaning: INVALID,
    },
    Row {
        origin: "GitHub's MCP server",
        lines: &[
            r#"Bearer error="invalid_request", error_description="No access token was provided in this request", resource_metadata="https://api.githubcopilot.com/.well-known/oauth-protected-resource/mcp/""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("error", "invalid_request"),
                ("error_description", "No access token was provided in this request"),
                ("resource_metadata", "https://api.githubcopilot.com/.well-known/oauth-protected-resource/mcp/"),
            ],
        )],
        meaning: SUSPECT,
    },
    Row {
        origin: "Docker registry",
        lines: &[
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push",error="insufficient_scope""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("realm", "https://auth.docker.io/token"),
                ("service", "registry.docker.io"),
                ("scope", "repository:samalba/my-app:pull,push"),
                ("error", "insufficient_scope"),
            ],
        )],
        meaning: SUSPECT,
    },
    Row {
        origin: "Okta",
        lines: &[
            r#"Bearer authorization_uri="https://example.okta.com/oauth2/v1/authorize", realm="https://example.okta.com", scope="okta.users.read", error="invalid_token", error_description="The access token is invalid.", resource="/api/v1/users""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("authorization_uri", "https://example.okta.com/oauth2/v1/authorize"),
                ("realm", "https://example.okta.com"),
                ("scope", "okta.users.read"),
                ("error", "invalid_token"),
                ("error_description", "The access token is invalid."),
                ("resource", "/api/v1/users"),
            ],
        )],
        meaning: INVALID,
    },
    Row {
        origin: "Keycloak",
        lines: &[r#"Bearer realm="master", error="invalid_token", error_description="Token verification failed""#],
        challenges: &[(
            "Bearer",
            None,
            &[("realm", "master"), ("error", "invalid_token"), ("error_description", "Token verification failed")],
        )],
        meaning: INVALID,
    },
    Row {
        origin: "nginx",
        lines: &[r#"Bearer realm="closed site",error="invalid_token""#],
        challenges: &[("Bearer", None, &[("realm", "closed site"), ("error", "invalid_token")])],
        meaning: INVALID,
    },
    Row {
        origin: "Envoy",
        lines: &[r#"Bearer realm="http://localhost:10000/api", error="invalid_token""#],
        challenges: &[("Bearer", None, &[("realm", "http://localhost:10000/api"), ("error", "invalid_token")])],
        meaning: INVALID,
    },
    Row {
        origin: "Spring Security",
        lines: &[
            r#"Bearer error="invalid_token", error_description="Jwt expired at 2024-01-01T00:00:00Z", error_uri="https://tools.ietf.org/html/rfc6750#section-3.1""#,
        ],
        challenges: &[(
            "Bearer",
            None,
            &[
                ("error", "invalid_token"),
                ("error_description", "Jwt expired at 2024-01-01T00:00:00Z"),
                ("error_uri", "https://tools.ietf.org/html/rfc6750#section-3.1"),
            ],
        )],
        meaning: INVALID,
    },
];
