//! How a caller without a servable token is answered.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;

use super::shared::Shared;
use crate::{
    AccessToken, AuthError, Generation,
    error::Failure,
    machine::Outlook,
    sync::{Handle, timeout},
    telemetry,
};

/// What [`token`](crate::MonitoredTokenSource::token) returns, to be awaited.
///
/// Written out, for an `async fn` would make those who find a valid token carry what those who wait need.
#[must_use = "futures do nothing unless awaited"]
pub struct TokenFuture<'a> {
    shared: &'a Shared,
    after: Option<Generation>,
    waiting: Option<Waiting<'a>>,
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, AuthError>> + Send + 'a>>;

impl<'a> TokenFuture<'a> {
    /// A servable token, one newer than `after` if that is given, or the reason why not. Waits only for an attempt that is
    /// in flight or near, and then for its outcome, which all who wait share.
    pub(super) const fn new(shared: &'a Shared, after: Option<Generation>) -> Self {
        Self { shared, after, waiting: None }
    }

    #[cold]
    fn answer_or_wait(&mut self, context: &mut Context<'_>) -> Poll<Result<AccessToken, AuthError>> {
        let (shared, after) = (self.shared, self.after);
        if let Some(waiting) = &mut self.waiting {
            return waiting.as_mut().poll(context);
        }
        match shared.answer(after, None) {
            Some(answer) => Poll::Ready(answer.inspect_err(|error| shared.meters.failed_fast(error.name()))),
            None => self.waiting.insert(Box::pin(shared.wait(after))).as_mut().poll(context),
        }
    }
}

impl Future for TokenFuture<'_> {
    type Output = Result<AccessToken, AuthError>;

    // Inlined into the caller's own future, where the token then stays in a register.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiting.is_none()
            && let Some(token) = self.shared.servable()
            && self.after.is_none_or(|after| token.generation() > after)
        {
            return Poll::Ready(Ok(token));
        }
        self.answer_or_wait(context)
    }
}

impl fmt::Debug for TokenFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFuture").field("waits", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The token to send now, if there is one.
    pub(crate) fn servable(&self) -> Option<AccessToken> {
        self.view().servable(self.clock.time()).cloned()
    }

    pub(crate) async fn token_within(&self, patience: Duration) -> Result<AccessToken, AuthError> {
        let until = self.clock.now().mono.saturating_add(patience);
        loop {
            let outcome = TokenFuture::new(self, None).await;
            let Some(wait) = outcome.as_ref().err().and_then(AuthError::retry_after) else { return outcome };
            if Handle::try_current().is_err() || self.clock.now().mono.saturating_add(wait) > until {
                return outcome;
            }
            sleep(wait).await;
        }
    }

    async fn wait(&self, after: Option<Generation>) -> Result<AccessToken, AuthError> {
        let patience = match Handle::try_current() {
            Ok(_) => self.policy.caller_wait,
            // Nobody can wait here: there is no timer.
            Err(_) => {
                let error = self.out_of_patience();
                self.meters.failed_fast(error.name());
                return Err(error);
            }
        };
        let outcome = {
            let _counted = self.meters.waiting();
            timeout(patience, self.outcome(after)).await.unwrap_or_else(|_| Err(self.out_of_patience()))
        };
        outcome.inspect_err(|error| telemetry::failed_after_a_wait(&self.name, error.name()))
    }

    async fn outcome(&self, after: Option<Generation>) -> Result<AccessToken, AuthError> {
        let seen = self.view().outcomes;
        loop {
            // Before the look, so that nothing can happen unnoticed between the look and the wait.
            let turned = self.turned.notified();
            if let Some(answer) = self.answer(after, Some(seen)) {
                return answer;
            }
            turned.await;
        }
    }

    /// The answer, unless it pays to wait. `seen` is how many attempts had ended when the caller came.
    fn answer(&self, after: Option<Generation>, seen: Option<u16>) -> Option<Result<AccessToken, AuthError>> {
        // Before the look at the view: what was read by then has been shown by then.
        let is_unread = after.is_some() && self.is_unread();
        let view = self.view();
        let newer = |token: &&AccessToken| after.is_none_or(|after| token.generation() > after);
        if let Some(token) = view.servable(self.clock.time()).filter(newer) {
            return Some(Ok(token.clone()));
        }
        let now = self.clock.now();
        let failed = view.cause.is_some() && seen.is_some_and(|seen| seen != view.outcomes);
        let near = |wait: Duration| wait <= self.policy.blip_wait;
        let waits = !failed
            && match (view.outlook, after) {
                (Outlook::InFlight, _) => true,
                (Outlook::From(start), None) => near(start.remaining(now)) && self.demand(),
                (Outlook::From(_), Some(_)) => {
                    is_unread || view.next_attempt.is_some_and(|next| near(next.remaining(now)))
                }
                (Outlook::FailFast(start), _) => {
                    if after.is_none() && start.is_some_and(|start| start.passed(now)) {
                        self.demand();
                    }
                    false
                }
                (Outlook::Closed, _) => false,
            };
        (!waits).then(|| Err(view.refusal(now)))
    }

    fn demand(&self) -> bool {
        self.ask(|inbox| inbox.demanded = true);
        true
    }

    fn out_of_patience(&self) -> AuthError {
        let cause = self.view().cause.clone();
        AuthError::StillRefreshing(Failure::shared(cause, Some(Duration::from_secs(1))))
    }
}
