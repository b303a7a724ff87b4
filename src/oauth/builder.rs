//! How a grant is put together, and what can be wrong with it.

use std::{error::Error, fmt, sync::Arc};

use oauth2::AuthType;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{exchange::Exchange, http::TokenHttp};

/// What the grants have in common: the endpoint, the client, and what is asked for. `G` is what one grant adds.
///
/// Started by [`RefreshTokenGrant::builder`](super::RefreshTokenGrant::builder) or
/// [`ClientCredentialsGrant::builder`](super::ClientCredentialsGrant::builder). Everything is checked at once, in
/// `build`.
#[must_use]
pub struct GrantBuilder<G> {
    pub(super) grant: G,
    token_url: String,
    client_id: String,
    client_secret: Option<SecretString>,
    client_auth: ClientAuth,
    scopes: Vec<String>,
    resources: Vec<String>,
    params: Vec<(String, SecretString)>,
    http: Option<Arc<dyn TokenHttp>>,
}

/// Where a client with a secret puts its credentials (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// In the `Authorization` header, as HTTP Basic: what every server has to understand.
    #[default]
    Header,
    /// In the body, as `client_id` and `client_secret`: for servers that understand only that.
    Body,
}

impl<G> GrantBuilder<G> {
    pub(super) fn new(grant: G, token_url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            grant,
            token_url: token_url.into(),
            client_id: client_id.into(),
            client_secret: None,
            client_auth: ClientAuth::default(),
            scopes: Vec::new(),
            resources: Vec::new(),
            params: Vec::new(),
            http: None,
        }
    }

    /// The client's secret. Defaults to none: a public client (RFC 6749 §2.1), or one that TLS authenticates
    /// (RFC 8705), names itself in the body.
    pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
        self.client_secret = Some(SecretString::from(secret.into()));
        self
    }

    /// Where the client's credentials go. Defaults to [`ClientAuth::Header`]; without a secret it makes no difference.
    pub const fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// The scopes to ask for (RFC 6749 §3.3). Defaults to none: the server decides, and a refresh keeps what was granted.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Names a resource that the token is for (RFC 8707 §2), an absolute URI without fragment. May be called several times.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.push(resource.into());
        self
    }

    /// Adds a parameter of the server's own, such as `audience`. The value counts as a secret. `claims` gives way to the
    /// claims of an [`IssueRequest`](crate::IssueRequest).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), SecretString::from(value.into())));
        self
    }

    /// The HTTP client. Defaults to a new [`ReqwestHttp`](super::ReqwestHttp) with the feature `reqwest`.
    pub fn http(mut self, http: impl TokenHttp) -> Self {
        self.http = Some(Arc::new(http));
        self
    }

    pub(super) fn build_exchange(self) -> Result<(G, Exchange), GrantError> {
        let Self { grant, token_url, client_id, client_secret, client_auth, scopes, resources, params, http } = self;
        let token_url = endpoint(&token_url)?;
        if client_id.is_empty() {
            return Err(GrantError::EmptyClientId);
        }
        if client_secret.as_ref().is_some_and(|secret| secret.expose_secret().is_empty()) {
            return Err(GrantError::EmptyClientSecret);
        }
        if !resources.iter().all(|resource| is_resource(resource)) {
            return Err(GrantError::InvalidResource);
        }
        if params.iter().any(|(name, _)| OWN_PARAMS.contains(&name.as_str())) {
            return Err(GrantError::ReservedParam);
        }
        let exchange = Exchange {
            http: http.map_or_else(|| ready_made(&token_url), Ok)?,
            token_url,
            client_id,
            client_secret,
            auth_type: match client_auth {
                ClientAuth::Header => AuthType::BasicAuth,
                ClientAuth::Body => AuthType::RequestBody,
            },
            scopes,
            resources,
            params,
        };
        Ok((grant, exchange))
    }
}

impl<G> fmt::Debug for GrantBuilder<G> {
    // Not the URL: it has not been checked for a password yet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantBuilder").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Why a grant cannot be built, and how to mend it.
///
/// ```
/// use steadfast::oauth::{GrantError, RefreshTokenGrant};
///
/// let error = RefreshTokenGrant::builder("http://login.example.com/token", "my-app", "rt-1").build().unwrap_err();
/// assert!(matches!(error, GrantError::InsecureTokenUrl));
/// assert_eq!(error.to_string(), "the token url is not secure: use https, or http on a loopback address");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum GrantError {
    /// The token URL cannot be read as a URL.
    InvalidTokenUrl,
    /// Plain http would show the credentials to everybody on the way (RFC 6749 §3.2).
    InsecureTokenUrl,
    /// A user name or password in the token URL would end up in logs.
    CredentialsInTokenUrl,
    /// A token URL has no fragment (RFC 6749 §3.2).
    FragmentInTokenUrl,
    /// There is no client without an identifier.
    EmptyClientId,
    /// An empty secret is usually an unset variable.
    EmptyClientSecret,
    /// An empty refresh token is usually an unset variable.
    EmptyRefreshToken,
    /// A resource is an absolute URI without fragment (RFC 8707 §2).
    InvalidResource,
    /// The builder sends this parameter itself.
    ReservedParam,
    /// No client was given, and the feature `reqwest`, which brings one, is off.
    NoHttpClient,
    /// The ready-made client could not be set up.
    #[cfg(feature = "reqwest")]
    Http(super::HttpSetupError),
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidTokenUrl => "the token url is not a url: give it in full, as https://host/path",
            Self::InsecureTokenUrl => "the token url is not secure: use https, or http on a loopback address",
            Self::CredentialsInTokenUrl => {
                "the token url holds a user name or password: give them as client id and secret"
            }
            Self::FragmentInTokenUrl => "the token url has a fragment: cut it off from the # on",
            Self::EmptyClientId => "the client id is empty: give the one the client was registered with",
            Self::EmptyClientSecret => "the client secret is empty: leave it out for a public client",
            Self::EmptyRefreshToken => "the refresh token is empty: sign in to get one",
            Self::InvalidResource => "a resource is no absolute uri without fragment: give it as https://host/path",
            Self::ReservedParam => "a parameter has a name that the grant sends itself: use the builder's own method",
            Self::NoHttpClient => "there is no http client: give one, or turn on the feature reqwest",
            #[cfg(feature = "reqwest")]
            Self::Http(_) => {
                "the ready-made http client could not be set up: give one, or mend what is under this error"
            }
        })
    }
}

impl Error for GrantError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            #[cfg(feature = "reqwest")]
            Self::Http(error) => Some(error),
            Self::InvalidTokenUrl
            | Self::InsecureTokenUrl
            | Self::CredentialsInTokenUrl
            | Self::FragmentInTokenUrl
            | Self::EmptyClientId
            | Self::EmptyClientSecret
            | Self::EmptyRefreshToken
            | Self::InvalidResource
            | Self::ReservedParam
            | Self::NoHttpClient => None,
        }
    }
}

fn endpoint(text: &str) -> Result<Url, GrantError> {
    let url = Url::parse(text).map_err(|_| GrantError::InvalidTokenUrl)?;
    if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
        return Err(GrantError::InsecureTokenUrl);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(GrantError::CredentialsInTokenUrl);
    }
    if url.fragment().is_some() {
        return Err(GrantError::FragmentInTokenUrl);
    }
    // What is a URL to one crate need not be one to the next.
    if url.as_str().parse::<http::Uri>().is_err() {
        return Err(GrantError::InvalidTokenUrl);
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_resource(text: &str) -> bool {
    Url::parse(text).is_ok_and(|uri| uri.fragment().is_none())
}

#[cfg(feature = "reqwest")]
fn ready_made(token_url: &Url) -> Result<Arc<dyn TokenHttp>, GrantError> {
    let client = if is_loopback(token_url) { super::ReqwestHttp::loopback() } else { super::ReqwestHttp::new() };
    Ok(Arc::new(client.map_err(GrantError::Http)?))
}

#[cfg(not(feature = "reqwest"))]
fn ready_made(_: &Url) -> Result<Arc<dyn TokenHttp>, GrantError> {
    Err(GrantError::NoHttpClient)
}

/// Sent by the grants themselves; a second one would make the request ambiguous (RFC 6749 §3.2).
const OWN_PARAMS: &[&str] = &["grant_type", "refresh_token", "client_id", "client_secret", "scope", "resource"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_url_is_https_or_on_this_machine() {
        for url in [
            "https://login.example.com/token?tenant=a",
            "http://127.0.0.1:8080/token",
            "http://127.200.0.9/token",
            "http://[::1]/token",
            "http://localhost/token",
            "http://LOCALHOST:81/token",
        ] {
            assert!(endpoint(url).is_ok(), "{url}");
        }
        for url in [
            "http://login.example.com/token",
            "http://localhost.example.com/token",
            "http://10.0.0.1/token",
            "http://[::ffff:10.0.0.1]/token",
            "ftp://127.0.0.1/token",
            "file:///etc/passwd",
        ] {
            assert!(matches!(endpoint(url), Err(GrantError::InsecureTokenUrl)), "{url}");
        }
        assert!(matches!(endpoint("login.example.com/token"), Err(GrantError::InvalidTokenUrl)));
        for url in ["https://me@login.example.com/", "https://:pw@login.example.com/"] {
            assert!(matches!(endpoint(url), Err(GrantError::CredentialsInTokenUrl)), "{url}");
        }
        assert!(matches!(endpoint("https://login.example.com/#a"), Err(GrantError::FragmentInTokenUrl)));
    }
}
