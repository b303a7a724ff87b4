//! What an authorization server knows: logins, the refresh tokens that came of them, and the access tokens.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::Lifetime;

/// The tokens of one [`ScriptedIdp`](crate::testing::ScriptedIdp). It reads no clock; `now` is handed in.
#[derive(Default)]
pub(super) struct Grants {
    refresh_tokens: HashMap<String, RefreshToken>,
    access_tokens: Vec<AccessToken>,
    /// The number of logins. The refresh tokens that come of one login are a family.
    families: usize,
    revoked_families: HashSet<usize>,
    rotation: Option<Duration>,
    reuses: usize,
    latest_refresh_token: Option<String>,
    secrets: Vec<String>,
}

struct RefreshToken {
    family: usize,
    used: Option<Use>,
}

struct Use {
    at: Instant,
    brought: Pair,
}

struct AccessToken {
    secret: String,
    issued: Instant,
    lifetime: Lifetime,
}

/// A token that an answer wants issued.
pub(super) struct Mint {
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Successor,
    pub(super) lifetime: Lifetime,
}

/// The refresh token that goes with it.
pub(super) enum Successor {
    Minted,
    Named(String),
    Omitted,
}

/// What was issued.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
}

impl Grants {
    /// From now on a refresh token is good for one use, plus replays within `grace` of it.
    pub(super) const fn rotate(&mut self, grace: Duration) {
        self.rotation = Some(grace);
    }

    /// A new login, with this refresh token or a new one.
    pub(super) fn login(&mut self, token: Option<String>) -> String {
        let token = token.unwrap_or_else(|| self.new_refresh_token());
        self.adopt(&token, self.families);
        self.families += 1;
        token
    }

    pub(super) fn revoke_all(&mut self) {
        self.revoked_families.extend(0..self.families);
    }

    /// A token for the client itself (RFC 6749 §4.4): no login, hence no refresh token.
    pub(super) fn issue(&mut self, mint: Mint, now: Instant) -> Pair {
        let access_token = mint.access_token.unwrap_or_else(|| name("access", self.access_tokens.len()));
        self.note(&access_token);
        self.access_tokens.push(AccessToken { secret: access_token.clone(), issued: now, lifetime: mint.lifetime });
        Pair { access_token, refresh_token: None }
    }

    /// Exchanges a refresh token (RFC 6749 §6, RFC 9700 §4.14). `None` means that it is not good, or not any more.
    pub(super) fn refresh(&mut self, token: &str, mut mint: Mint, now: Instant) -> Option<Pair> {
        self.note(token);
        let known = self.refresh_tokens.get(token)?;
        let family = known.family;
        if self.revoked_families.contains(&family) {
            return None;
        }
        if let Some(used) = &known.used {
            if self.replayable(used, now) {
                return Some(used.brought.clone());
            }
            self.reuses += 1;
            self.revoked_families.insert(family);
            return None;
        }
        let wanted = std::mem::replace(&mut mint.refresh_token, Successor::Omitted);
        let successor = match (wanted, self.rotation) {
            (Successor::Named(named), _) => named,
            (Successor::Minted, Some(_)) => self.new_refresh_token(),
            // A server that issues no new refresh token leaves the old one in use.
            (Successor::Minted, None) | (Successor::Omitted, _) => token.to_owned(),
        };
        let mut pair = self.issue(mint, now);
        pair.refresh_token = Some(successor.clone());
        if successor != token {
            self.adopt(&successor, family);
            let used = Use { at: now, brought: pair.clone() };
            if let (Some(known), true) = (self.refresh_tokens.get_mut(token), self.rotation.is_some()) {
                known.used = Some(used);
            }
        }
        Some(pair)
    }

    /// How long ago this access token was last issued, if it was and has not expired.
    pub(super) fn age_of_live(&self, secret: &str, now: Instant) -> Option<Duration> {
        let mut newest_first = self.access_tokens.iter().rev();
        let token = newest_first.find(|token| token.secret == secret)?;
        let age = now.duration_since(token.issued);
        let live = match token.lifetime {
            Lifetime::Known(lifetime) => age < lifetime,
            Lifetime::Unknown | Lifetime::Malformed | Lifetime::Until(_) => true,
        };
        live.then_some(age)
    }

    pub(super) fn access_tokens(&self) -> Vec<String> {
        let secrets = self.access_tokens.iter().map(|token| &token.secret);
        secrets.cloned().collect()
    }

    pub(super) fn current_access_token(&self) -> Option<String> {
        Some(self.access_tokens.last()?.secret.clone())
    }

    pub(super) fn current_refresh_token(&self) -> Option<String> {
        self.latest_refresh_token.clone()
    }

    pub(super) const fn reuses(&self) -> usize {
        self.reuses
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        self.secrets.clone()
    }

    /// Notes a secret, wherever it came from.
    pub(super) fn note(&mut self, secret: &str) {
        if !secret.is_empty() && !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.to_owned());
        }
    }

    /// The grace is for the client that did not get the answer: one that has used the successor did.
    fn replayable(&self, used: &Use, now: Instant) -> bool {
        let successor = used.brought.refresh_token.as_ref();
        let successor = successor.and_then(|token| self.refresh_tokens.get(token));
        let grace = self.rotation.unwrap_or_default();
        now.duration_since(used.at) < grace && successor.is_some_and(|token| token.used.is_none())
    }

    fn adopt(&mut self, token: &str, family: usize) {
        self.note(token);
        self.latest_refresh_token = Some(token.to_owned());
        let known = RefreshToken { family, used: None };
        self.refresh_tokens.insert(token.to_owned(), known);
    }

    fn new_refresh_token(&self) -> String {
        name("refresh", self.refresh_tokens.len())
    }
}

/// A secret that says what it is, and that no output contains by chance.
fn name(kind: &str, earlier: usize) -> String {
    format!("{kind}-{}-{:016x}", earlier + 1, fastrand::u64(..))
}
