//! Probe results and statuses as the health of a backend.
//!
//! A probe carries no user's credentials. So a backend that sits behind authentication and answers a probe with a challenge
//! has just proved that it is up, and to report it as broken would be crying wolf for as long as it runs. Where *no*
//! outgoing authentication is configured the same challenge is a misconfiguration that somebody has to be told about.
//!
//! ```
//! use std::time::Duration;
//! use steadfast::health::{Health, OutgoingAuth, assess};
//!
//! let challenge = std::io::Error::other("HTTP status client error (401 Unauthorized)");
//! let quick = Duration::from_millis(30);
//!
//! let behind_auth = assess(Err(&challenge), quick, OutgoingAuth::HeaderInjection);
//! assert_eq!(behind_auth, Health::Healthy);
//!
//! let misconfigured = assess(Err(&challenge), quick, OutgoingAuth::None);
//! assert_eq!(misconfigured, Health::Unauthenticated);
//! ```
//!
//! A probe that never left this side proves nothing of the kind. Where the way to a token was refused
//! ([`Classified::is_of_token_path`](crate::classify::Classified::is_of_token_path): an `AuthError`, an `invalid_grant` …) the
//! backend is [`Health::Unauthenticated`], whatever is configured.
//!
//! | the probe | without outgoing auth | with outgoing auth |
//! |---|---|---|
//! | succeeded | `Healthy` | `Healthy` |
//! | succeeded, slower than the threshold | `Degraded` | `Degraded` |
//! | authentication or authorization error | `Unauthenticated` | `Healthy` |
//! | the same, on the way to a token | `Unauthenticated` | `Unauthenticated` |
//! | rate limited | `Degraded` | `Degraded` |
//! | time-out, unavailable, cancelled, unknown error | `Unhealthy` | `Unhealthy` |

use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use crate::{
    AuthStatus, StopReason,
    classify::{Class, Classifier},
    telemetry::{HEALTH, seconds},
};

/// How a backend is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// Up, and as quick as it should be.
    Healthy,
    /// Up, but slow or turning requests away.
    Degraded,
    /// Up, but it wants credentials that nobody has configured, or that are no longer good. A human is needed.
    Unauthenticated,
    /// Not to be used.
    Unhealthy,
}

impl Health {
    /// Whether requests may be sent there.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }

    /// The health in lower case, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unauthenticated => "unauthenticated",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// `Unknown` is no failure: nothing has been learnt.
    const fn is_failure(self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Unhealthy)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The health of the way to a token. A backend that needs the token is no better than that.
impl From<&AuthStatus> for Health {
    fn from(status: &AuthStatus) -> Self {
        match status {
            AuthStatus::Pending => Self::Unknown,
            AuthStatus::Running => Self::Healthy,
            AuthStatus::AuthRetrying(_) => Self::Degraded,
            AuthStatus::Unauthenticated(_) => Self::Unauthenticated,
            // Nobody uses it, so nobody knows.
            AuthStatus::Stopped(StopReason::Idle) => Self::Unknown,
            AuthStatus::Stopped(
                StopReason::ShutDown
                | StopReason::HandlesDropped
                | StopReason::DriverPanicked
                | StopReason::DriverDropped,
            ) => Self::Unhealthy,
        }
    }
}

/// How requests to a backend get their credentials. Probes are sent without them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutgoingAuth {
    /// Not at all.
    #[default]
    None,
    /// A header with a configured secret is added.
    HeaderInjection,
    /// The caller's token is exchanged for one of the backend (RFC 8693).
    TokenExchange,
    /// A token that the caller got from an upstream provider is added.
    UpstreamInjection,
}

impl OutgoingAuth {
    /// Whether a challenge to a bare probe is what one expects.
    const fn is_configured(self) -> bool {
        match self {
            Self::None => false,
            Self::HeaderInjection | Self::TokenExchange | Self::UpstreamInjection => true,
        }
    }
}

/// Assesses one probe with the [standard classifier](Classifier::standard) and the default threshold; see [`Assessor`].
#[must_use]
pub fn assess(result: Result<(), &(dyn Error + 'static)>, elapsed: Duration, outgoing: OutgoingAuth) -> Health {
    Assessor::new().assess(result, elapsed, outgoing)
}

/// Assesses probes, with a classifier and a threshold of the host's choice.
///
/// ```
/// use std::time::Duration;
/// use steadfast::health::{Assessor, Health, OutgoingAuth};
///
/// let assessor = Assessor::new().slow_after(Duration::from_millis(200));
/// let health = assessor.assess(Ok(()), Duration::from_millis(250), OutgoingAuth::None);
/// assert_eq!(health, Health::Degraded);
/// ```
#[derive(Clone, Debug)]
pub struct Assessor {
    classifier: Classifier,
    slow_after: Duration,
}

impl Assessor {
    /// The standard classifier, and 5 s.
    #[must_use]
    pub const fn new() -> Self {
        Self { classifier: Classifier::standard(), slow_after: Duration::from_secs(5) }
    }

    /// What reads the errors. Defaults to [`Classifier::standard`].
    #[must_use]
    pub fn classifier(mut self, classifier: Classifier) -> Self {
        self.classifier = classifier;
        self
    }

    /// A success that took longer than this is [`Health::Degraded`]. Defaults to 5 s; [`Duration::MAX`] turns it off.
    #[must_use]
    pub const fn slow_after(mut self, threshold: Duration) -> Self {
        self.slow_after = threshold;
        self
    }

    /// What one probe says about the backend's health.
    #[must_use]
    pub fn assess(
        &self,
        result: Result<(), &(dyn Error + 'static)>,
        elapsed: Duration,
        outgoing: OutgoingAuth,
    ) -> Health {
        match result {
            Ok(()) if elapsed > self.slow_after => Health::Degraded,
            Ok(()) => Health::Healthy,
            Err(error) => {
                let classified = self.classifier.classify(error);
                let challenge_expected = outgoing.is_configured() && !classified.is_of_token_path();
                match classified.class() {
                    Class::Authentication | Class::Authorization if challenge_expected => Health::Healthy,
                    Class::Authentication | Class::Authorization => Health::Unauthenticated,
                    Class::RateLimited => Health::Degraded,
                    Class::Timeout | Class::Cancelled | Class::Unavailable | Class::Unknown => Health::Unhealthy,
                }
            }
        }
    }
}

impl Default for Assessor {
    fn default() -> Self {
        Self::new()
    }
}

/// Follows one backend's health over many probes, and logs when it changes; not every probe.
///
/// One failed probe proves little: a backend that was up stays up until the failures in a row reach the threshold. One probe
/// that succeeds ends the row. Both kinds of failure, `Unauthenticated` and `Unhealthy`, count in the same row, and beyond the
/// threshold every change from one to the other is a transition: a backend that alternates between them is logged each time.
/// Time is the caller's: the tracker reads no clock.
///
/// ```
/// use std::time::{Duration, Instant};
/// use steadfast::health::{Health, HealthTracker};
///
/// # #[allow(clippy::disallowed_methods)]
/// let start = Instant::now();
/// let mut tracker = HealthTracker::new("github").unhealthy_after(2);
/// tracker.record(Health::Healthy, start);
///
/// let later = start + Duration::from_secs(30);
/// assert!(tracker.record(Health::Unhealthy, later).is_none());
/// assert_eq!(tracker.health(), Health::Healthy);
///
/// let change = tracker.record(Health::Unhealthy, later + Duration::from_secs(30)).unwrap();
/// assert_eq!((change.from, change.to), (Health::Healthy, Health::Unhealthy));
/// assert_eq!(change.lasted, Some(Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug)]
pub struct HealthTracker {
    name: String,
    unhealthy_after: u32,
    health: Health,
    since: Option<Instant>,
    consecutive_failures: u32,
}

/// A change of health, as [`HealthTracker::record`] answers and logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// What it was.
    pub from: Health,
    /// What it is now.
    pub to: Health,
    /// How long it was that; `None` for the first change.
    pub lasted: Option<Duration>,
    /// The failed probes in a row that led here.
    pub consecutive_failures: u32,
}

impl HealthTracker {
    /// A tracker of a backend that nothing is known about. The name goes into the log.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), unhealthy_after: 3, health: Health::Unknown, since: None, consecutive_failures: 0 }
    }

    /// How many probes in a row must fail before the health follows them. Defaults to 3; 0 is taken for 1.
    #[must_use]
    pub const fn unhealthy_after(mut self, failures: u32) -> Self {
        self.unhealthy_after = failures;
        self
    }

    /// Takes in one probe. Answers the change of health, if it brought one, and logs that.
    pub fn record(&mut self, probe: Health, now: Instant) -> Option<Transition> {
        if probe == Health::Unknown {
            return None;
        }
        if probe.is_failure() {
            self.consecutive_failures = self.consecutive_failures.saturating_add(1);
            if self.consecutive_failures < self.unhealthy_after {
                return None;
            }
        } else {
            self.consecutive_failures = 0;
        }
        if probe == self.health {
            return None;
        }
        let transition = Transition {
            from: self.health,
            to: probe,
            lasted: self.lasted(now),
            consecutive_failures: self.consecutive_failures,
        };
        self.health = probe;
        self.since = Some(now);
        self.log(transition);
        Some(transition)
    }

    /// The health now.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// The failed probes in a row, up to the last one.
    #[must_use]
    pub const fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures
    }

    /// How long the health has been what it is; `None` while nothing is known.
    #[must_use]
    pub fn lasted(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.since?))
    }

    fn log(&self, transition: Transition) {
        let Transition { from, to, lasted, consecutive_failures } = transition;
        let (backend, from, lasted) = (&*self.name, from.as_str(), lasted.map(seconds));
        let is_usable = to.is_usable();
        let to = to.as_str();
        if is_usable {
            tracing::info!(target: HEALTH, backend, from, to, lasted, "the health of a backend changed");
        } else {
            tracing::warn!(
                target: HEALTH,
                backend,
                from,
                to,
                lasted,
                consecutive_failures,
                "the health of a backend changed"
            );
        }
    }
}
