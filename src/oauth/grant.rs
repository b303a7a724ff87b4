//! The grants: which exchange is made, and what is remembered from one to the next.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{
    builder::{GrantBuilder, GrantError},
    exchange::{Exchange, Exchanged},
};
use crate::{BoxError, IssueRequest, IssuedToken, TokenSource};

/// Trades a refresh token for access tokens (RFC 6749 §6), and takes up the new refresh token where the server
/// rotates it (RFC 9700 §4.14).
///
/// A new refresh token replaces the old one before [`issue`](TokenSource::issue) returns; an answer without one keeps
/// the old one. A rotated token lives in this grant only: a login that is to survive a restart, or that several processes
/// share, goes into a store, see [`SharedLogin`](crate::rotation::SharedLogin). Two grants (or two handles) on one refresh
/// token spend it twice; clone the handle instead.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::sync::{Arc, Mutex};
/// use http::{Request, Response};
/// use steadfast::{IssueReason, IssueRequest, TokenSource};
/// use steadfast::oauth::{RefreshTokenGrant, TransportError};
///
/// let answer = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-2"}"#;
/// let http = move |_: Request<Vec<u8>>| async move {
///     Ok::<_, TransportError>(Response::new(answer.into()))
/// };
/// let saved = Arc::new(Mutex::new(String::new()));
/// let grant = RefreshTokenGrant::builder("https://login.example.com/token", "my-app", "rt-1")
///     .scopes(["repo"])
///     .http(http)
///     .on_rotation({
///         let saved = saved.clone();
///         move |token| *saved.lock().unwrap() = token.expose_secret().to_owned()
///     })
///     .build()
///     .unwrap();
///
/// let token = grant.issue(&IssueRequest::new(IssueReason::Initial)).await.unwrap();
/// assert_eq!(token.expose_secret(), "at-1");
/// assert_eq!(*saved.lock().unwrap(), "rt-2");
/// assert!(!format!("{grant:?}").contains("rt-"));
/// # }
/// ```
pub struct RefreshTokenGrant {
    exchange: Exchange,
    current: Mutex<SecretString>,
    has_rotated: AtomicBool,
    on_rotation: Option<OnRotation>,
}

impl RefreshTokenGrant {
    /// Starts with the endpoint, the client and the refresh token it was given.
    pub fn builder(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        refresh_token: impl Into<String>,
    ) -> GrantBuilder<Refreshing> {
        let refreshing = Refreshing { refresh_token: SecretString::from(refresh_token.into()), on_rotation: None };
        GrantBuilder::new(refreshing, token_url, client_id)
    }

    /// Starts with the endpoint and the client alone: for a [`SharedLogin`](crate::rotation::SharedLogin) whose store holds the
    /// refresh token from an earlier start.
    pub fn stored(token_url: impl Into<String>, client_id: impl Into<String>) -> GrantBuilder<Stored> {
        GrantBuilder::new(Stored(()), token_url, client_id)
    }

    /// One exchange, without a word to the state: for those who keep the refresh token elsewhere.
    pub(crate) async fn exchange(&self, refresh_token: &SecretString, request: &IssueRequest) -> Exchanged {
        self.exchange.refresh(refresh_token, request).await
    }

    pub(crate) const fn endpoint(&self) -> &Exchange {
        &self.exchange
    }

    pub(crate) fn refresh_token(&self) -> SecretString {
        self.current().clone()
    }

    fn adopt(&self, refresh_token: SecretString) {
        let mut current = self.current();
        if current.expose_secret() == refresh_token.expose_secret() {
            return;
        }
        *current = refresh_token.clone();
        self.has_rotated.store(true, Ordering::Release);
        // The host's code may take its time, or look at this grant.
        drop(current);
        if let Some(on_rotation) = &self.on_rotation {
            on_rotation(&RotatedToken(refresh_token));
        }
    }

    fn current(&self) -> MutexGuard<'_, SecretString> {
        // Nothing that can panic runs under this lock.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenSource for RefreshTokenGrant {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let refresh_token = self.current().clone();
        let exchanged = self.exchange(&refresh_token, request).await;
        if let Some(rotated) = exchanged.refresh_token {
            self.adopt(rotated);
        }
        Ok(exchanged.issued?)
    }

    fn is_replaceable(&self) -> bool {
        !self.has_rotated.load(Ordering::Acquire)
    }
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenGrant").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// What a [`RefreshTokenGrant`] adds to a [`GrantBuilder`].
pub struct Refreshing {
    refresh_token: SecretString,
    on_rotation: Option<OnRotation>,
}

impl fmt::Debug for Refreshing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refreshing")
    }
}

impl GrantBuilder<Refreshing> {
    /// Called with each new refresh token, after this grant has taken it up and before the access token that came with
    /// it is handed out. Defaults to nothing.
    ///
    /// Not called under a [`SharedLogin`](crate::rotation::SharedLogin), whose store has the new token.
    ///
    /// It runs inside the attempt, so it should be quick: hand the token to a task that writes it down. Between the
    /// server's rotation and that write a crash loses the login.
    pub fn on_rotation(mut self, observe: impl Fn(&RotatedToken) + Send + Sync + 'static) -> Self {
        self.grant.on_rotation = Some(Box::new(observe));
        self
    }

    /// Checks everything and makes the grant.
    ///
    /// # Errors
    /// A [`GrantError`] that says what is wrong and how to mend it.
    pub fn build(self) -> Result<RefreshTokenGrant, GrantError> {
        let (grant, exchange) = self.build_exchange()?;
        if grant.refresh_token.expose_secret().is_empty() {
            return Err(GrantError::EmptyRefreshToken);
        }
        Ok(RefreshTokenGrant {
            exchange,
            current: Mutex::new(grant.refresh_token),
            has_rotated: AtomicBool::new(false),
            on_rotation: grant.on_rotation,
        })
    }
}

/// As [`RefreshTokenGrant`], without a refresh token of its own: it exchanges the one that a store holds. For a
/// [`SharedLogin`](crate::rotation::SharedLogin) in a program that signed in at an earlier start.
///
/// Where the store holds none, the attempt is rejected with `login_required`, and the advice is to sign in.
///
/// ```
/// use steadfast::{oauth::RefreshTokenGrant, rotation::SharedLogin, store::FileStore};
///
/// let grant = RefreshTokenGrant::stored("https://login.example.com/token", "my-cli").scopes(["repo"]).build()?;
/// let login = SharedLogin::builder(grant, FileStore::new("login.json")).account("ada").build();
/// assert!(format!("{login:?}").contains("ada"));
/// # Ok::<(), steadfast::oauth::GrantError>(())
/// ```
pub struct StoredRefreshTokenGrant {
    exchange: Exchange,
}

impl StoredRefreshTokenGrant {
    pub(crate) const fn endpoint(&self) -> &Exchange {
        &self.exchange
    }
}

impl fmt::Debug for StoredRefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRefreshTokenGrant").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// What a [`StoredRefreshTokenGrant`] adds to a [`GrantBuilder`]: nothing.
#[derive(Debug)]
pub struct Stored(());

impl GrantBuilder<Stored> {
    /// Checks everything and makes the grant.
    ///
    /// # Errors
    /// A [`GrantError`] that says what is wrong and how to mend it.
    pub fn build(self) -> Result<StoredRefreshTokenGrant, GrantError> {
        let (Stored(()), exchange) = self.build_exchange()?;
        Ok(StoredRefreshTokenGrant { exchange })
    }
}

/// The refresh token that took the old one's place.
#[derive(Debug)]
pub struct RotatedToken(SecretString);

impl RotatedToken {
    /// The token itself. Whoever calls this is answerable for where it goes.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Obtains access tokens in the client's own name (RFC 6749 §4.4).
///
/// Nothing is spent here, so a lost answer costs nothing: a refresh token that comes along is ignored (§4.4.3).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use http::{Request, Response};
/// use steadfast::{IssueReason, IssueRequest, Lifetime, TokenSource};
/// use steadfast::oauth::{ClientCredentialsGrant, TransportError};
///
/// let answer = r#"{"access_token":"at-1","token_type":"Bearer","expires_in":3600}"#;
/// let http = move |_: Request<Vec<u8>>| async move {
///     Ok::<_, TransportError>(Response::new(answer.into()))
/// };
/// let grant = ClientCredentialsGrant::builder("https://login.example.com/token", "billing")
///     .client_secret("s3cret")
///     .resource("https://api.example.com/")
///     .http(http)
///     .build()
///     .unwrap();
///
/// let token = grant.issue(&IssueRequest::new(IssueReason::Initial)).await.unwrap();
/// assert_eq!(token.lifetime(), Lifetime::Known(Duration::from_secs(3600)));
/// assert!(!format!("{grant:?}").contains("s3cret"));
/// # }
/// ```
pub struct ClientCredentialsGrant {
    exchange: Exchange,
}

impl ClientCredentialsGrant {
    /// Starts with the endpoint and the client. The client's secret is
    /// [`client_secret`](GrantBuilder::client_secret); only a client that TLS authenticates goes without.
    pub fn builder(token_url: impl Into<String>, client_id: impl Into<String>) -> GrantBuilder<ClientCredentials> {
        GrantBuilder::new(ClientCredentials(()), token_url, client_id)
    }

    pub(crate) async fn exchange(&self, request: &IssueRequest) -> Exchanged {
        self.exchange.client_credentials(request).await
    }

    pub(crate) const fn endpoint(&self) -> &Exchange {
        &self.exchange
    }
}

#[async_trait]
impl TokenSource for ClientCredentialsGrant {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        Ok(self.exchange(request).await.issued?)
    }

    fn is_replaceable(&self) -> bool {
        true
    }
}

impl fmt::Debug for ClientCredentialsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentialsGrant").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// What a [`ClientCredentialsGrant`] adds to a [`GrantBuilder`]: nothing.
#[derive(Debug)]
pub struct ClientCredentials(());

impl GrantBuilder<ClientCredentials> {
    /// Checks everything and makes the grant.
    ///
    /// # Errors
    /// A [`GrantError`] that says what is wrong and how to mend it.
    pub fn build(self) -> Result<ClientCredentialsGrant, GrantError> {
        let (ClientCredentials(()), exchange) = self.build_exchange()?;
        Ok(ClientCredentialsGrant { exchange })
    }
}

type OnRotation = Box<dyn Fn(&RotatedToken) + Send + Sync>;
