//! Monitors and sources for both programs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use steadfast::{
    BoxError, Builder, IssueError, IssuedToken, MonitoredTokenSource, OAuthCode, RefreshPolicy, TokenSource,
    TracingSink, testing::TestClock,
};

pub(crate) fn monitor(
    source: impl TokenSource,
    name: &str,
    describe: impl FnOnce(Builder) -> Builder,
) -> MonitoredTokenSource {
    let builder = MonitoredTokenSource::builder(source).name(name).clock(&TestClock::new()).jitter_seed(7);
    describe(builder.policy(RefreshPolicy::DEFAULT).sink(TracingSink)).spawn().unwrap()
}

/// These, one after the other; when there are no more, a 503.
pub(crate) fn answers(answers: impl IntoIterator<Item = Result<IssuedToken, BoxError>>) -> impl TokenSource {
    let answers: Vec<_> = answers.into_iter().collect();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    move || {
        let answer = answers.lock().unwrap().next().unwrap_or_else(refused);
        async { answer }
    }
}

/// Another token each time.
pub(crate) fn fresh() -> impl TokenSource {
    let count = AtomicUsize::new(0);
    move || {
        let secret = format!("token-{}", count.fetch_add(1, Ordering::Relaxed));
        async { Ok(IssuedToken::bearer(secret).expires_in(secs(3600))) }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a source answers")]
pub(crate) fn issued() -> Result<IssuedToken, BoxError> {
    Ok(IssuedToken::bearer("s3cret").expires_in(secs(3600)))
}

pub(crate) fn refused() -> Result<IssuedToken, BoxError> {
    Err(IssueError::transient("503").into())
}

pub(crate) fn rejected() -> Result<IssuedToken, BoxError> {
    Err(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "400").into())
}

pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}
