//! What a store keeps: a login with its newest tokens, or the note that it is dead.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::{IssuedToken, OAuthCode};

mod document;

/// Which commit it is: the store's counter, the first is 1, and a mark that no other commit has. A store that was emptied
/// counts from 1 again; the mark keeps what is there then from being taken for what was there before.
///
/// Displayed as one word, for stores that compare texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    number: u64,
    mark: u64,
}

impl Revision {
    /// The counter alone.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.number
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.mark)
    }
}

/// What a store keeps under one revision.
///
/// ```
/// use steadfast::store::{Content, Identity, Record, StoredGrant, Terms};
/// use secrecy::ExposeSecret;
///
/// let identity = Identity::new("alice", "https://login.example.com/token", "my-app");
/// let grant = StoredGrant::new(identity, Terms::default(), "rt-1");
/// let first = Record::after(None, Content::Grant(grant));
/// assert_eq!((first.revision().get(), first.replaces()), (1, None));
///
/// let again = Record::from_json(first.to_json().expose_secret()).unwrap();
/// assert_eq!(again.revision(), first.revision());
/// assert!(!format!("{again:?}").contains("rt-1"));
/// ```
#[derive(Clone, Debug)]
pub struct Record {
    revision: Revision,
    replaces: Option<Revision>,
    content: Content,
}

/// A login, or what is left of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Content {
    /// A login that is in use.
    Grant(StoredGrant),
    /// The authorization server has rejected the login.
    Tombstone(Tombstone),
}

impl Record {
    /// The record to put in the place of this revision, or of nothing.
    #[must_use]
    pub fn after(replaced: Option<Revision>, content: Content) -> Self {
        let number = replaced.map_or(0, Revision::get).saturating_add(1);
        Self { revision: Revision { number, mark: super::unique() }, replaces: replaced, content }
    }

    /// The revision it is stored under.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision that has to be stored for this one to be committed; `None`: nothing may be stored. Known of a record
    /// that was made to be committed, not of one that was read.
    #[must_use]
    pub const fn replaces(&self) -> Option<Revision> {
        self.replaces
    }

    /// What it holds.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// Whose login it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        match &self.content {
            Content::Grant(grant) => &grant.identity,
            Content::Tombstone(tombstone) => &tombstone.identity,
        }
    }

    /// Whether both come from one sign-in.
    pub(crate) fn is_of_the_sign_in_of(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.content.position().0, other.content.position().0);
        ours.is_some() && ours == theirs
    }

    /// Whether it is a state from before `other`, of the same sign-in.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.is_of_the_sign_in_of(other) && self.content.position().1 < other.content.position().1
    }

    /// Whether both are the same state of the same sign-in.
    pub(crate) fn is_the_state_of(&self, other: &Self) -> bool {
        self.is_of_the_sign_in_of(other) && self.content.position().1 == other.content.position().1
    }

    /// As JSON text; a secret as a whole.
    #[must_use]
    pub fn to_json(&self) -> SecretString {
        document::write(self.revision, self.content.clone())
    }

    /// From JSON text.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Newer`].
    pub fn from_json(text: &str) -> Result<Self, StoreError> {
        let (revision, content) = document::read(text)?;
        Ok(Self { revision, replaces: None, content })
    }
}

impl Content {
    /// The sign-in that it comes from, and how many exchanges came between.
    const fn position(&self) -> (Option<&Fingerprint>, u64) {
        match self {
            Self::Grant(grant) => (grant.origin.as_ref(), grant.turn),
            Self::Tombstone(tombstone) => (tombstone.origin.as_ref(), tombstone.turn),
        }
    }
}

/// Whose login it is: a refresh token is of use to this client at this issuer only (RFC 6749 §10.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    account: String,
    issuer: String,
    client_id: String,
}

impl Identity {
    /// The account, in the host's words (the `sub` of an ID token, a user name), the token endpoint's URL or the issuer,
    /// and the client.
    pub fn new(account: impl Into<String>, issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self { account: account.into(), issuer: issuer.into(), client_id: client_id.into() }
    }

    /// The account, in the host's words.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Who issued the login.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The client it was issued to.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

/// What access tokens are asked for with. An access token is shared only where it is the same.
///
/// ```
/// use steadfast::store::Terms;
///
/// assert_eq!(Terms::new(["b", "a"], ["https://api.example.com/"]), Terms::new(["a", "b"], ["https://api.example.com/"]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    scopes: Vec<String>,
    audience: Vec<String>,
}

impl Terms {
    /// These scopes, and this audience or these resources, in any order.
    pub fn new(
        scopes: impl IntoIterator<Item = impl Into<String>>,
        audience: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let mut terms = Self {
            scopes: scopes.into_iter().map(Into::into).collect(),
            audience: audience.into_iter().map(Into::into).collect(),
        };
        terms.scopes.sort_unstable();
        terms.audience.sort_unstable();
        terms
    }
}

/// A login with its newest tokens.
#[derive(Clone, Debug)]
pub struct StoredGrant {
    identity: Identity,
    terms: Terms,
    origin: Option<Fingerprint>,
    /// Exchanges since signing in. Unlike the store's counter it goes on where the store's contents were lost and put back.
    turn: u64,
    refresh_token: Option<SecretString>,
    access_token: Option<StoredToken>,
}

impl StoredGrant {
    /// A login as it begins: with the refresh token that signing in has brought, and no access token yet.
    pub fn new(identity: Identity, terms: Terms, refresh_token: impl Into<String>) -> Self {
        Self::begun(identity, terms, Some(SecretString::from(refresh_token.into())))
    }

    pub(crate) fn begun(identity: Identity, terms: Terms, refresh_token: Option<SecretString>) -> Self {
        let origin = refresh_token.as_ref().map(Fingerprint::of);
        Self { identity, terms, origin, turn: 0, refresh_token, access_token: None }
    }

    /// The same login after an exchange. An answer without a refresh token leaves the old one in use (RFC 6749 §6).
    #[must_use]
    pub fn renewed(
        &self,
        refresh_token: Option<SecretString>,
        access_token: Option<StoredToken>,
        terms: Terms,
    ) -> Self {
        Self {
            identity: self.identity.clone(),
            terms,
            origin: self.origin.clone(),
            turn: self.turn.saturating_add(1),
            refresh_token: refresh_token.or_else(|| self.refresh_token.clone()),
            access_token,
        }
    }

    /// Whose login it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the access token was asked for with.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The refresh token to exchange next; none for grants that have none.
    #[must_use]
    pub const fn refresh_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref()
    }

    /// Whether nobody has exchanged it since, with a new refresh token or without.
    pub(crate) fn is_unchanged_from(&self, earlier: &Self) -> bool {
        self.turn == earlier.turn && self.fingerprint() == earlier.fingerprint()
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.refresh_token.as_ref().map(Fingerprint::of)
    }

    /// The access token that came with it, if one did.
    #[must_use]
    pub const fn access_token(&self) -> Option<&StoredToken> {
        self.access_token.as_ref()
    }
}

/// An access token, and when it ends. The issue time is the wall clock's, and crosses machines: a reader takes the
/// shorter of the lifetime and what is left of it by its own clock.
#[derive(Clone, Debug)]
pub struct StoredToken {
    secret: SecretString,
    issued_at: Duration,
    lifetime: Option<Duration>,
    scopes: Vec<String>,
}

impl StoredToken {
    /// A token as issued, asked for at this time since the Unix epoch.
    #[must_use]
    pub fn new(issued: &IssuedToken, issued_at: Duration) -> Self {
        Self {
            secret: issued.expose_secret().into(),
            issued_at,
            lifetime: issued.lifetime().counted_from(issued_at),
            scopes: issued.granted_scopes().to_vec(),
        }
    }

    /// The token as it is to be handed out at `now`, since the Unix epoch.
    #[must_use]
    pub fn at(&self, now: Duration) -> IssuedToken {
        let token = IssuedToken::bearer(self.secret.expose_secret()).scopes(self.scopes.iter().cloned());
        match self.lifetime {
            Some(lifetime) => token.expires_in(self.remaining(lifetime, now)),
            None => token,
        }
    }

    /// How long it was issued for, if the server said.
    #[must_use]
    pub const fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// What is left of `lifetime` at `now`; never more than all of it, whatever the clocks say.
    pub(crate) fn remaining(&self, lifetime: Duration, now: Duration) -> Duration {
        self.issued_at.saturating_add(lifetime).saturating_sub(now).min(lifetime)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.secret)
    }
}

/// The note that the authorization server has rejected a login: whoever reads it need not ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    identity: Identity,
    code: String,
    origin: Option<Fingerprint>,
    turn: u64,
}

impl Tombstone {
    /// For this login, rejected with this code.
    #[must_use]
    pub fn of(grant: &StoredGrant, code: &OAuthCode) -> Self {
        let StoredGrant { identity, origin, turn, .. } = grant.clone();
        Self { identity, code: code.as_str().to_owned(), origin, turn }
    }

    /// The code it was rejected with.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    pub(crate) const fn origin(&self) -> Option<&Fingerprint> {
        self.origin.as_ref()
    }
}

/// The SHA-256 of a refresh token: enough to know it again, and no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(secret: &SecretString) -> Self {
        Self(URL_SAFE_NO_PAD.encode(Sha256::digest(secret.expose_secret())))
    }
}
