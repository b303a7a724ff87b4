//! Origins: where a token may go.

use std::{convert::Infallible, fmt, net::Ipv6Addr, str::FromStr};

use http::{Uri, uri::Scheme};

/// Where a token may go: a scheme, a host and a port (RFC 6454 §4, RFC 9110 §4.3.2).
///
/// ```
/// use steadfast::{Origin, OriginError};
///
/// let origin: Origin = "https://API.example.com:443".parse()?;
/// assert_eq!(origin, "https://api.example.com".parse()?);
/// assert_eq!(origin.to_string(), "https://api.example.com");
/// assert_eq!("http://api.example.com".parse::<Origin>(), Err(OriginError::Cleartext));
/// assert!("http://127.0.0.1:8080".parse::<Origin>().is_ok());
/// # Ok::<_, OriginError>(())
/// ```
///
/// The rules, for origins and for the URLs of requests:
///
/// - The case of scheme and host does not matter, nor whether a default port is written out. An IPv6 address is compared
///   by its value.
/// - Everything else does: a sub-domain, a trailing dot and `localhost` instead of `127.0.0.1` are other origins.
/// - Hosts are ASCII. An international name is written in punycode (`xn--…`), as it is on the wire; `reqwest` does so by
///   itself.
/// - What parsers could understand in different ways is no origin: user information before an `@`, an empty port, a
///   port above 65535.
/// - Plain http only to loopback: `localhost`, `127.0.0.0/8` and `[::1]`. See
///   [`danger_plain_http`](Self::danger_plain_http).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    secure: bool,
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Host {
    /// In lower case. An IPv4 address has one spelling only, so it is here too.
    Name(Box<str>),
    V6(Ipv6Addr),
}

impl Origin {
    /// The origin of a URL, whatever its path and query.
    ///
    /// ```
    /// use steadfast::Origin;
    ///
    /// let upstream = "https://api.example.com/v1?page=2".parse()?;
    /// assert_eq!(Origin::of(&upstream)?.to_string(), "https://api.example.com");
    /// # Ok::<_, steadfast::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// [`OriginError`], for what is no absolute http(s) URL, and for plain http beyond loopback.
    pub fn of(url: &Uri) -> Result<Self, OriginError> {
        let origin = Self::read(url)?;
        if origin.secure || origin.is_loopback() { Ok(origin) } else { Err(OriginError::Cleartext) }
    }

    /// An origin to which tokens are sent **in the clear**: everybody on the way can read them and use them.
    ///
    /// For networks where something else encrypts, such as a service mesh.
    ///
    /// ```
    /// use steadfast::Origin;
    ///
    /// let origin = Origin::danger_plain_http("http://orders.mesh.internal:8080")?;
    /// assert_eq!(origin.to_string(), "http://orders.mesh.internal:8080");
    /// # Ok::<_, steadfast::OriginError>(())
    /// ```
    ///
    /// # Errors
    /// As for other origins, but for [`OriginError::Cleartext`].
    pub fn danger_plain_http(origin: &str) -> Result<Self, OriginError> {
        let url: Uri = origin.parse().map_err(|_| OriginError::Malformed)?;
        Self::bare(&url)?;
        Self::read(&url)
    }

    /// The origin of a URL without regard to who can listen: for comparing, not for sending.
    pub(crate) fn read(url: &Uri) -> Result<Self, OriginError> {
        match Target::of(url) {
            Target::Absolute { secure, host, port } => {
                let host = match v6(host) {
                    Some(address) => Host::V6(address.ok_or(OriginError::Malformed)?),
                    None => Host::Name(host.to_ascii_lowercase().into()),
                };
                Ok(Self { secure, host, port })
            }
            Target::Relative => Err(OriginError::NotHttp),
            Target::Unclear(why) => Err(why),
        }
    }

    pub(crate) fn is_of(&self, target: &Target<'_>) -> bool {
        match *target {
            Target::Absolute { secure, host, port } => (self.secure, self.port) == (secure, port) && self.host.is(host),
            Target::Relative | Target::Unclear(_) => false,
        }
    }

    fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Name(name) if &**name == "localhost" => true,
            Host::Name(name) => name.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_loopback()),
            Host::V6(address) => address.is_loopback(),
        }
    }

    /// A path would promise what an origin cannot keep.
    fn bare(url: &Uri) -> Result<(), OriginError> {
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        if bare || url.scheme().is_none() { Ok(()) } else { Err(OriginError::MoreThanAnOrigin) }
    }
}

impl Host {
    fn is(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => **name == *host || name.eq_ignore_ascii_case(host),
            Self::V6(address) => v6(host) == Some(Some(*address)),
        }
    }
}

/// The IPv6 address of a host in brackets; `Some(None)` if the brackets hold something else.
fn v6(host: &str) -> Option<Option<Ipv6Addr>> {
    let inside = host.strip_prefix('[')?.strip_suffix(']')?;
    Some(inside.parse().ok())
}

/// Where a request goes, as far as its URL says so.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Absolute {
        secure: bool,
        host: &'a str,
        port: u16,
    },
    /// Origin-form (RFC 9112 §3.2.1): whoever sends it knows where to.
    Relative,
    Unclear(OriginError),
}

impl<'a> Target<'a> {
    pub(crate) fn of(url: &'a Uri) -> Self {
        let (scheme, authority) = match (url.scheme(), url.authority()) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            (None, None) => return Self::Relative,
            (Some(_), None) | (None, Some(_)) => return Self::Unclear(OriginError::NotHttp),
        };
        let secure = *scheme == Scheme::HTTPS;
        if !secure && *scheme != Scheme::HTTP {
            return Self::Unclear(OriginError::NotHttp);
        }
        let authority = authority.as_str();
        // Each request comes through here, and most name nothing but a host. Without an early exit, so that it takes a few
        // instructions for many bytes.
        let is_host = authority.bytes().fold(true, |is_host, byte| is_host & (byte != b':') & (byte != b'@'));
        if is_host {
            return Self::Absolute { secure, host: authority, port: default_port(secure) };
        }
        if authority.contains('@') {
            return Self::Unclear(OriginError::UserInfo);
        }
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside brackets.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            Some(_) | None => (authority, Some(default_port(secure))),
        };
        // An empty port, or one that is no number.
        let Some(port) = port else { return Self::Unclear(OriginError::Malformed) };
        Self::Absolute { secure, host, port }
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn of_url(url: &'a reqwest::Url) -> Self {
        let Some(secure) = is_secure(url.scheme()) else { return Self::Unclear(OriginError::NotHttp) };
        if !url.username().is_empty() || url.password().is_some() {
            return Self::Unclear(OriginError::UserInfo);
        }
        let Some(host) = url.host_str() else { return Self::Unclear(OriginError::Malformed) };
        Self::Absolute { secure, host, port: url.port().unwrap_or_else(|| default_port(secure)) }
    }
}

#[cfg(feature = "reqwest")]
fn is_secure(scheme: &str) -> Option<bool> {
    // As `Url` has it, in lower case.
    match scheme {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        text.parse::<Uri>().map_err(|_| OriginError::Malformed)?.try_into()
    }
}

impl TryFrom<Uri> for Origin {
    type Error = OriginError;

    fn try_from(url: Uri) -> Result<Self, OriginError> {
        Self::bare(&url)?;
        Self::of(&url)
    }
}

impl TryFrom<&str> for Origin {
    type Error = OriginError;

    fn try_from(text: &str) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl TryFrom<&String> for Origin {
    type Error = OriginError;

    fn try_from(text: &String) -> Result<Self, OriginError> {
        text.parse()
    }
}

/// As it is written in an `Origin` header: a default port is left out (RFC 6454 §6.2).
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        if self.port == default_port(self.secure) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

/// Why something is no [`Origin`] that a token may go to. Never quotes the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// No URL, or one whose host is not ASCII.
    #[error("not a URL that can be read (an international host name is written in punycode)")]
    Malformed,
    /// No scheme, or another one than https and http.
    #[error("an origin begins with `https://`")]
    NotHttp,
    /// There is an `@` before the host.
    #[error("an origin has no user information")]
    UserInfo,
    /// There is a path or a query. [`Origin::of`] takes the origin of any URL.
    #[error("an origin has no path and no query: cut the URL off after the host and port, or take it by `Origin::of`")]
    MoreThanAnOrigin,
    /// Plain http beyond loopback. [`Origin::danger_plain_http`] is for those who know that nobody can listen.
    #[error("a token would be sent in the clear: the origin is plain http beyond loopback; use https")]
    Cleartext,
}

impl From<Infallible> for OriginError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
