//! What the transaction asks of a grant.

use async_trait::async_trait;
use secrecy::SecretString;

use super::trouble::not_signed_in;
use crate::{
    IssueRequest,
    oauth::{ClientCredentialsGrant, Exchanged, RefreshTokenGrant, StoredRefreshTokenGrant},
    store::Terms,
};

/// A way to exchange what a store keeps for an access token: the OAuth grants of this crate, or a host's own.
///
/// ```
/// use steadfast::{IssueRequest, IssuedToken};
/// use steadfast::oauth::Exchanged;
/// use steadfast::rotation::Grant;
/// use secrecy::SecretString;
///
/// /// A login service that is not quite OAuth.
/// struct Sessions;
///
/// #[async_trait::async_trait]
/// impl Grant for Sessions {
///     fn issuer(&self) -> String {
///         "https://sessions.example.com".into()
///     }
///     fn client_id(&self) -> String {
///         "my-app".into()
///     }
///     fn refresh_token(&self) -> Option<SecretString> {
///         Some("session-1".into())
///     }
///     async fn exchange(&self, session: Option<&SecretString>, _: &IssueRequest) -> Exchanged {
///         assert!(session.is_some());
///         Exchanged { issued: Ok(IssuedToken::bearer("at-1")), refresh_token: Some("session-2".into()) }
///     }
/// }
/// assert!(Sessions.refresh_token().is_some());
/// ```
#[async_trait]
pub trait Grant: Send + Sync + 'static {
    /// Who issues the tokens. Part of the login's identity: it must not change from one start to the next.
    fn issuer(&self) -> String;

    /// The client that asks.
    fn client_id(&self) -> String;

    /// What access tokens are asked for with. Defaults to nothing in particular.
    fn terms(&self) -> Terms {
        Terms::default()
    }

    /// The refresh token that signing in has brought; used where the store holds nothing yet. `None` for a grant that has
    /// none: it begins with what is stored, or spends nothing.
    fn refresh_token(&self) -> Option<SecretString>;

    /// Whether an exchange spends what is stored, so that without the store there is none. A grant that spends nothing goes
    /// on without the store when it has to. Defaults to whether there is a [`refresh_token`](Self::refresh_token).
    fn needs_the_store(&self) -> bool {
        self.refresh_token().is_some()
    }

    /// One exchange with this refresh token, and not a second one. `None` where neither the store nor the grant has one. The
    /// caller bounds its time.
    async fn exchange(&self, refresh_token: Option<&SecretString>, request: &IssueRequest) -> Exchanged;
}

#[async_trait]
impl Grant for Box<dyn Grant> {
    fn issuer(&self) -> String {
        (**self).issuer()
    }

    fn client_id(&self) -> String {
        (**self).client_id()
    }

    fn terms(&self) -> Terms {
        (**self).terms()
    }

    fn refresh_token(&self) -> Option<SecretString> {
        (**self).refresh_token()
    }

    fn needs_the_store(&self) -> bool {
        (**self).needs_the_store()
    }

    async fn exchange(&self, refresh_token: Option<&SecretString>, request: &IssueRequest) -> Exchanged {
        (**self).exchange(refresh_token, request).await
    }
}

#[async_trait]
impl Grant for RefreshTokenGrant {
    fn issuer(&self) -> String {
        self.endpoint().issuer()
    }

    fn client_id(&self) -> String {
        self.endpoint().client_id().to_owned()
    }

    fn terms(&self) -> Terms {
        Terms::new(self.endpoint().scopes_asked(), self.endpoint().audience())
    }

    fn refresh_token(&self) -> Option<SecretString> {
        Some(self.refresh_token())
    }

    async fn exchange(&self, refresh_token: Option<&SecretString>, request: &IssueRequest) -> Exchanged {
        match refresh_token {
            Some(refresh_token) => self.exchange(refresh_token, request).await,
            None => self.exchange(&self.refresh_token(), request).await,
        }
    }
}

#[async_trait]
impl Grant for StoredRefreshTokenGrant {
    fn issuer(&self) -> String {
        self.endpoint().issuer()
    }

    fn client_id(&self) -> String {
        self.endpoint().client_id().to_owned()
    }

    fn terms(&self) -> Terms {
        Terms::new(self.endpoint().scopes_asked(), self.endpoint().audience())
    }

    fn refresh_token(&self) -> Option<SecretString> {
        None
    }

    fn needs_the_store(&self) -> bool {
        true
    }

    async fn exchange(&self, refresh_token: Option<&SecretString>, request: &IssueRequest) -> Exchanged {
        match refresh_token {
            Some(refresh_token) => self.endpoint().refresh(refresh_token, request).await,
            None => Exchanged { issued: Err(not_signed_in()), refresh_token: None },
        }
    }
}

#[async_trait]
impl Grant for ClientCredentialsGrant {
    fn issuer(&self) -> String {
        self.endpoint().issuer()
    }

    fn client_id(&self) -> String {
        self.endpoint().client_id().to_owned()
    }

    fn terms(&self) -> Terms {
        Terms::new(self.endpoint().scopes_asked(), self.endpoint().audience())
    }

    fn refresh_token(&self) -> Option<SecretString> {
        None
    }

    async fn exchange(&self, _: Option<&SecretString>, request: &IssueRequest) -> Exchanged {
        let exchanged = self.exchange(request).await;
        // RFC 6749 §4.4.3: a refresh token that comes along is of no use.
        Exchanged { refresh_token: None, ..exchanged }
    }
}
