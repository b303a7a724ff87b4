//! `WWW-Authenticate` and `Retry-After`: parsed, bounded, never panicking.

use std::{error::Error, fmt, str::FromStr, time::Duration};

use http::{HeaderMap, Uri, header::WWW_AUTHENTICATE};

use crate::{Lifetime, OAuthCode, Origin, failure::printable};

mod parse;

mod meaning;
pub(crate) use meaning::Meaning;

mod retry_after;
pub use retry_after::retry_after;

/// What a resource server asks for when it refuses a request: one challenge of a `WWW-Authenticate` header
/// (RFC 9110 §11.6.1).
///
/// Values come from the network and are handed out as they were sent, unless a method says otherwise. `Debug` is fit for
/// logs: it hides token68 data and every parameter that is not known to be harmless.
///
/// Read with [`Challenge::parse`] or [`Challenge::most_telling`]. A test makes one from text:
///
/// ```
/// use steadfast::Challenge;
///
/// let challenge: Challenge = r#"Bearer realm="example", error="invalid_token""#.parse()?;
/// assert_eq!(challenge.scheme(), "Bearer");
/// assert_eq!(challenge.error(), Some("invalid_token"));
/// # Ok::<_, steadfast::ParseChallengeError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    token68: Option<String>,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// All challenges of a response, in the server's order.
    ///
    /// Several header lines are one list (RFC 9110 §5.3). What is no challenge is passed over, and what could be read of
    /// a broken one is kept. Bounded: 32 challenges of 64 parameters; lines are read while they fit into 64 KiB.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
    /// use steadfast::Challenge;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Negotiate, Basic realm="a, b""#));
    /// headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer scope=read"));
    /// let challenges = Challenge::parse(&headers);
    /// let schemes: Vec<_> = challenges.iter().map(Challenge::scheme).collect();
    /// assert_eq!(schemes, ["Negotiate", "Basic", "Bearer"]);
    /// ```
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Vec<Self> {
        parse::challenges(headers.get_all(WWW_AUTHENTICATE).iter().map(AsRef::as_ref))
    }

    /// The challenge of a response that says most about a token: one with an [`error`](Self::error) before one without,
    /// then `Bearer` and `DPoP` before other schemes, then the server's order.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
    /// use steadfast::Challenge;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="example""#));
    /// headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer error="invalid_token""#));
    /// assert!(Challenge::most_telling(&headers).unwrap().is_scheme("bearer"));
    /// ```
    #[must_use]
    pub fn most_telling(headers: &HeaderMap) -> Option<Self> {
        let rank = |challenge: &Self| (challenge.error().is_none(), !challenge.is_of_a_token());
        Self::parse(headers).into_iter().min_by_key(rank)
    }

    /// The scheme as the server spelt it; never empty. See [`is_scheme`](Self::is_scheme) for comparing.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether this is the challenge's scheme; case does not matter (RFC 9110 §11.1).
    #[must_use]
    pub fn is_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The data after the scheme where they are no parameters (RFC 9110 §11.2), as `Negotiate` sends them. May be secret.
    #[must_use]
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }

    /// A parameter by name, unquoted; the case of the name does not matter (RFC 9110 §11.2). The first of several counts.
    ///
    /// ```
    /// let challenge: steadfast::Challenge = r#"Newauth Title="Login to \"apps\"""#.parse().unwrap();
    /// assert_eq!(challenge.param("title"), Some(r#"Login to "apps""#));
    /// ```
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        let (_, value) = params.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The protection space (RFC 9110 §11.5). Empty is a realm too.
    #[must_use]
    pub fn realm(&self) -> Option<&str> {
        self.param("realm")
    }

    /// The error code (RFC 6750 §3.1), if it has the form of one (see [`OAuthCode`]): safe to print as it is.
    ///
    /// ```
    /// let challenge: steadfast::Challenge = r#"Bearer error="no such token""#.parse().unwrap();
    /// assert_eq!(challenge.error(), None);
    /// assert_eq!(challenge.param("error"), Some("no such token"));
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.param("error").filter(|error| OAuthCode::new(error).is_some())
    }

    /// The server's words on the error (RFC 6750 §3), fit to be shown: control characters escaped, cut to 256 characters.
    ///
    /// They may be secret all the same. Spring Security OAuth, for one, quotes the refused token in them.
    #[must_use]
    pub fn error_description(&self) -> Option<String> {
        self.param("error_description").map(|text| printable(text, MAX_SHOWN))
    }

    /// The scopes that the request needs, separated by blanks (RFC 6750 §3).
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.param("scope")
    }

    /// The authentication contexts that would satisfy the server, separated by blanks, best first (RFC 9470 §3).
    #[must_use]
    pub fn acr_values(&self) -> Option<&str> {
        self.param("acr_values")
    }

    /// How long ago the user may have signed in, at most (RFC 9470 §3). Cut to [`Lifetime::LONGEST`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use steadfast::Challenge;
    ///
    /// let text = r#"Bearer error="insufficient_user_authentication", max_age="5""#;
    /// let challenge: Challenge = text.parse().unwrap();
    /// assert_eq!(challenge.max_age(), Some(Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        let digits = self.param("max_age")?.trim();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // Nothing but digits: what does not parse is too great.
        let seconds = digits.parse().unwrap_or(u64::MAX);
        Some(Duration::from_secs(seconds).min(Lifetime::LONGEST))
    }

    /// Where the server says its metadata are (RFC 9728 §5.1), as it was sent: for reports only.
    ///
    /// Whoever can answer for the resource can put any address here, one of the host's own network included
    /// (RFC 9728 §7.7). Fetch what [`resource_metadata_for`](Self::resource_metadata_for) returns.
    #[must_use]
    pub fn resource_metadata(&self) -> Option<&str> {
        self.param("resource_metadata")
    }

    /// Where the metadata are (RFC 9728 §5.1), if that is on the same origin (scheme, host and port) as the resource that
    /// was asked. This crate never fetches it.
    ///
    /// ```
    /// use steadfast::Challenge;
    ///
    /// let text = r#"Bearer resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    /// let challenge: Challenge = text.parse().unwrap();
    /// let asked = "https://api.example.com/v1/things".parse().unwrap();
    /// assert!(challenge.resource_metadata_for(&asked).is_some());
    /// let other = "https://api.example.org/v1/things".parse().unwrap();
    /// assert_eq!(challenge.resource_metadata_for(&other), None);
    /// ```
    #[must_use]
    pub fn resource_metadata_for(&self, resource: &Uri) -> Option<Uri> {
        // The parsed address is returned, not the text: another parser might see another host in it.
        let metadata: Uri = self.resource_metadata()?.parse().ok()?;
        (Origin::read(&metadata).ok()? == Origin::read(resource).ok()?).then_some(metadata)
    }

    /// The claims that a new token must have (Continuous Access Evaluation, OpenID Connect Core §5.5), as JSON text to pass
    /// on in the token request.
    ///
    /// The parameter is base64 in either alphabet, padded or not; plain JSON is taken as well. `None` unless it
    /// holds what looks like a JSON object of at most 8 KiB.
    ///
    /// ```
    /// let text = r#"Bearer error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#;
    /// let challenge: steadfast::Challenge = text.parse().unwrap();
    /// assert_eq!(challenge.claims().as_deref(), Some(r#"{"access_token":{}}"#));
    /// ```
    #[must_use]
    pub fn claims(&self) -> Option<String> {
        self.param("claims").and_then(meaning::decoded_claims)
    }

    /// Only these schemes give `error` a meaning (RFC 6750 §3, RFC 9449 §7.1).
    fn is_of_a_token(&self) -> bool {
        self.is_scheme("Bearer") || self.is_scheme("DPoP")
    }
}

/// Reads a text that holds exactly one challenge.
impl FromStr for Challenge {
    type Err = ParseChallengeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut read = parse::challenges([text.as_bytes()].into_iter());
        let only = read.pop().filter(|_| read.is_empty());
        only.ok_or(ParseChallengeError(()))
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are shown by a list of the harmless, not hidden by a list of the secret: an unknown scheme may carry
        // anything, a nonce is half of a proof, claims hold the user's address, and descriptions quote the token.
        let param = |(name, value): &(String, String)| {
            let harmless = HARMLESS.contains(&name.as_str());
            let shown = harmless.then(|| printable(value, MAX_SHOWN));
            (printable(name, MAX_SHOWN), shown.unwrap_or_else(|| HIDDEN.to_owned()))
        };
        f.debug_struct("Challenge")
            .field("scheme", &printable(&self.scheme, MAX_SHOWN))
            .field("token68", &self.token68.as_ref().map(|_| HIDDEN))
            .field("params", &self.params.iter().map(param).collect::<Vec<_>>())
            .finish()
    }
}

/// The text is not exactly one challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseChallengeError(());

impl fmt::Display for ParseChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text is not exactly one authentication challenge")
    }
}

impl Error for ParseChallengeError {}

const HARMLESS: [&str; 11] = [
    "acr_values",
    "algs",
    "authorization_uri",
    "charset",
    "error",
    "error_uri",
    "max_age",
    "realm",
    "resource_metadata",
    "scope",
    "service",
];
const HIDDEN: &str = "…";
const MAX_SHOWN: usize = 256;

#[cfg(test)]
mod tests;
