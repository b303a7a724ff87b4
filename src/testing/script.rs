//! Answers: what a scripted server says, and what goes wrong on the way back.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{
    fields::{Edit, Fields, JSON},
    grants::{Mint, Pair},
    message::Message,
};

/// One answer of a [`ScriptedIdp`](crate::testing::ScriptedIdp) or a [`ProtectedApi`](crate::testing::ProtectedApi): what
/// to say, when, and what goes wrong with it.
///
/// The constructors name the common answers; the methods change one thing about an answer; and [`Answer::raw`] is there for
/// everything else.
///
/// ```
/// use std::time::Duration;
/// use steadfast::testing::{Answer, Mishap};
///
/// let slow_proxy = Answer::status(503).retry_after(Duration::from_secs(30)).after(Duration::from_secs(5));
/// let string_lifetime = Answer::success().expires_in("3600");
/// let lost_rotation = Answer::success().but(Mishap::Reset);
/// assert_eq!(slow_proxy.to_string(), "503");
/// assert_eq!(string_lifetime.to_string(), "200 with a token");
/// assert_eq!(lost_rotation.to_string(), "200 with a token, but Reset");
/// ```
#[derive(Clone, PartialEq)]
#[must_use]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    content: Content,
    delay: Duration,
    mishap: Option<Mishap>,
}

/// What goes wrong with an answer after the request has been processed: the token is issued, the old refresh token is
/// used up, and the client does not get to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mishap {
    /// Half of the body, less than `Content-Length` says, and the end of the connection.
    Truncated,
    /// `HTTP/1.1 2` and the end of the connection.
    HalfAStatusLine,
    /// The end of the connection, without an answer.
    Eof,
    /// A reset of the connection (RST), without an answer.
    Reset,
    /// Nothing at all, until the client closes the connection.
    Hang,
    /// The head at once, then the body byte by byte with this pause before each.
    Drip(Duration),
}

#[derive(Clone, PartialEq)]
enum Content {
    Fields(Fields),
    Body(Vec<u8>),
    Raw(Vec<u8>),
    /// The request is not even processed.
    Nothing,
}

impl Answer {
    /// What a healthy token endpoint does (RFC 6749 §5.1): checks the grant and issues a token that is good for an hour.
    /// A grant that is not good gets its `invalid_grant`.
    pub const fn success() -> Self {
        Self::new(200, Content::Fields(Fields::new(true)))
    }

    /// An OAuth error (RFC 6749 §5.2): status 400, a JSON object with this `error`.
    ///
    /// [`with_status`](Self::with_status) makes it GitHub's error on status 200,
    /// [`form_encoded`](Self::form_encoded) Facebook's of old, and [`with`](Self::with) adds Entra's `error_codes`.
    pub fn error(code: &str) -> Self {
        Self::new(400, Content::Fields(Fields::new(false))).with("error", code)
    }

    /// This status with an empty body.
    pub const fn status(status: u16) -> Self {
        Self::new(status, Content::Body(Vec::new()))
    }

    /// A web application firewall: 403 with an HTML page.
    pub fn waf() -> Self {
        Self::status(403).html(WAF_PAGE)
    }

    /// A captive portal: 200 with an HTML page.
    pub fn captive_portal() -> Self {
        Self::status(200).html(PORTAL_PAGE)
    }

    /// A redirect: 302 to `location`.
    pub fn redirect(location: &str) -> Self {
        Self::status(302).header("location", location)
    }

    /// No answer, until the client closes the connection. The request is not processed.
    pub const fn hang() -> Self {
        Self::nothing(Mishap::Hang)
    }

    /// A reset of the connection (RST). The request is not processed.
    pub const fn reset() -> Self {
        Self::nothing(Mishap::Reset)
    }

    /// The end of the connection, without an answer. The request is not processed.
    pub const fn eof() -> Self {
        Self::nothing(Mishap::Eof)
    }

    /// These bytes instead of an HTTP response, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(0, Content::Raw(bytes.into()))
    }

    /// Another status.
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header line. `content-type`, `content-length`, `connection` and `cache-control` replace the kit's own.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Retry-After` in seconds (RFC 9110 §10.2.3).
    pub fn retry_after(self, delay: Duration) -> Self {
        self.header("retry-after", &delay.as_secs().to_string())
    }

    /// `Retry-After` as a date, this long after the `Date` that comes with it.
    ///
    /// Both lie in 2001: a client that measures against its own clock finds the date long past.
    pub fn retry_after_date(self, delay: Duration) -> Self {
        let now = SystemTime::UNIX_EPOCH + SERVER_TIME;
        self.header("date", &httpdate::fmt_http_date(now)).header("retry-after", &httpdate::fmt_http_date(now + delay))
    }

    /// This body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.content = Content::Body(body.into());
        self
    }

    /// This body, as an HTML page.
    pub fn html(self, page: &str) -> Self {
        self.header("content-type", HTML).body(page)
    }

    /// This body, as JSON.
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", JSON).body(value.to_string())
    }

    /// Sets a field of a [`success`](Self::success) or an [`error`](Self::error), whatever it was.
    ///
    /// An `access_token` or `refresh_token` set here counts as issued.
    ///
    /// # Panics
    ///
    /// If the answer is neither.
    #[track_caller]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields().edit(name, Edit::Set(value.into()));
        self
    }

    /// Leaves a field of a [`success`](Self::success) or an [`error`](Self::error) out.
    ///
    /// # Panics
    ///
    /// If the answer is neither.
    #[track_caller]
    pub fn without(mut self, name: &str) -> Self {
        self.fields().edit(name, Edit::LeaveOut);
        self
    }

    /// Another `expires_in` than 3600: a number, a string, or any other JSON value. The token expires accordingly, or never
    /// if that makes no sense.
    ///
    /// # Panics
    ///
    /// If the answer is neither a [`success`](Self::success) nor an [`error`](Self::error).
    #[track_caller]
    pub fn expires_in(self, lifetime: impl Into<Value>) -> Self {
        self.with("expires_in", lifetime)
    }

    /// Fields as a form instead of JSON (`application/x-www-form-urlencoded`).
    ///
    /// # Panics
    ///
    /// If the answer is neither a [`success`](Self::success) nor an [`error`](Self::error).
    #[track_caller]
    pub fn form_encoded(mut self) -> Self {
        self.fields().encode_as_form();
        self
    }

    /// Says it this much later. A client that closes the connection meanwhile ends the exchange.
    pub const fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Processes the request, but something goes wrong on the way back.
    pub const fn but(mut self, mishap: Mishap) -> Self {
        self.mishap = Some(mishap);
        self
    }

    pub(super) const fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) const fn mishap(&self) -> Option<Mishap> {
        self.mishap
    }

    /// This answer, but as late as the planned one, and with its mishap.
    pub(super) const fn instead_of(mut self, planned: &Self) -> Self {
        self.delay = planned.delay;
        self.mishap = planned.mishap;
        self
    }

    /// What to issue, if anything is to be issued.
    pub(super) fn mint(&self) -> Option<Mint> {
        match &self.content {
            Content::Fields(fields) => fields.mint(),
            Content::Body(_) | Content::Raw(_) | Content::Nothing => None,
        }
    }

    /// The answer as it is sent, with what was issued for it.
    pub(super) fn message(&self, issued: Option<&Pair>) -> Message {
        let (kind, body) = match &self.content {
            Content::Fields(fields) => fields.encode(issued),
            Content::Body(body) => ("", body.clone()),
            Content::Raw(bytes) => return Message::raw(bytes.clone()),
            Content::Nothing => return Message::raw(Vec::new()),
        };
        Message::new(self.status, &self.headers, kind, body)
    }

    const fn new(status: u16, content: Content) -> Self {
        Self { status, headers: Vec::new(), content, delay: Duration::ZERO, mishap: None }
    }

    const fn nothing(mishap: Mishap) -> Self {
        Self::new(0, Content::Nothing).but(mishap)
    }

    #[track_caller]
    fn fields(&mut self) -> &mut Fields {
        match &mut self.content {
            Content::Fields(fields) => fields,
            Content::Body(_) | Content::Raw(_) | Content::Nothing => {
                panic!("only Answer::success() and Answer::error() have fields")
            }
        }
    }
}

/// Says what the answer is, without any secret in it: `400 invalid_grant`, `503, but Reset`.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Fields(fields) => match fields.error() {
                Some(code) => write!(f, "{} {code}", self.status)?,
                None if fields.mint().is_some() => write!(f, "{} with a token", self.status)?,
                None => write!(f, "{}", self.status)?,
            },
            Content::Body(_) => write!(f, "{}", self.status)?,
            Content::Raw(_) => f.write_str("raw bytes")?,
            Content::Nothing => f.write_str("nothing")?,
        }
        match self.mishap {
            Some(mishap) => write!(f, ", but {mishap:?}"),
            None => Ok(()),
        }
    }
}

/// As [`Display`](fmt::Display): an answer can carry secrets that a test made up.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({self})")
    }
}

/// What a server says next.
#[derive(Default)]
pub(super) struct Script {
    queue: VecDeque<Answer>,
    standing: Option<Answer>,
}

impl Script {
    pub(super) fn queue(&mut self, answer: Answer) {
        self.queue.push_back(answer);
    }

    pub(super) fn stand(&mut self, answer: Option<Answer>) {
        self.standing = answer;
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn next(&mut self) -> Option<Answer> {
        self.queue.pop_front().or_else(|| self.standing.clone())
    }
}

const HTML: &str = "text/html; charset=utf-8";
const WAF_PAGE: &str = "<!DOCTYPE html><title>Request blocked</title><h1>Access denied</h1>\n<p>The requested URL was rejected. Reference: 18446744073709.";
const PORTAL_PAGE: &str =
    "<!DOCTYPE html><title>Welcome</title><h1>Guest Wi-Fi</h1>\n<form>Accept the terms to go on.</form>";
/// 9 September 2001.
const SERVER_TIME: Duration = Duration::from_secs(1_000_000_000);
