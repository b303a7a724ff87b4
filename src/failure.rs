//! What a failed attempt means: the verdict, whether the request was sent, and when to come back.
//!
//! One rule stands over all: *permanent only from an OAuth verdict*. A gateway's error page, a broken connection, an
//! answer that is no answer: each may pass, so each is retried, and the ceiling bounds how long.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::BoxError;

mod beneath;
use beneath::beneath;

mod fault;
pub(crate) use fault::fault;

/// Why an attempt to obtain a token failed, and what that means for the next one.
///
/// A [`TokenSource`](crate::TokenSource) that knows better than "it failed, try again" returns one of these, as its error
/// or anywhere in its error's `source()` chain.
///
/// ```
/// use std::time::Duration;
/// use steadfast::{Delivery, IssueError, Verdict};
///
/// let busy = IssueError::transient("the vault is sealed").with_retry_after(Duration::from_secs(30));
/// assert_eq!(busy.verdict(), &Verdict::Transient);
///
/// let revoked = IssueError::rejected("invalid_grant".parse()?, "the user signed out");
/// assert!(matches!(revoked.verdict(), Verdict::Rejected(code) if code == "invalid_grant"));
/// assert_eq!(revoked.delivery(), Delivery::Answered);
///
/// let expired = IssueError::rejected("licence_expired".parse()?, "the licence has expired")
///     .with_rule("licence")
///     .with_remediation("renew the licence");
/// assert_eq!(expired.rule(), "licence");
/// # Ok::<(), steadfast::ParseOAuthCodeError>(())
/// ```
pub struct IssueError {
    verdict: Verdict,
    delivery: Delivery,
    rule: &'static str,
    is_busy: bool,
    retry_after: Option<Duration>,
    client: Option<Box<Client>>,
    remediation: Option<&'static str>,
    cause: Option<BoxError>,
}

/// The client registration that an attempt was made with, so that advice about it can name it.
#[derive(Clone, Debug)]
struct Client {
    id: String,
    issuer: String,
}

impl IssueError {
    /// The failure may pass: retried, bounded by the ceiling.
    pub fn transient(cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Transient, Delivery::Unknown, "source", cause)
    }

    /// The authorization server's final word on this grant: no retry, the host needs new credentials.
    pub fn rejected(code: OAuthCode, cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Rejected(code), Delivery::Answered, "source", cause)
    }

    /// The authorization server answered with a code that it may mean as a verdict or not: retried, and a rejection once the
    /// same code has been repeated over a minute.
    pub fn unconfirmed(code: OAuthCode, cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Unconfirmed(code), Delivery::Answered, "source", cause)
    }

    /// Somebody else is at work on the same login: nothing was sent. Tried again soon, and not counted as a try of the short
    /// retry.
    ///
    /// ```
    /// use steadfast::{Delivery, IssueError};
    ///
    /// let busy = IssueError::busy("another process refreshes this login");
    /// assert!(busy.is_busy());
    /// assert_eq!(busy.delivery(), Delivery::NotSent);
    /// assert!(busy.with_rule("neighbour").is_busy(), "whatever it is called in the log");
    /// ```
    pub fn busy(cause: impl Into<BoxError>) -> Self {
        Self { is_busy: true, ..Self::new(Verdict::Transient, Delivery::NotSent, BUSY, cause) }
    }

    pub(crate) fn new(verdict: Verdict, delivery: Delivery, rule: &'static str, cause: impl Into<BoxError>) -> Self {
        Self { cause: Some(cause.into()), verdict, ..Self::of_rule(delivery, rule) }
    }

    /// A failure that the library itself noticed, with nothing under it.
    pub(crate) const fn of_rule(delivery: Delivery, rule: &'static str) -> Self {
        Self {
            verdict: Verdict::Transient,
            delivery,
            rule,
            is_busy: false,
            retry_after: None,
            client: None,
            remediation: None,
            cause: None,
        }
    }

    /// The attempt was not made, or not to its end, because the monitor was stopped.
    pub(crate) fn cancelled() -> Self {
        Self { verdict: Verdict::Cancelled, ..Self::of_rule(Delivery::NotSent, "stopped") }
    }

    /// How far the request got. Defaults to [`Delivery::Unknown`] for a transient failure, and to
    /// [`Delivery::Answered`] for a verdict.
    #[must_use]
    pub fn with_delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// No attempt before this much time has passed (`Retry-After`, RFC 9110 §10.2.3). Cut to
    /// [`RefreshPolicy::retry_after_cap`](crate::RefreshPolicy::retry_after_cap).
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: impl Into<Option<Duration>>) -> Self {
        self.retry_after = retry_after.into();
        self
    }

    /// The client registration that the attempt was made with. When the server does not know it any more, the advice to the
    /// host names it.
    #[must_use]
    pub fn with_client(mut self, id: &str, issuer: &str) -> Self {
        self.client = Some(Box::new(Client { id: printable(id, 128), issuer: printable(issuer, 128) }));
        self
    }

    /// What a human can do about a final verdict, where the source knows better than the code alone says. Becomes
    /// [`StatusEvent::remediation`](crate::StatusEvent::remediation). Defaults to advice on the code.
    #[must_use]
    pub const fn with_remediation(mut self, remediation: &'static str) -> Self {
        self.remediation = Some(remediation);
        self
    }

    /// A short name for logs of what the source recognised. Defaults to `source`.
    #[must_use]
    pub const fn with_rule(mut self, rule: &'static str) -> Self {
        self.rule = rule;
        self
    }

    /// What the failure means.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// How far the request got.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether the attempt only found somebody else at work.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// The name of the rule that reached the verdict, for logs.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }

    /// How long the server asked us to stay away.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The client registration in words.
    pub(crate) fn client(&self) -> Option<String> {
        self.client.as_ref().map(|client| format!("client {} at {}", client.id, client.issuer))
    }

    pub(crate) const fn remediation(&self) -> Option<&'static str> {
        self.remediation
    }

    /// Wraps what a source returned. An `IssueError` in its chain decides. Anything else is transient, for only the
    /// authorization server's own word is final; `recognise` names the rule that knows it and says how long to stay away.
    pub(crate) fn from_source(
        error: BoxError,
        recognise: impl FnOnce(&(dyn Error + 'static)) -> (&'static str, Option<Duration>),
    ) -> Self {
        let foreign = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(foreign) => foreign,
        };
        let own = chain(&*foreign).find_map(|cause| cause.downcast_ref::<Self>()).map(Self::without_cause);
        let mut wrapped = own.unwrap_or_else(|| {
            let (rule, retry_after) = recognise(&*foreign);
            Self::of_rule(Delivery::Unknown, rule).with_retry_after(retry_after)
        });
        wrapped.cause = Some(foreign);
        wrapped
    }

    fn without_cause(&self) -> Self {
        let Self { verdict, delivery, rule, is_busy, retry_after, client, remediation, cause: _ } = self;
        Self {
            verdict: verdict.clone(),
            delivery: *delivery,
            rule,
            is_busy: *is_busy,
            retry_after: *retry_after,
            client: client.clone(),
            remediation: *remediation,
            cause: None,
        }
    }
}

impl fmt::Debug for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the cause: what a foreign error says may hold anything. Whoever wants it takes it from `source()`.
        let Self { verdict, delivery, rule, is_busy: _, retry_after, client, remediation: _, cause: _ } = self;
        f.debug_struct("IssueError")
            .field("verdict", verdict)
            .field("delivery", delivery)
            .field("rule", rule)
            .field("retry_after", retry_after)
            .field("client", client)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Transient => f.write_str("the attempt to obtain a token failed"),
            Verdict::Unconfirmed(code) => write!(f, "the authorization server answered {code}, not confirmed yet"),
            Verdict::Rejected(code) => match code.own() {
                Some(own) => f.write_str(own),
                None => write!(f, "the authorization server rejected the grant: {code}"),
            },
            Verdict::Replaced => f.write_str("another login has taken this one's place in the store"),
            Verdict::Cancelled => f.write_str("the attempt to obtain a token was cancelled by the shutdown"),
        }
    }
}

impl Error for IssueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// What a failed attempt means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It may pass. Retried, bounded by the ceiling.
    Transient,
    /// `invalid_request`, `access_denied` or a code nobody knows: servers use them for outages as well as for
    /// verdicts. Retried like [`Verdict::Transient`], and a rejection once the same code has been confirmed.
    Unconfirmed(OAuthCode),
    /// The authorization server's final word on this grant.
    Rejected(OAuthCode),
    /// The store holds somebody else's login now. Final, as a rejection is; no server was asked.
    Replaced,
    /// The library's own shutdown: no verdict at all.
    Cancelled,
}

impl Verdict {
    /// One word, for logs and metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::Rejected(_) => "rejected",
            Self::Replaced => "replaced",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) const fn code(&self) -> Option<&OAuthCode> {
        match self {
            Self::Unconfirmed(code) | Self::Rejected(code) => Some(code),
            Self::Transient | Self::Replaced | Self::Cancelled => None,
        }
    }
}

impl Verdict {
    /// Whether attempts end with it.
    pub(crate) const fn is_final(&self) -> bool {
        match self {
            Self::Transient | Self::Unconfirmed(_) => false,
            Self::Rejected(_) | Self::Replaced | Self::Cancelled => true,
        }
    }
}

/// How far a request to the token endpoint got. For a rotating refresh token this decides what a retry may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// The server cannot have seen the request.
    NotSent,
    /// The server, or something in front of it, answered.
    Answered,
    /// The request may have been acted on; no usable answer came back.
    Unknown,
}

impl Delivery {
    /// One word, for logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Answered => "answered",
            Self::Unknown => "unknown",
        }
    }
}

/// An OAuth error code (RFC 6749 §5.2): `[a-z0-9_.-]{1,64}`, so it is safe to print as it is.
///
/// ```
/// use steadfast::OAuthCode;
///
/// assert_eq!(OAuthCode::new("Invalid_Grant").unwrap(), "invalid_grant");
/// assert_eq!(OAuthCode::new("Not Found"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OAuthCode(Arc<str>);

impl OAuthCode {
    /// The code in lower case, or `None` where the text is not of a code's form.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let is_code = (1..=64).contains(&code.len()) && code.bytes().all(fits);
        is_code.then(|| Self(code.to_ascii_lowercase().into()))
    }

    /// The token endpoint issued a token that this library cannot use; our own word, no server's.
    #[cfg(feature = "oauth2")]
    pub(crate) fn unsupported_token_type() -> Self {
        Self("unsupported_token_type".into())
    }

    /// Nobody has signed in (OpenID Connect Core §3.1.2.6); here our own word.
    #[cfg(feature = "oauth2")]
    pub(crate) fn login_required() -> Self {
        Self("login_required".into())
    }

    /// The user has signed out; our own word, no server's.
    #[cfg(feature = "oauth2")]
    pub(crate) fn signed_out() -> Self {
        Self("signed_out".into())
    }

    /// What a code of our own means, about which no server was asked.
    pub(crate) fn own(&self) -> Option<&'static str> {
        match &*self.0 {
            "login_required" => Some("nobody has signed in"),
            "signed_out" => Some("the user has signed out"),
            _ => None,
        }
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for OAuthCode {
    type Err = ParseOAuthCodeError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Self::new(code).ok_or(ParseOAuthCodeError(()))
    }
}

impl AsRef<str> for OAuthCode {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The text is no [`OAuthCode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an OAuth error code has 1 to 64 letters, digits, '_', '.' and '-'")]
pub struct ParseOAuthCodeError(());

impl fmt::Display for OAuthCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<str> for OAuthCode {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for OAuthCode {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// The error and what is under it, to a bounded depth: a `source()` that answers itself must not hang us.
/// Errors that skip what they wrap are looked into.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| beneath(error)).take(MAX_CHAIN)
}

/// Text from the network, fit to be shown: control characters escaped, cut where the result would be longer than
/// `limit` characters.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut room = limit;
    for character in text.chars() {
        let is_hidden = character.is_control() || is_format_character(character);
        let escaped = is_hidden.then(|| character.escape_unicode().to_string());
        let width = escaped.as_ref().map_or(1, String::len);
        if width > room {
            shown.push('…');
            break;
        }
        room = room.saturating_sub(width);
        match escaped {
            Some(escaped) => shown.push_str(&escaped),
            None => shown.push(character),
        }
    }
    shown
}

/// Characters that are invisible or reorder a line, though Unicode does not class them as controls.
const fn is_format_character(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The rule is the mark: what it says and what is done about it cannot drift apart.
const BUSY: &str = "busy";
/// The identity provider's budget is spent: nothing was sent.
pub(crate) const PROVIDER_BUSY: &str = "provider-busy";
/// The identity provider is down, and somebody else probes it: nothing was sent.
pub(crate) const PROVIDER_DOWN: &str = "provider-down";
const MAX_CHAIN: usize = 32;
