//! What comes out: a class, and how it was reached.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::{scan::Hit, typed::Finding};

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The credentials are missing, wrong or no longer good (401, RFC 9110 §15.5.2).
    Authentication,
    /// The credentials are good, but not for this (403, RFC 9110 §15.5.4).
    Authorization,
    /// Too many requests (429, RFC 6585 §4).
    RateLimited,
    /// No answer in time.
    Timeout,
    /// Given up by this side or by the peer, on purpose.
    Cancelled,
    /// The other side cannot be reached, broke off, or says that it is unwell (5xx).
    Unavailable,
    /// No rule knows the error.
    Unknown,
}

impl Class {
    /// Whether the error is about who is asking: [`Authentication`](Self::Authentication) or
    /// [`Authorization`](Self::Authorization).
    #[must_use]
    pub const fn is_auth(self) -> bool {
        matches!(self, Self::Authentication | Self::Authorization)
    }

    /// What an HTTP status means, if it means one of the classes.
    ///
    /// 401, 403, 408 and 429 have a class each. 407 and every 5xx but 501 and 505 is
    /// [`Unavailable`](Self::Unavailable): after a proxy's 407 the backend was never reached, which must not be taken for a
    /// sign of life, and a 504 is another's time-out, not ours.
    #[must_use]
    pub const fn of_status(status: StatusCode) -> Option<Self> {
        Self::of_number(status.as_u16())
    }

    pub(super) const fn of_number(status: u16) -> Option<Self> {
        match status {
            401 => Some(Self::Authentication),
            403 => Some(Self::Authorization),
            408 => Some(Self::Timeout),
            429 => Some(Self::RateLimited),
            501 | 505 => None,
            407 | 500..=599 => Some(Self::Unavailable),
            _ => None,
        }
    }

    /// The class in lower case, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::RateLimited => "rate limited",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        }
    }

    /// Of several classes in one error the heaviest is believed.
    pub(super) const fn weight(self) -> u8 {
        match self {
            Self::Authentication | Self::Authorization | Self::RateLimited => 4,
            Self::Timeout => 3,
            Self::Cancelled => 2,
            Self::Unavailable => 1,
            Self::Unknown => 0,
        }
    }

    /// Somebody answered. Nothing outweighs that, so the search ends.
    pub(super) const fn is_answer(self) -> bool {
        self.weight() == Self::Authentication.weight()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A [`Class`], and how it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    class: Class,
    rule: &'static str,
    evidence: Evidence,
    retry_after: Option<Duration>,
    of_token_path: bool,
}

impl Classified {
    pub(super) const UNKNOWN: Self = Self {
        class: Class::Unknown,
        rule: "unrecognised",
        evidence: Evidence::None,
        retry_after: None,
        of_token_path: false,
    };

    /// What the error means.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The name of the rule that spoke, for logs and for [`Classifier::without`](super::Classifier::without); `unrecognised` if none did.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }

    /// What the rule looked at.
    #[must_use]
    pub const fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// How long the other side asked us to stay away (`Retry-After`, RFC 9110 §10.2.3), where the error carries it.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the error is about who is asking.
    #[must_use]
    pub const fn is_auth(&self) -> bool {
        self.class.is_auth()
    }

    /// Whether an error of the way to a token is in the chain, by its type: one of ours, or of the `oauth2` crate. Then the class
    /// is about that way. Of the backend it says nothing, not even that it answers.
    #[must_use]
    pub const fn is_of_token_path(&self) -> bool {
        self.of_token_path
    }

    pub(super) fn with_token_path(self, of_token_path: bool) -> Self {
        Self { of_token_path, ..self }
    }

    pub(super) fn by_type(rule: &'static str, finding: Finding) -> Self {
        let Finding { class, retry_after } = finding;
        Self { class, rule, evidence: Evidence::Type, retry_after, ..Self::UNKNOWN }
    }

    pub(super) fn by_text(hit: Hit) -> Self {
        Self { class: hit.class, rule: hit.rule, evidence: Evidence::Text, ..Self::UNKNOWN }
    }
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The type of an error, and what the error itself says about its kind.
    Type,
    /// Words in a text: weaker, for texts change without notice.
    Text,
    /// Nothing: no rule spoke.
    None,
}
