//! What somebody else's error means: authentication, a time-out, a dead backend, or none of these.
//!
//! A [`Classifier`] looks at the types in an error's `source()` chain first, and at its texts only when no type said
//! anything. It does not take a look-alike (`error 4010 occurred`) for the real thing.
//!
//! ```
//! use std::io;
//! use steadfast::classify::{Class, Classifier};
//!
//! let classifier = Classifier::standard();
//!
//! let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
//! assert_eq!(classifier.classify(&refused).class(), Class::Unavailable);
//!
//! // A chain that lost its types still has its text.
//! let lost = io::Error::other("upstream said: 401 Unauthorized");
//! let classified = classifier.classify(&lost);
//! assert_eq!(classified.class(), Class::Authentication);
//! assert_eq!(classified.rule(), "401-unauthorized");
//!
//! assert_eq!(classifier.classify_text("error 4010 occurred").class(), Class::Unknown);
//! ```
//!
//! # Who is asked first
//!
//! 1. the host's typed rules ([`on`](Classifier::on), [`on_status`](Classifier::on_status)), on every error of the chain from
//!    the outermost inwards, in the order they were added. The first answer is final;
//! 2. our typed rules, on the whole chain;
//! 3. the host's phrases ([`on_phrase`](Classifier::on_phrase)) in the texts of the chain;
//! 4. our phrases.
//!
//! A later step is taken only if the earlier ones said nothing: **a type beats any text**.
//!
//! # When a chain says several things
//!
//! *An answer beats silence, and the more telling silence beats the less telling one*: `Authentication`, `Authorization` and
//! `RateLimited` beat `Timeout`, which beats `Cancelled`, which beats `Unavailable`; among equals the outermost error, or
//! the earliest place in a text, wins. So a time-out inside a connection error is a `Timeout`, a 401 inside a decode
//! error is `Authentication`, and a time-out while the body of a 401 was read is `Authentication`.
//!
//! One exception: under an error of the way to a token (one of *our own*, or of the `oauth2` crate) no authentication or
//! authorization is believed, whichever rules are removed. It would be a word of the token endpoint, or of a proxy in front of
//! it, about a request that never reached the backend. [`Classified::is_of_token_path`] says that an error is such a one.
//!
//! Wrappers whose `source()` leaves out the very error they wrap are opened: `std::io::Error`, `Arc<dyn Error>`, `h2::Error`,
//! `reqwest_middleware::Error`, and the boxed `reqwest::Error` of the `oauth2` crate.
//!
//! # How well texts are read
//!
//! The phrases were written by 673 texts of libraries and services, and read each of them as a human does. Of 121 texts that were
//! collected by somebody who had not seen the phrases they read 78 of the 86 that mean something, none of these as another
//! class, and take 4 of the 35 that mean nothing for something. So what a text is recognised as can mostly be believed, and one
//! in ten that means something is not recognised. Where a host knows its backends' words, it should add them.
//!
//! # The rules
#![doc = include_str!("classify/rules.md")]

use std::{any::type_name, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use crate::failure::chain;

mod anchors;
mod class;
mod phrases;
mod scan;
mod typed;
mod words;
pub use class::{Class, Classified, Evidence};
use phrases::{PHRASES, Phrase, STANDARD};
use scan::{Hit, Index, Row, Shown, Table};
use typed::{Finding, TYPED, is_of_token_path};

/// Says what an error means. Cheap to clone, and [`standard`](Classifier::standard) fits in a `static`.
///
/// ```
/// use std::fmt;
/// use steadfast::classify::{Class, Classifier};
///
/// #[derive(Debug)]
/// struct QuotaSpent;
/// impl fmt::Display for QuotaSpent {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str("no more calls this month")
///     }
/// }
/// impl std::error::Error for QuotaSpent {}
///
/// let classifier = Classifier::standard()
///     .on(|_: &QuotaSpent| Some(Class::RateLimited))
///     .on_phrase("please sign in", Class::Authentication)
///     .without("timeout");
///
/// assert_eq!(classifier.classify(&QuotaSpent).class(), Class::RateLimited);
/// assert_eq!(classifier.classify_text("Please sign in.").class(), Class::Authentication);
/// assert_eq!(classifier.classify_text("the timeout is a song").class(), Class::Unknown);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    // None: nothing but our own rules. Keeps `standard()` const.
    host: Option<Arc<Host>>,
}

impl Classifier {
    /// The rules listed in the [module's documentation](self), and nothing else.
    #[must_use]
    pub const fn standard() -> Self {
        Self { host: None }
    }

    /// Adds a rule for the host's own error type, or for a case in which the host knows better than we do. `None` passes the
    /// error on to the other rules. The rule's name is the type's.
    #[must_use]
    pub fn on<E: Error + 'static>(self, rule: impl Fn(&E) -> Option<Class> + Send + Sync + 'static) -> Self {
        self.on_finding(move |error: &E| rule(error).map(|class| Finding { class, retry_after: None }))
    }

    /// Adds a rule for an error type that carries an HTTP status, read by [`Class::of_status`].
    ///
    /// ```
    /// use std::{fmt, time::Duration};
    /// use http::StatusCode;
    /// use steadfast::classify::{CarriesStatus, Class, Classifier};
    ///
    /// #[derive(Debug)]
    /// struct ApiError(StatusCode);
    /// impl fmt::Display for ApiError {
    ///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    ///         f.write_str("the API refused")
    ///     }
    /// }
    /// impl std::error::Error for ApiError {}
    /// impl CarriesStatus for ApiError {
    ///     fn status(&self) -> Option<StatusCode> {
    ///         Some(self.0)
    ///     }
    ///     fn retry_after(&self) -> Option<Duration> {
    ///         Some(Duration::from_secs(7))
    ///     }
    /// }
    ///
    /// let classified = Classifier::standard()
    ///     .on_status::<ApiError>()
    ///     .classify(&ApiError(StatusCode::TOO_MANY_REQUESTS));
    /// assert_eq!(classified.class(), Class::RateLimited);
    /// assert_eq!(classified.retry_after(), Some(Duration::from_secs(7)));
    /// ```
    #[must_use]
    pub fn on_status<E: CarriesStatus + Error + 'static>(self) -> Self {
        self.on_finding(|error: &E| {
            Some(Finding { class: Class::of_status(error.status()?)?, retry_after: error.retry_after() })
        })
    }

    /// Adds a phrase: words, found whole and in any ASCII case, in texts that no type spoke for. A capital letter
    /// is found in exactly that case, and punctuation as it is: `don't` is not found in `dont`. The phrase is the rule's name;
    /// one that has no word of three letters (`is up`) is never found.
    #[must_use]
    pub fn on_phrase(mut self, phrase: &'static str, class: Class) -> Self {
        self.host_mut().add_phrase(Phrase::of_host(phrase, class));
        self
    }

    /// Removes a rule of ours or of the host by its [name](Classified::rule). A name that no rule has changes nothing, so
    /// that a rule whose feature is off can be named.
    #[must_use]
    pub fn without(mut self, rule: &'static str) -> Self {
        self.host_mut().removed.push(rule);
        self
    }

    /// Says what the error means. Looks at no more than 32 errors of the chain and the first 4 KiB of each text, and allocates
    /// nothing.
    #[must_use]
    pub fn classify(&self, error: &(dyn Error + 'static)) -> Classified {
        let classified = self
            .by_host_type(error)
            .or_else(|| self.by_our_type(error))
            .or_else(|| self.by_text(error))
            .unwrap_or(Classified::UNKNOWN);
        classified.with_token_path(chain(error).any(is_of_token_path))
    }

    /// Says what a text means that is all that is left of an error.
    #[must_use]
    pub fn classify_text(&self, text: &str) -> Classified {
        self.in_phrases(|table| table.scan(text.as_bytes(), self.removed()))
            .map_or(Classified::UNKNOWN, Classified::by_text)
    }

    /// Every rule of ours that is compiled in: those by type, then the phrases.
    pub fn rules() -> impl Iterator<Item = Rule> {
        let typed = TYPED.iter().map(|rule| Rule {
            name: rule.name,
            evidence: Evidence::Type,
            says: rule.says,
            origin: rule.origin,
        });
        let phrases = PHRASES.iter().map(|phrase| Rule {
            name: phrase.name,
            evidence: Evidence::Text,
            says: phrase.says.as_str(),
            origin: phrase.origin,
        });
        typed.chain(phrases)
    }

    fn by_host_type(&self, error: &(dyn Error + 'static)) -> Option<Classified> {
        let host = self.host.as_deref()?;
        chain(error).find_map(|link| {
            let mut asked = host.typed.iter().filter(|rule| !host.removes(rule.name));
            asked.find_map(|rule| Some(Classified::by_type(rule.name, (rule.look)(link)?)))
        })
    }

    fn by_our_type(&self, error: &(dyn Error + 'static)) -> Option<Classified> {
        let mut best: Option<Classified> = None;
        for (link, on_token_path) in shielded_chain(error) {
            let finding = TYPED.iter().find_map(|rule| Some((rule, (rule.look)(link)?)));
            let Some((rule, finding)) = finding else {
                continue;
            };
            if self.removed().contains(&rule.name) || (on_token_path && finding.class.is_auth()) {
                continue;
            }
            let outweighs = |best: Classified| finding.class.weight() > best.class().weight();
            if best.is_none_or(outweighs) {
                best = Some(Classified::by_type(rule.name, finding));
            }
            if finding.class.is_answer() {
                break;
            }
        }
        best
    }

    fn by_text(&self, error: &(dyn Error + 'static)) -> Option<Classified> {
        let mut shown = Shown::new();
        let hit = self.in_phrases(|table| {
            let mut best: Option<Hit> = None;
            for (link, on_token_path) in shielded_chain(error) {
                let hit = table.scan(shown.text_of(link), self.removed());
                best = Hit::heavier(best, hit.filter(|hit| !(on_token_path && hit.class.is_auth())));
                if best.is_some_and(|hit| hit.class.is_answer()) {
                    break;
                }
            }
            best
        });
        hit.map(Classified::by_text)
    }

    /// Asks the host's phrases, then ours.
    fn in_phrases(&self, mut ask: impl FnMut(&Table<'_>) -> Option<Hit>) -> Option<Hit> {
        let host = self.host.as_deref().filter(|host| !host.phrases.is_empty());
        host.and_then(|host| ask(&host.index.table(&host.phrases))).or_else(|| ask(&STANDARD))
    }

    fn removed(&self) -> &[&'static str] {
        self.host.as_deref().map_or(&[], |host| &host.removed)
    }

    fn on_finding<E: Error + 'static>(mut self, rule: impl Fn(&E) -> Option<Finding> + Send + Sync + 'static) -> Self {
        self.host_mut()
            .typed
            .push(HostTyped { name: type_name::<E>(), look: Arc::new(move |error| rule(error.downcast_ref()?)) });
        self
    }

    fn host_mut(&mut self) -> &mut Host {
        Arc::make_mut(self.host.get_or_insert_default())
    }
}

/// Each error of the chain, and whether it is beneath one of the way to a token.
fn shielded_chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = (&'a (dyn Error + 'static), bool)> {
    chain(error).scan(false, |beneath, link| {
        let shielded = *beneath;
        *beneath |= is_of_token_path(link);
        Some((link, shielded))
    })
}

/// An error that carries the HTTP status of the answer it is about; see [`Classifier::on_status`].
pub trait CarriesStatus {
    /// The status, if there was an answer.
    fn status(&self) -> Option<StatusCode>;

    /// How long the answer asked to stay away. Defaults to `None`.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// One of our rules, as [`Classifier::rules`] lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// The name that [`Classified::rule`] answers and [`Classifier::without`] takes.
    pub name: &'static str,
    /// Whether the rule looks at a type or at a text.
    pub evidence: Evidence,
    /// The class it answers with.
    pub says: &'static str,
    /// The library that returns the type, or prints the text.
    pub origin: &'static str,
}

/// What a host added and removed.
#[derive(Clone, Debug, Default)]
struct Host {
    typed: Vec<HostTyped>,
    phrases: Vec<Phrase>,
    index: Index<Vec<Row>>,
    removed: Vec<&'static str>,
}

impl Host {
    fn add_phrase(&mut self, phrase: Phrase) {
        self.phrases.push(phrase);
        self.index = Index::of(&self.phrases);
    }

    fn removes(&self, rule: &str) -> bool {
        self.removed.contains(&rule)
    }
}

#[derive(Clone)]
struct HostTyped {
    name: &'static str,
    look: HostLook,
}

type HostLook = Arc<dyn Fn(&(dyn Error + 'static)) -> Option<Finding> + Send + Sync>;

impl fmt::Debug for HostTyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
