//! The people who use a process: they want tokens, send requests, lose patience, and complain.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::Request;
use http_body_util::Empty;
use steadfast::{AccessToken, AuthError, AuthLayer, AuthStatus, Challenge, IssueError, LayerError, Rejection};
use tokio::time::timeout;

use crate::{
    api::{INVALID, Sent},
    nature::{Nature, locked},
    process::{Kind, Process},
    promises,
    source::Record,
};

impl Process {
    /// Somebody wants a token, and may lose patience at any point.
    pub(crate) fn caller(&self) {
        let Some(tokens) = self.tokens.clone() else { return };
        let (nature, record, newest) =
            (Arc::clone(&self.site.nature), Arc::clone(&self.record), Arc::clone(&self.newest));
        let (limit, kind) = (self.site.policy.caller_wait, self.kind);
        let patience = nature.chance(20).then(|| nature.roll(3));
        let hurry = nature.chance(10).then(|| nature.millis(0, 12_000));
        let after = nature.chance(25).then(|| tokens.try_token().ok()).flatten().map(|token| token.generation());
        let asked = locked(&record.pages).epoch;
        let waiting = Waiting::one(&self.waiting);
        tokio::spawn(async move {
            let _waiting = waiting;
            let (began, before) = (nature.now(), newest.load(Ordering::Relaxed));
            let retrying = matches!(tokens.status(), AuthStatus::AuthRetrying(_));
            let call = async {
                match after {
                    Some(after) => tokens.token_after(after).await,
                    None => tokens.token().await,
                }
            };
            let answer = dropped_after(patience, hurry, call).await;
            let Some(answer) = answer else { return };
            let took = nature.now() - began;
            nature.check(promises::every_caller_is_answered_in_time(took, limit));
            nature.check(promises::callers_fail_fast_in_the_long_window(retrying, took));
            match &answer {
                Ok(token) => {
                    let got = token.generation().get();
                    nature.check(promises::generations_only_grow(before, got));
                    if let Some(after) = after {
                        nature.check(promises::a_token_after_is_newer(after.get(), got));
                    }
                    newest.fetch_max(got, Ordering::Relaxed);
                    record.sees(token.secret(), Some(token));
                    let of = record.token(token.secret()).map_or(0, |token| token.epoch);
                    nature.check(promises::old_credentials_serve_nobody(token.secret(), of, asked));
                }
                Err(error) => tells(&nature, kind, error, &tokens.status(), began == nature.now()),
            }
        });
    }

    /// Somebody sends a request, and has all the time there is if `patient`.
    pub(crate) fn request(&self, patient: bool) {
        let Some(tokens) = self.tokens.clone() else { return };
        let nature = Arc::clone(&self.site.nature);
        let policy = &self.site.policy;
        let limit = policy.caller_wait * 2 + policy.settle + 3 * LONGEST_ANSWER;
        let patience = (!patient && nature.chance(15)).then(|| nature.roll(4));
        let hurry = (!patient && nature.chance(10)).then(|| nature.millis(0, 12_000));
        let kind = self.kind;
        let (replays, sent) = (nature.chance(70), Sent::of(self.kind));
        let target = if patient || nature.chance(95) { ORIGIN } else { "https://elsewhere.example.com/" };
        let layer = AuthLayer::new(tokens.clone(), ORIGIN).unwrap();
        let (once, again) = (layer.clone().wrap(self.api.clone()), layer.replay_once().wrap(self.api.clone()));
        let waiting = Waiting::one(&self.waiting);
        tokio::spawn(async move {
            let _waiting = waiting;
            let began = nature.now();
            let request = Request::get(target).extension(sent).body(Empty::new()).unwrap();
            let answer = if replays {
                dropped_after(patience, hurry, again.send(request)).await
            } else {
                dropped_after(patience, hurry, once.send(request)).await
            };
            let Some(answer) = answer else { return };
            nature.check(promises::every_caller_is_answered_in_time(nature.now() - began, limit));
            match &answer {
                Ok(response) => nature.check(promises::no_secret_in_any_output("a response", &format!("{response:?}"))),
                Err(LayerError::Auth(error)) => tells(&nature, kind, error, &tokens.status(), false),
                Err(error) => {
                    nature.check(promises::no_secret_in_any_output("an error", &format!("{error} {error:?}")))
                }
            }
        });
    }

    /// The host has found out by itself that a token is refused.
    pub(crate) fn reject(&self) {
        let Some(tokens) = &self.tokens else { return };
        let Ok(token) = tokens.try_token() else { return };
        let definite = self.site.nature.chance(60);
        let challenge: Challenge = if definite { INVALID } else { "Bearer" }.parse().unwrap();
        locked(&self.record.pages).refused.insert(token.secret().to_owned());
        for _ in 0..=self.site.nature.roll(3) {
            let answer = tokens.reject(token.generation(), Some(&challenge));
            self.site.nature.note(format_args!("process {}: its host rejects: {answer:?}", self.number));
            self.site.nature.meets(format!("{answer:?}").split('(').next().unwrap_or_default());
            let mut pages = locked(&self.record.pages);
            let proven = pages.accepted.contains(token.secret());
            if definite && !proven && answer == Rejection::Refreshing && self.kind != Kind::Fixed {
                pages.withdrawn.insert(token.secret().to_owned());
            }
        }
    }
}

impl Record {
    /// Somebody has this token in hand, or it is on its way to the resource server.
    pub(crate) fn sees(&self, secret: &str, handed: Option<&AccessToken>) {
        let nature = &self.nature;
        let Some(token) = self.token(secret) else { return };
        if let Some(handed) = handed {
            nature.check(promises::no_secret_in_any_output("a token", &format!("{handed:?}")));
        }
        let withdrawn = locked(&self.pages).withdrawn.contains(secret);
        nature.check(promises::a_withdrawn_token_is_not_seen_again(secret, withdrawn));
        let (mono, wall) = (nature.now(), self.wall());
        nature.check(promises::an_expired_token_is_never_served(secret, &token, mono, wall, &self.policy));
    }
}

/// Counts who still waits for an answer.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn one(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn tells(nature: &Nature, kind: Kind, error: &AuthError, status: &AuthStatus, at_once: bool) {
    let mut text = format!("{error} {error:?} {:?}", error.to_response());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(" {error} {error:?}");
        // What a foreign source says under this is its own affair.
        cause = error.source().filter(|_| !error.is::<IssueError>() || kind != Kind::Own);
    }
    nature.check(promises::no_secret_in_any_output("an error", &text));
    if at_once {
        nature.check(promises::an_error_tells_the_truth(error, status));
    }
}

/// The future's output, unless somebody drops it: after so many polls, or after some time.
async fn dropped_after<T>(polls: Option<usize>, span: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    let polled = std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => match &mut left {
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        },
    });
    match span {
        Some(span) => timeout(span, polled).await.ok().flatten(),
        None => polled.await,
    }
}

/// How long the resource server takes for one answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(9);
const ORIGIN: &str = "https://api.example.com/";
