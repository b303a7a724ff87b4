//! Tokens: what a source brings in, and what callers are handed out.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};

/// A number that grows with each token of one handle, across runs.
///
/// It names the token a response was made with, so that a late 401 about an older token can be told
/// from one about the token in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    pub(crate) const FIRST: Self = Self(1);

    /// The number itself, for logs and metrics. The first token of a handle has 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
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
}

impl IssuedToken {
    /// A bearer token (RFC 6750) of unknown lifetime.
    #[must_use]
    pub fn bearer(secret: impl Into<String>) -> Self {
        Self { secret: SecretString::from(secret.into()), lifetime: Lifetime::Unknown, scopes: Vec::new() }
    }

    /// How long the token is good for, counted from the moment the request for it was sent
    /// (`expires_in`, RFC 6749 §5.1).
    ///
    /// Takes a [`Duration`], or a [`Lifetime`] where the server's answer was not a clean number. Zero is
    /// [`Lifetime::Malformed`], and more than ten years is cut to ten years.
    #[must_use]
    pub fn expires_in(mut self, lifetime: impl Into<Lifetime>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// The scopes that were granted (`scope`, RFC 6749 §3.3), if the server named them.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// The lifetime, as far as it is known.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// The server did not say. [`RefreshPolicy::assumed_lifetime`](crate::RefreshPolicy::assumed_lifetime) decides.
    #[default]
    Unknown,
    /// The server said something that is no lifetime (0, negative, not a number). Taken as
    /// [`Lifetime::Unknown`], and logged.
    Malformed,
    /// The server said this; never zero, never more than [`Lifetime::LONGEST`].
    Known(Duration),
}

impl Lifetime {
    /// Ten years: a longer lifetime is cut to this.
    pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

    /// From a JSON number, in seconds.
    #[must_use]
    pub fn from_secs(seconds: f64) -> Self {
        if seconds.is_nan() {
            return Self::Malformed;
        }
        // Clamped before the conversion: `Duration::from_secs_f64` panics on what servers really send.
        Duration::from_secs_f64(seconds.clamp(0.0, Self::LONGEST.as_secs_f64())).into()
    }

    /// From a JSON string that holds a number of seconds, as some servers send it.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        text.trim().parse::<f64>().map_or(Self::Malformed, Self::from_secs)
    }
}

impl From<Duration> for Lifetime {
    fn from(lifetime: Duration) -> Self {
        if lifetime.is_zero() { Self::Malformed } else { Self::Known(lifetime.min(Self::LONGEST)) }
    }
}
