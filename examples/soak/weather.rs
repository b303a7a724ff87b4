//! What goes wrong, and when: the dice, and how often they are thrown in which mood.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;

pub(crate) struct Weather(Mutex<(Mood, Rng)>);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nothing goes wrong, and tokens live long enough for a rest.
    Calm,
    Stormy,
    /// The authorization server answers nobody.
    Down,
}

/// What a server does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Well,
    Slow(Duration),
    Status(u16),
    /// 429 with `Retry-After`.
    Limited,
    /// A firewall's page instead of an answer.
    Waf,
    Reset,
    Hang,
    /// The request is acted on, and the answer does not arrive.
    Lost,
    /// The user or an administrator has ended the login.
    Revoked,
    /// The token is good, but this replica has not heard of it.
    Stale,
    /// The token that came is not good any more.
    Rotated,
}

impl Weather {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new((Mood::Stormy, Rng::with_seed(seed))))
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.state().0 = mood;
    }

    /// How long a token lives. Calm ones outlast the quiet phase and the rest: half a life passes before a refresh.
    pub(crate) fn lifetime(&self) -> Duration {
        match self.state().0 {
            Mood::Calm => Duration::from_secs(24),
            Mood::Stormy | Mood::Down => Duration::from_secs(2),
        }
    }

    pub(crate) fn at_the_token_endpoint(&self) -> Fate {
        let (mood, rng) = &mut *self.state();
        match (mood, rng.u8(..100)) {
            (Mood::Calm, _) | (Mood::Stormy, 0..60) => Fate::Well,
            (Mood::Stormy, 60..68) => Fate::Slow(Duration::from_millis(rng.u64(50..500))),
            (Mood::Stormy, 68..74) => Fate::Status(*rng.choice(&[500, 502, 503, 504]).unwrap_or(&500)),
            (Mood::Stormy, 74..78) => Fate::Limited,
            (Mood::Stormy, 78..83) => Fate::Waf,
            (Mood::Stormy, 83..88) => Fate::Reset,
            (Mood::Stormy, 88..92) => Fate::Hang,
            (Mood::Stormy, 92..98) => Fate::Lost,
            (Mood::Stormy, _) => Fate::Revoked,
            (Mood::Down, 0..50) => Fate::Waf,
            (Mood::Down, 50..75) => Fate::Status(503),
            (Mood::Down, _) => Fate::Reset,
        }
    }

    pub(crate) fn at_the_api(&self) -> Fate {
        let (mood, rng) = &mut *self.state();
        match (mood, rng.u16(..1000)) {
            (Mood::Calm, _) | (_, 0..900) => Fate::Well,
            (_, 900..930) => Fate::Slow(Duration::from_millis(rng.u64(10..200))),
            (_, 930..970) => Fate::Status(503),
            (_, 970..985) => Fate::Stale,
            (_, 985..987) => Fate::Rotated,
            (_, 987..995) => Fate::Reset,
            (_, 995..) => Fate::Hang,
        }
    }

    pub(crate) fn chance(&self, percent: u8) -> bool {
        self.state().1.u8(..100) < percent
    }

    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.state().1.u64(range))
    }

    pub(crate) fn number(&self) -> u64 {
        self.state().1.u64(..)
    }

    fn state(&self) -> MutexGuard<'_, (Mood, Rng)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
