//! What the authorization server knows, and the API asks it: logins and access tokens, the latest of each. It does not grow.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Default)]
pub(crate) struct Ledger(Mutex<Books>);

/// Whether a bearer token is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    Revoked,
    Expired,
    Unknown,
}

struct Books {
    tokens: VecDeque<AccessToken>,
    tokens_issued: u64,
    logins: VecDeque<Login>,
    logins_begun: u64,
    reused: u64,
    replayed: u64,
}

struct AccessToken {
    secret: u64,
    expires: Instant,
    revoked: bool,
}

/// The refresh token that counts is the one with the number `turn`; the one before it is forgiven within the grace.
struct Login {
    number: u64,
    turn: u64,
    rotated: Instant,
    secret: u64,
    may_be_revoked: bool,
    revoked: bool,
}

impl Ledger {
    /// A user signs in: the refresh token.
    pub(crate) fn login(&self, secret: u64, may_be_revoked: bool) -> String {
        let mut books = self.books();
        if books.logins.len() == KEPT
            && let Some(oldest) = books.logins.iter().position(|login| login.may_be_revoked)
        {
            books.logins.remove(oldest);
        }
        let number = books.logins_begun;
        books.logins_begun += 1;
        let rotated = Instant::now();
        books.logins.push_back(Login { number, turn: 0, rotated, secret, may_be_revoked, revoked: false });
        refresh_token(number, 0, secret)
    }

    /// The access token, without a login: client credentials.
    pub(crate) fn issue(&self, secret: u64, lifetime: Duration) -> String {
        let mut books = self.books();
        if books.tokens.len() == KEPT {
            books.tokens.pop_front();
        }
        books.tokens.push_back(AccessToken { secret, expires: Instant::now() + lifetime, revoked: false });
        books.tokens_issued += 1;
        access_token(books.tokens_issued - 1, secret)
    }

    /// The refresh token that takes the place of this one, if this one is good (RFC 9700 §4.14).
    pub(crate) fn rotate(&self, presented: &str, revoke: bool) -> Option<String> {
        let (number, turn) = {
            let mut parts = presented.strip_prefix("rt-")?.split('-');
            (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?)
        };
        let mut books = self.books();
        let Books { logins, reused, replayed, .. } = &mut *books;
        // A login so old that it is forgotten is nobody's any more: a run that was replaced may still ask once. One that
        // cannot be revoked is never forgotten, for it is used to the end.
        let login = logins.iter_mut().find(|login| login.number == number)?;
        login.revoked |= revoke && login.may_be_revoked;
        if login.revoked || refresh_token(number, turn, login.secret) != presented {
            return None;
        }
        if turn == login.turn {
            (login.turn, login.rotated) = (turn + 1, Instant::now());
        } else if turn + 1 == login.turn && login.rotated.elapsed() < GRACE {
            *replayed += 1;
        } else {
            *reused += 1;
            login.revoked = true;
            return None;
        }
        Some(refresh_token(number, login.turn, login.secret))
    }

    pub(crate) fn standing(&self, token: &str) -> Standing {
        match self.books().access_token(token) {
            None => Standing::Unknown,
            Some(token) if token.expires <= Instant::now() => Standing::Expired,
            Some(token) if token.revoked => Standing::Revoked,
            Some(_) => Standing::Good,
        }
    }

    pub(crate) fn revoke(&self, token: &str) {
        if let Some(token) = self.books().access_token(token) {
            token.revoked = true;
        }
    }

    /// New signing keys: whatever was issued so far is refused.
    pub(crate) fn revoke_all(&self) {
        self.books().tokens.iter_mut().for_each(|token| token.revoked = true);
    }

    /// Refresh tokens that came again outside the grace.
    pub(crate) fn reused(&self) -> u64 {
        self.books().reused
    }

    /// Those that came again within it, because the answer was lost.
    pub(crate) fn replayed(&self) -> u64 {
        self.books().replayed
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Books {
    fn default() -> Self {
        Self {
            tokens: VecDeque::with_capacity(KEPT),
            tokens_issued: 0,
            logins: VecDeque::with_capacity(KEPT),
            logins_begun: 0,
            reused: 0,
            replayed: 0,
        }
    }
}

impl Books {
    fn access_token(&mut self, presented: &str) -> Option<&mut AccessToken> {
        let number = presented.strip_prefix("at-")?.split('-').next()?.parse::<u64>().ok()?;
        let kept_from = self.tokens_issued - self.tokens.len() as u64;
        let token = self.tokens.get_mut(usize::try_from(number.checked_sub(kept_from)?).ok()?)?;
        (access_token(number, token.secret) == presented).then_some(token)
    }
}

fn access_token(number: u64, secret: u64) -> String {
    format!("at-{number}-{secret:016x}")
}

fn refresh_token(login: u64, turn: u64, secret: u64) -> String {
    format!("rt-{login}-{turn}-{:016x}", secret.wrapping_mul(turn | 1))
}

/// How long a refresh token whose answer was lost is taken once more. Longer than any outage here.
const GRACE: Duration = Duration::from_secs(60);
/// More than are issued while one of them is good.
const KEPT: usize = 512;
