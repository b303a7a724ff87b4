//! Tokens: what a source brings in, and what callers are handed out.

use std::{
    fmt,
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::sync::AtomicU8;

/// A number that grows with each token of one handle, across runs.
///
/// It names the token a response was made with, so that a late 401 about an older token can be told
/// from one about the token in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    /// The number itself, for logs and metrics. The first token of a handle has 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// For what was written down, and for a host's own tests.
impl From<NonZeroU64> for Generation {
    fn from(number: NonZeroU64) -> Self {
        Self(number)
    }
}

impl From<Generation> for NonZeroU64 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a [`TokenSource`](crate::TokenSource) returns: a new access token, as the authorization server issued it.
///
/// ```
/// use std::time::Duration;
/// use steadfast::{IssuedToken, Lifetime};
///
/// let token = IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600)).scopes(["repo", "user"]);
/// assert_eq!(token.lifetime(), Lifetime::Known(Duration::from_secs(3600)));
/// assert!(!format!("{token:?}").contains("s3cret"));
/// ```
#[derive(Clone, Debug)]
pub struct IssuedToken {
    secret: SecretString,
    lifetime: Lifetime,
    scopes: Vec<String>,
    unsaved: bool,
}

impl IssuedToken {
    /// A bearer token (RFC 6750) of unknown lifetime.
    #[must_use]
    pub fn bearer(secret: impl Into<String>) -> Self {
        Self {
            secret: SecretString::from(secret.into()),
            lifetime: Lifetime::Unknown,
            scopes: Vec::new(),
            unsaved: false,
        }
    }

    /// How long the token is good for, counted from the moment the request for it was sent
    /// (`expires_in`, RFC 6749 §5.1).
    ///
    /// Takes a [`Duration`], or a [`Lifetime`] where the server's answer was not a clean number. More than ten years is cut to
    /// ten years; a token whose time is over already is not taken up, and the attempt has failed.
    #[must_use]
    pub fn expires_in(mut self, lifetime: impl Into<Lifetime>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// When the token ends, for a source that is told the instant and not the lifetime. Compared with the wall clock of this
    /// machine at the moment the request was sent; [`expires_in`](Self::expires_in) does not depend on that and is the better
    /// one where both are known.
    #[must_use]
    pub fn expires_at(self, at: SystemTime) -> Self {
        self.expires_in(Lifetime::Until(at))
    }

    /// The scopes that were granted (`scope`, RFC 6749 §3.3), if the server named them.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Says that what came with this token, a rotated refresh token, could not be saved: the token is good, but a restart
    /// loses the login until it is. Becomes [`StatusEvent::unsaved`](crate::StatusEvent::unsaved). Defaults to `false`.
    #[must_use]
    pub const fn unsaved(mut self, unsaved: bool) -> Self {
        self.unsaved = unsaved;
        self
    }

    /// The lifetime, as far as it is known.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Whether the login that this token came from could not be saved by the time it came: a restart loses it until it is.
    #[must_use]
    pub const fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    #[cfg(feature = "oauth2")]
    pub(crate) fn granted_scopes(&self) -> &[String] {
        &self.scopes
    }

    /// `None` for a secret that cannot stand in a header.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.expose_secret())).ok()?;
        value.set_sensitive(true);
        // The first clone may move the bytes behind a counter. It is made here, so that no caller pays for it.
        drop(value.clone());
        Some(value)
    }

    /// The token itself. Whoever calls this is answerable for where it goes.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.secret.expose_secret()
    }
}

/// How long an issued token is good for, sanitised on the way in: no value a server can send makes time overflow.
///
/// ```
/// use std::time::Duration;
/// use steadfast::Lifetime;
///
/// assert_eq!(Lifetime::from_secs(3600.0), Lifetime::Known(Duration::from_secs(3600)));
/// assert_eq!(Lifetime::from_text(" 3600 "), Lifetime::Known(Duration::from_secs(3600)));
/// assert_eq!(Lifetime::from_secs(1e300), Lifetime::Known(Lifetime::LONGEST));
/// assert_eq!(Lifetime::from_secs(-1.0), Lifetime::Malformed);
/// assert_eq!(Lifetime::from_text("soon"), Lifetime::Malformed);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lifetime {
    /// The server did not say. [`RefreshPolicy::assumed_lifetime`](crate::RefreshPolicy::assumed_lifetime) decides.
    #[default]
    Unknown,
    /// The server said something that is no lifetime (0, negative, not a number). Taken as
    /// [`Lifetime::Unknown`], and logged.
    Malformed,
    /// This long, counted from the moment the request was sent; what is more than [`Lifetime::LONGEST`] counts as that.
    Known(Duration),
    /// To this instant, by the wall clock.
    Until(SystemTime),
}

impl Lifetime {
    /// Ten years: a longer lifetime is cut to this.
    pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

    /// The lifetime, if it is known without a look at a clock.
    #[must_use]
    pub const fn known(self) -> Option<Duration> {
        match self {
            Self::Known(lifetime) => Some(lifetime),
            Self::Unknown | Self::Malformed | Self::Until(_) => None,
        }
    }

    /// The lifetime of a token that was asked for at this time since the Unix epoch, if it is known.
    pub(crate) fn counted_from(self, sent: Duration) -> Option<Duration> {
        let lifetime = match self {
            Self::Known(lifetime) => lifetime,
            Self::Until(end) => end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(sent),
            Self::Unknown | Self::Malformed => return None,
        };
        Some(lifetime.min(Self::LONGEST))
    }

    /// From a JSON number, in seconds. No server means zero: that is [`Lifetime::Malformed`].
    #[must_use]
    pub fn from_secs(seconds: f64) -> Self {
        if seconds.is_nan() {
            return Self::Malformed;
        }
        // Clamped before the conversion: `Duration::from_secs_f64` panics on what servers really send.
        match Duration::from_secs_f64(seconds.clamp(0.0, Self::LONGEST.as_secs_f64())) {
            Duration::ZERO => Self::Malformed,
            lifetime => Self::Known(lifetime),
        }
    }

    /// From a JSON string that holds a number of seconds, as some servers send it.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        text.trim().parse::<f64>().map_or(Self::Malformed, Self::from_secs)
    }
}

impl From<Duration> for Lifetime {
    fn from(lifetime: Duration) -> Self {
        Self::Known(lifetime.min(Self::LONGEST))
    }
}

/// What callers are handed: the token to send now, ready to be attached. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
/// use steadfast::{IssuedToken, MonitoredTokenSource};
///
/// let tokens = MonitoredTokenSource::builder(|| async { Ok(IssuedToken::bearer("s3cret")) }).spawn()?;
/// let token = tokens.token().await?;
/// assert_eq!(token.authorization(), "Bearer s3cret");
/// assert!(token.authorization().is_sensitive());
/// assert_eq!(token.generation().get(), 1);
/// assert!(!format!("{token:?}").contains("s3cret"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AccessToken(Arc<Held>);

struct Held {
    secret: SecretString,
    authorization: HeaderValue,
    generation: Generation,
    scopes: Vec<String>,
    expires_at: Option<SystemTime>,
    serve_until: Option<SystemTime>,
    settled_from: Duration,
    standing: AtomicU8,
}

impl AccessToken {
    /// The token itself. Whoever calls this is answerable for where it goes.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.0.secret.expose_secret()
    }

    /// The value of the `Authorization` header (RFC 6750 §2.1), built once for the token and marked sensitive.
    #[must_use]
    #[inline]
    pub fn authorization(&self) -> HeaderValue {
        self.0.authorization.clone()
    }

    /// The token's name, to tell [`reject`](crate::MonitoredTokenSource::reject) and
    /// [`accept`](crate::MonitoredTokenSource::accept) which token a response was made with.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// When the token expires, by the wall clock; `None` if nobody knows.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires_at
    }

    /// The scopes that were granted, if the server named them.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    pub(crate) fn new(issued: IssuedToken, authorization: HeaderValue, term: Term) -> Self {
        let Term { generation, expires_at, serve_until, settled_from } = term;
        Self(Arc::new(Held {
            secret: issued.secret,
            authorization,
            generation,
            scopes: issued.scopes,
            expires_at,
            serve_until,
            settled_from,
            standing: AtomicU8::new(0),
        }))
    }

    /// Whether the token may be sent at this instant of the wall clock. The monotonic clock has its say elsewhere: the
    /// driver takes a token that has ended by it away from readers.
    pub(crate) fn is_servable(&self, at: SystemTime) -> bool {
        self.0.serve_until.is_none_or(|until| at < until) && self.0.standing.load(Ordering::Acquire) & WITHDRAWN == 0
    }

    pub(crate) fn settled_from(&self) -> Duration {
        self.0.settled_from
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.0.standing.load(Ordering::Relaxed) & ACCEPTED != 0
    }

    /// Whether a resource server ever accepted it, whatever it said afterwards.
    pub(crate) fn is_proven(&self) -> bool {
        self.0.standing.load(Ordering::Relaxed) & PROVEN != 0
    }

    /// Whether the resource server's last word on it is a refusal.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.standing.load(Ordering::Acquire) & (REFUSED | WITHDRAWN) != 0
    }

    /// `true` for the one caller who is the first to say so.
    pub(crate) fn accept(&self) -> bool {
        self.change(|standing| (standing | ACCEPTED | PROVEN) & !REFUSED)
    }

    /// Whether [`refuse`](Self::refuse) would change nothing.
    pub(crate) fn is_refused_already(&self, withdraw: bool) -> bool {
        let standing = self.0.standing.load(Ordering::Acquire);
        refused(standing, withdraw) == standing
    }

    /// `true` for the one caller who is the first to say so.
    pub(crate) fn refuse(&self, withdraw: bool) -> bool {
        self.change(|standing| refused(standing, withdraw))
    }

    fn change(&self, change: impl Fn(u8) -> u8) -> bool {
        let changed = |standing| Some(change(standing)).filter(|new| *new != standing);
        self.0.standing.fetch_update(Ordering::AcqRel, Ordering::Acquire, changed).is_ok()
    }
}

const fn refused(standing: u8, withdraw: bool) -> u8 {
    (standing | if withdraw { REFUSED | WITHDRAWN } else { REFUSED }) & !ACCEPTED
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.0.generation)
            .field("expires_at", &self.0.expires_at)
            .finish_non_exhaustive()
    }
}

/// From when to when a token counts, and under which name.
pub(crate) struct Term {
    pub(crate) generation: Generation,
    pub(crate) expires_at: Option<SystemTime>,
    /// By the wall clock; `None` for a token that nobody knows an end of.
    pub(crate) serve_until: Option<SystemTime>,
    /// Since the monitor began; a refusal before this may only mean that the news of the token has not spread.
    pub(crate) settled_from: Duration,
}

// The marks live in the token they are about: a mark can thus never hit the next token, and a token that was withdrawn
// cannot come back through a view of the state that was drawn up a moment earlier.
const ACCEPTED: u8 = 1;
const PROVEN: u8 = 2;
const REFUSED: u8 = 4;
const WITHDRAWN: u8 = 8;
