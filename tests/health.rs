//! What a probe says about a backend, and what many of them do.
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test may

use std::{
    error::Error,
    fmt, io,
    time::{Duration, Instant},
};

use steadfast::{
    AuthStatus, IssueError, MonitoredTokenSource, OAuthCode, RetryCause, StopReason, UnauthenticatedReason,
    classify::{Class, Classifier},
    health::{Assessor, Health, HealthTracker, OutgoingAuth, assess},
};

/// {how requests get their credentials} × {what the probe brought}.
#[test]
fn a_challenge_is_a_sign_of_life_where_authentication_is_configured() {
    use Health::{Degraded, Healthy, Unauthenticated, Unhealthy};
    use OutgoingAuth::{HeaderInjection, None, TokenExchange, UpstreamInjection};

    let outgoing = [None, HeaderInjection, TokenExchange, UpstreamInjection];
    let matrix: [(&str, Probe, [Health; 4]); 9] = [
        ("sentinel", failed(Sentinel), [Unauthenticated, Healthy, Healthy, Healthy]),
        ("wrapped sentinel", failed(Wrapped(Sentinel.into())), [Unauthenticated, Healthy, Healthy, Healthy]),
        ("text only", failed(io::Error::other("unauthorized (401)")), [Unauthenticated, Healthy, Healthy, Healthy]),
        ("403", failed(io::Error::other("403 Forbidden")), [Unauthenticated, Healthy, Healthy, Healthy]),
        ("time-out", failed(io::Error::from(io::ErrorKind::TimedOut)), [Unhealthy; 4]),
        ("refused", failed(io::Error::from(io::ErrorKind::ConnectionRefused)), [Unhealthy; 4]),
        ("unknown", failed(io::Error::other("the flux is out of phase")), [Unhealthy; 4]),
        ("nil", Probe { error: Option::None, took: QUICK }, [Healthy; 4]),
        ("slow success", Probe { error: Option::None, took: SLOW }, [Degraded; 4]),
    ];
    let assessor = Assessor::new().classifier(Classifier::standard().on(|_: &Sentinel| Some(Class::Authentication)));

    for (name, probe, expected) in matrix {
        let assessed = outgoing.map(|outgoing| assessor.assess(probe.result(), probe.took, outgoing));
        assert_eq!(assessed, expected, "{name}");
    }
}

/// Nothing was sent to the backend, so nothing was learnt from it; and somebody has to see to the credentials.
#[test]
fn a_refusal_on_the_way_to_a_token_is_no_sign_of_life() {
    use OutgoingAuth::{HeaderInjection, None, TokenExchange, UpstreamInjection};

    let rejected = || IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "signed out");
    let assessor = Assessor::new().classifier(
        Classifier::standard().on(|wrapped: &Wrapped| wrapped.0.is::<IssueError>().then_some(Class::Authentication)),
    );

    for (name, probe) in [
        ("rejected", failed(rejected())),
        ("rejected, in a wrapper", failed(io::Error::other(rejected()))),
        ("rejected, by the host's own rule", failed(Wrapped(rejected().into()))),
    ] {
        for outgoing in [None, HeaderInjection, TokenExchange, UpstreamInjection] {
            let health = assessor.assess(probe.result(), probe.took, outgoing);
            assert_eq!(health, Health::Unauthenticated, "{name}, {outgoing:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_gets_no_token_is_no_sign_of_life() {
    let revoked = || async { Err(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "signed out").into()) };
    let tokens = MonitoredTokenSource::builder(revoked).spawn().unwrap();
    let error = tokens.token().await.unwrap_err();
    assert_eq!(assess(Err(&error), QUICK, OutgoingAuth::TokenExchange), Health::Unauthenticated);
}

#[cfg(feature = "oauth2")]
#[tokio::test]
async fn an_oauth_code_is_no_sign_of_life_whichever_library_brought_it() {
    use oauth2::{RequestTokenError, basic::BasicErrorResponse};
    use steadfast::{IssueReason, IssueRequest, TokenSource, oauth};

    const CODE: &str = r#"{"error":"invalid_grant"}"#;
    let http = |_: http::Request<Vec<u8>>| async {
        let answer = http::Response::builder().status(400).body(CODE.into());
        answer.map_err(oauth::TransportError::unknown)
    };
    let grant = oauth::RefreshTokenGrant::builder("https://login.example.com/token", "app", "rt").http(http);
    let ours = grant.build().unwrap().issue(&IssueRequest::new(IssueReason::Initial)).await.unwrap_err();
    let facts = ours.source().unwrap();
    assert_eq!(assess(Err(facts), QUICK, OutgoingAuth::TokenExchange), Health::Unauthenticated);

    let answer: BasicErrorResponse = serde_json::from_str(CODE).unwrap();
    let theirs = RequestTokenError::<oauth2::HttpClientError<io::Error>, _>::ServerResponse(answer);
    assert_eq!(assess(Err(&theirs), QUICK, OutgoingAuth::TokenExchange), Health::Unauthenticated);
}

#[test]
fn a_status_is_the_health_of_the_way_to_a_token() {
    for (status, health) in [
        (AuthStatus::Pending, Health::Unknown),
        (AuthStatus::Running, Health::Healthy),
        (AuthStatus::AuthRetrying(RetryCause::TokenEndpoint), Health::Degraded),
        (AuthStatus::Unauthenticated(UnauthenticatedReason::RejectedByResource), Health::Unauthenticated),
        (AuthStatus::Stopped(StopReason::Idle), Health::Unknown),
        (AuthStatus::Stopped(StopReason::ShutDown), Health::Unhealthy),
    ] {
        assert_eq!(Health::from(&status), health);
    }
}

#[test]
fn a_backend_that_turns_requests_away_is_up() {
    let throttled = io::Error::other("429 Too Many Requests");
    assert_eq!(assess(Err(&throttled), QUICK, OutgoingAuth::None), Health::Degraded);
}

#[test]
fn a_success_as_slow_as_the_threshold_is_not_slow_yet() {
    let assessor = Assessor::new().slow_after(QUICK);
    assert_eq!(assessor.assess(Ok(()), QUICK, OutgoingAuth::None), Health::Healthy);
    assert_eq!(assessor.assess(Ok(()), QUICK + Duration::from_nanos(1), OutgoingAuth::None), Health::Degraded);
}

#[test]
fn failures_count_only_in_a_row() {
    let mut tracker = HealthTracker::new("backend");
    let now = start();
    tracker.record(Health::Healthy, now);
    for _ in 0..5 {
        assert_eq!(tracker.record(Health::Unhealthy, now), None);
        assert_eq!(tracker.record(Health::Unhealthy, now), None);
        assert_eq!(tracker.consecutive_failures(), 2);
        assert_eq!(tracker.record(Health::Healthy, now), None);
        assert_eq!(tracker.consecutive_failures(), 0);
    }
    assert_eq!(tracker.health(), Health::Healthy);
}

#[test]
fn the_third_failure_in_a_row_changes_the_health_and_one_success_changes_it_back() {
    let mut tracker = HealthTracker::new("backend");
    let up = start();
    tracker.record(Health::Healthy, up);
    let down = up + Duration::from_secs(90);
    tracker.record(Health::Unhealthy, down);
    tracker.record(Health::Unhealthy, down);

    let fell = tracker.record(Health::Unhealthy, down).expect("a transition");
    assert_eq!((fell.from, fell.to), (Health::Healthy, Health::Unhealthy));
    assert_eq!((fell.lasted, fell.consecutive_failures), (Some(Duration::from_secs(90)), 3));

    let again = down + Duration::from_secs(30);
    let rose = tracker.record(Health::Degraded, again).expect("a transition");
    assert_eq!((rose.from, rose.to), (Health::Unhealthy, Health::Degraded));
    assert_eq!(tracker.lasted(again + Duration::from_secs(5)), Some(Duration::from_secs(5)));
}

#[test]
fn a_probe_that_learnt_nothing_changes_nothing() {
    let mut tracker = HealthTracker::new("backend").unhealthy_after(2);
    tracker.record(Health::Unhealthy, start());
    assert_eq!(tracker.record(Health::Unknown, start()), None);
    assert_eq!(tracker.consecutive_failures(), 1);
    assert_eq!((tracker.health(), tracker.lasted(start())), (Health::Unknown, None));
}

#[test]
fn time_that_runs_backwards_is_no_time() {
    let mut tracker = HealthTracker::new("backend");
    tracker.record(Health::Healthy, start() + Duration::from_secs(1));
    assert_eq!(tracker.lasted(start()), Some(Duration::ZERO));
}

/// Once the threshold is reached each change of kind is news: credentials help against one of the two only.
#[test]
fn beyond_the_threshold_every_change_from_one_kind_of_failure_to_the_other_is_a_transition() {
    let mut tracker = HealthTracker::new("backend").unhealthy_after(2);
    tracker.record(Health::Healthy, start());
    assert_eq!(tracker.record(Health::Unhealthy, start()), None);

    let mut changes = Vec::new();
    for probe in [Health::Unauthenticated, Health::Unauthenticated, Health::Unhealthy, Health::Unauthenticated] {
        changes.push(tracker.record(probe, start()).map(|change| (change.to, change.consecutive_failures)));
    }
    let expected =
        [Some((Health::Unauthenticated, 2)), None, Some((Health::Unhealthy, 4)), Some((Health::Unauthenticated, 5))];
    assert_eq!(changes, expected);
}

struct Probe {
    error: Option<Box<dyn Error>>,
    took: Duration,
}

impl Probe {
    fn result(&self) -> Result<(), &(dyn Error + 'static)> {
        self.error.as_deref().map_or(Ok(()), Err)
    }
}

fn failed(error: impl Error + 'static) -> Probe {
    Probe { error: Some(Box::new(error)), took: QUICK }
}

/// What a host's own client returns for a challenge. Its text says nothing.
#[derive(Debug)]
struct Sentinel;

impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("come back with a pass")
    }
}

impl Error for Sentinel {}

#[derive(Debug)]
struct Wrapped(Box<dyn Error>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe failed")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Any instant will do; it never passes.
fn start() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods)] // there is no other way to come by an instant
    *START.get_or_init(Instant::now)
}

const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(6);
