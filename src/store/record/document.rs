//! Records as versioned JSON.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Content, Fingerprint, Identity, Revision, StoredGrant, StoredToken, Terms, Tombstone};
use crate::store::StoreError;

pub(super) fn write(revision: Revision, content: Content) -> SecretString {
    let (grant, tombstone) = match content {
        Content::Grant(grant) => (Some(grant.into()), None),
        Content::Tombstone(tombstone) => (None, Some(tombstone.into())),
    };
    let Revision { number, mark } = revision;
    let document = Document { version: VERSION, revision: number, mark, grant, tombstone };
    // Strings and numbers only, so this cannot fail.
    SecretString::from(serde_json::to_string(&document).unwrap_or_default())
}

pub(super) fn read(text: &str) -> Result<(Revision, Content), StoreError> {
    // Not serde's own words: they repeat what they stumble over, and that may be a token.
    let corrupt = |error: serde_json::Error| {
        StoreError::Corrupt(format!("line {} column {} of the text", error.line(), error.column()).into())
    };
    let Version { version } = serde_json::from_str(text).map_err(corrupt)?;
    if version > VERSION {
        return Err(StoreError::Newer);
    }
    let Document { version: _, revision: number, mark, grant, tombstone } =
        serde_json::from_str(text).map_err(corrupt)?;
    let content = match (grant, tombstone) {
        (Some(grant), None) => Content::Grant(grant.into()),
        (None, Some(tombstone)) => Content::Tombstone(tombstone.into()),
        (Some(_), Some(_)) | (None, None) => return Err(StoreError::Corrupt("neither login nor tombstone".into())),
    };
    if number == 0 {
        return Err(StoreError::Corrupt("a revision of 0".into()));
    }
    Ok((Revision { number, mark }, content))
}

/// The text's outermost part, in every version.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u64,
    revision: u64,
    #[serde(default)]
    mark: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<GrantDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tombstone: Option<TombstoneDocument>,
}

/// The one form in which the secrets are plain text: it lives for the length of a call.
#[derive(Serialize, Deserialize)]
struct GrantDocument {
    identity: IdentityDocument,
    terms: TermsDocument,
    origin: Option<String>,
    #[serde(default)]
    turn: u64,
    refresh_token: Option<String>,
    access_token: Option<TokenDocument>,
}

#[derive(Serialize, Deserialize)]
struct IdentityDocument {
    account: String,
    issuer: String,
    client_id: String,
}

#[derive(Serialize, Deserialize)]
struct TermsDocument {
    scopes: Vec<String>,
    audience: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct TombstoneDocument {
    identity: IdentityDocument,
    code: String,
    origin: Option<String>,
    #[serde(default)]
    turn: u64,
}

#[derive(Serialize, Deserialize)]
struct TokenDocument {
    secret: String,
    issued_at_ms: u64,
    lifetime_ms: Option<u64>,
    scopes: Vec<String>,
}

impl From<StoredGrant> for GrantDocument {
    fn from(grant: StoredGrant) -> Self {
        let StoredGrant { identity, terms, origin, turn, refresh_token, access_token } = grant;
        let plain = |secret: &SecretString| secret.expose_secret().to_owned();
        let access_token = access_token.map(|token| {
            let StoredToken { secret, issued_at, lifetime, scopes } = token;
            let (issued_at_ms, lifetime_ms) = (millis(issued_at), lifetime.map(millis));
            TokenDocument { secret: plain(&secret), issued_at_ms, lifetime_ms, scopes }
        });
        let Terms { scopes, audience } = terms;
        Self {
            identity: identity.into(),
            terms: TermsDocument { scopes, audience },
            origin: origin.map(|Fingerprint(digest)| digest),
            turn,
            refresh_token: refresh_token.as_ref().map(plain),
            access_token,
        }
    }
}

impl From<GrantDocument> for StoredGrant {
    fn from(document: GrantDocument) -> Self {
        let GrantDocument { identity, terms, origin, turn, refresh_token, access_token } = document;
        let access_token = access_token.map(|token| {
            let TokenDocument { secret, issued_at_ms, lifetime_ms, scopes } = token;
            let lifetime = lifetime_ms.map(Duration::from_millis);
            StoredToken { secret: secret.into(), issued_at: Duration::from_millis(issued_at_ms), lifetime, scopes }
        });
        let TermsDocument { scopes, audience } = terms;
        Self {
            identity: identity.into(),
            terms: Terms { scopes, audience },
            origin: origin.map(Fingerprint),
            turn,
            refresh_token: refresh_token.map(Into::into),
            access_token,
        }
    }
}

impl From<Identity> for IdentityDocument {
    fn from(identity: Identity) -> Self {
        let Identity { account, issuer, client_id } = identity;
        Self { account, issuer, client_id }
    }
}

impl From<IdentityDocument> for Identity {
    fn from(document: IdentityDocument) -> Self {
        let IdentityDocument { account, issuer, client_id } = document;
        Self { account, issuer, client_id }
    }
}

impl From<Tombstone> for TombstoneDocument {
    fn from(tombstone: Tombstone) -> Self {
        let Tombstone { identity, code, origin, turn } = tombstone;
        Self { identity: identity.into(), code, origin: origin.map(|Fingerprint(digest)| digest), turn }
    }
}

impl From<TombstoneDocument> for Tombstone {
    fn from(document: TombstoneDocument) -> Self {
        let TombstoneDocument { identity, code, origin, turn } = document;
        Self { identity: identity.into(), code, origin: origin.map(Fingerprint), turn }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const VERSION: u64 = 1;
