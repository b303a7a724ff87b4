//! The data format, as `README.md` describes it. What it does not know is an error.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};

use super::policy::Policy;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) why: String,
    #[serde(default)]
    pub(crate) covers: Vec<String>,
    /// What the AWS SDKs do instead.
    pub(crate) differs: Option<String>,
    #[serde(default)]
    pub(crate) given: Given,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Given {
    pub(crate) source: Source,
    pub(crate) policy: Policy,
    /// `None`: a refresh token stays as it is.
    pub(crate) rotation: Option<Rotation>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) always: Option<Answer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Source {
    #[default]
    #[serde(rename = "refresh token")]
    RefreshToken,
    #[serde(rename = "static token")]
    StaticToken,
    #[serde(rename = "shared login")]
    SharedLogin,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    pub(crate) grace: Span,
}

/// One answer of the token endpoint: exactly one of `token`, `oauth_error`, `status`, `connection`, and what goes with it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) token: Option<Lifetime>,
    pub(crate) oauth_error: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) connection: Option<Connection>,
    /// Of the answer with `token`: fields to add, replace or (`null`) leave out.
    #[serde(default)]
    pub(crate) fields: Map<String, Value>,
    pub(crate) retry_after: Option<Span>,
    #[serde(default)]
    pub(crate) body: String,
    #[serde(default)]
    pub(crate) takes: Span,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Lifetime {
    Unknown(Unknown),
    Known(Span),
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum Unknown {
    #[serde(rename = "of unknown lifetime")]
    OfUnknownLifetime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Connection {
    Refused,
    /// After the server has done its part.
    Lost,
    Hangs,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(crate) struct Step {
    pub(crate) process: String,
    pub(crate) action: Option<Action>,
    pub(crate) expect: Expect,
}

impl TryFrom<Map<String, Value>> for Step {
    type Error = serde_json::Error;

    fn try_from(mut step: Map<String, Value>) -> Result<Self, Self::Error> {
        let process = step.remove("in").map(serde_json::from_value).transpose()?.unwrap_or_else(|| "a".to_owned());
        let expect = step.remove("expect").map(serde_json::from_value).transpose()?.unwrap_or_default();
        let _note: Option<String> = step.remove("note").map(serde_json::from_value).transpose()?;
        let action = if step.is_empty() { None } else { Some(serde_json::from_value(Value::Object(step))?) };
        Ok(Self { process, action, expect })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Answers(Vec<Answer>),
    Always(Option<Answer>),
    Advance(Span),
    AdvanceTo(Span),
    Suspend(Span),
    Oversleep(Span),
    SetWallClock(Shift),
    Ask(Ask),
    Answered(String),
    Refuse(Refuse),
    Accept(u64),
    Request(ApiRequest),
    Do(Deed),
    Reauthenticate(Script),
    Start(Start),
    Store(StoreDeed),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    pub(crate) callers: usize,
    pub(crate) after: Option<u64>,
    #[serde(rename = "as")]
    pub(crate) name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refuse {
    pub(crate) generation: u64,
    pub(crate) challenge: Option<String>,
    #[serde(default = "one")]
    pub(crate) times: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiRequest {
    pub(crate) resend: bool,
    pub(crate) answers: Vec<ApiAnswer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiAnswer {
    pub(crate) status: u16,
    pub(crate) challenge: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum Deed {
    #[serde(rename = "nudge")]
    Nudge,
    #[serde(rename = "shut down")]
    ShutDown,
    #[serde(rename = "drop every handle")]
    DropEveryHandle,
    #[serde(rename = "restore the login")]
    Restore,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    #[serde(default)]
    pub(crate) answers: Vec<Answer>,
    pub(crate) always: Option<Answer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    pub(crate) process: String,
    #[serde(default)]
    pub(crate) signed_in_anew: bool,
    pub(crate) account: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreDeed {
    Fails(Vec<StoreCall>),
    LeasedElsewhereFor(Span),
    LosesItsContents(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreCall {
    Lease,
    Renew,
    Load,
    Commit,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    // What the step itself brought.
    pub(crate) token: Option<u64>,
    pub(crate) error: Option<String>,
    #[serde(deserialize_with = "given")]
    pub(crate) retry_after: Option<Option<Range<Span>>>,
    pub(crate) takes: Option<Range<Span>>,
    pub(crate) answer: Option<String>,
    pub(crate) settles_in: Option<Range<Span>>,
    pub(crate) still_served: Option<bool>,
    pub(crate) response: Option<u16>,
    pub(crate) sent_with: Option<Vec<u64>>,
    // How things stand after it.
    pub(crate) exchanges: Option<Range<usize>>,
    pub(crate) exchanges_in_step: Option<Range<usize>>,
    pub(crate) last_exchange_at: Option<Range<Span>>,
    pub(crate) refresh_tokens_sent: Option<Vec<String>>,
    pub(crate) reuse_detected: Option<bool>,
    #[serde(deserialize_with = "given")]
    pub(crate) claims_asked_for: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    pub(crate) serving: Option<Option<u64>>,
    pub(crate) status: Option<String>,
    #[serde(deserialize_with = "given")]
    pub(crate) next_attempt: Option<Option<Range<Span>>>,
    pub(crate) in_flight: Option<bool>,
    pub(crate) events: Option<Vec<Event>>,
    #[serde(deserialize_with = "given")]
    pub(crate) stored: Option<Option<Stored>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) serving: bool,
    #[serde(default)]
    pub(crate) unsaved: bool,
    #[serde(default)]
    pub(crate) remedy: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stored {
    pub(crate) refresh_token: Option<String>,
    pub(crate) tombstone: Option<String>,
    pub(crate) account: Option<String>,
}

/// A duration in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

/// How far the wall clock is set: `+1d`, `-2h`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shift {
    Forward(Duration),
    Back(Duration),
}

impl<'de> Deserialize<'de> for Shift {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let by = |span: &str| humantime::parse_duration(span).map_err(D::Error::custom);
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(span), _) => by(span).map(Self::Forward),
            (_, Some(span)) => by(span).map(Self::Back),
            (None, None) => Err(D::Error::custom(format!("{text:?} begins with neither + nor -"))),
        }
    }
}

/// One value, or all between two, both included.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Range<T> {
    Exactly(T),
    Between(Bounds<T>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds<T> {
    from: T,
    to: T,
}

impl<T: PartialOrd> Range<T> {
    pub(crate) fn holds(&self, found: &T) -> bool {
        match self {
            Self::Exactly(value) => found == value,
            Self::Between(Bounds { from, to }) => from <= found && found <= to,
        }
    }
}

/// A field that is there, though it may be `null`.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

const fn one() -> usize {
    1
}
