//! Requests as the servers log them, read and checked.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use url::form_urlencoded;

use super::{fields::FORM, message::Request, script::Answer};

/// A request that a [`ScriptedIdp`](crate::testing::ScriptedIdp) received.
///
/// Its `Debug` shows no secret.
#[derive(Clone)]
pub struct Call {
    at: Duration,
    headers: Vec<(String, String)>,
    parameters: Vec<(String, String)>,
    client: Option<(String, String)>,
    answered: String,
}

impl Call {
    /// When it arrived, counted from the start of the server, on tokio's clock.
    #[must_use]
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// `refresh_token` or `client_credentials`.
    #[must_use]
    pub fn grant_type(&self) -> &str {
        self.parameter("grant_type").unwrap_or_default()
    }

    /// The refresh token that was presented.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.parameter("refresh_token")
    }

    /// A parameter of the form.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        find(&self.parameters, name)
    }

    /// A header; the name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, &name.to_ascii_lowercase())
    }

    /// The client that presented itself, by `Authorization: Basic` or in the form (RFC 6749 §2.3.1).
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        let (id, _) = self.client.as_ref()?;
        Some(id)
    }

    /// What the answer was, as an [`Answer`] shows itself: `200 with a token`, `400 invalid_grant`.
    #[must_use]
    pub fn answered(&self) -> &str {
        &self.answered
    }

    /// Reads a request; what is wrong with it comes back as a sentence without secrets.
    pub(super) fn read(request: Request, at: Duration) -> Result<Self, String> {
        let path = request.path.split('?').next().unwrap_or_default();
        if (&*request.method, &*request.path) != ("POST", PATH) {
            return Err(format!("{} {path} instead of POST {PATH}", request.method));
        }
        let kind = request.header("content-type").unwrap_or("none");
        if !kind.to_ascii_lowercase().starts_with(FORM) {
            return Err(format!("content type {kind} instead of {FORM}"));
        }
        let parameters = read_form(&request.body)?;
        let client = read_client(request.header("authorization"), &parameters)?;
        match find(&parameters, "grant_type") {
            Some("client_credentials") => {}
            Some("refresh_token") if find(&parameters, "refresh_token").is_some() => {}
            Some("refresh_token") => return Err("the refresh_token grant without one".into()),
            Some(_) => return Err("a grant_type that the kit does not know".into()),
            None => return Err("a form without grant_type".into()),
        }
        Ok(Self { at, headers: request.headers, parameters, client, answered: String::new() })
    }

    pub(super) const fn client(&self) -> Option<&(String, String)> {
        self.client.as_ref()
    }

    /// The secrets in it, also as they are written in a header.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let basic = self.header("authorization");
        let basic = basic.and_then(|value| value.split_once(' '));
        let client = self.client.as_ref();
        [basic.map(|(_, credentials)| credentials), client.map(|(_, secret)| secret.as_str()), self.refresh_token()]
            .into_iter()
            .flatten()
    }

    pub(super) fn answer(mut self, answer: &Answer) -> Self {
        self.answered = answer.to_string();
        self
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.parameters.iter().map(|(name, _)| name);
        f.debug_struct("Call")
            .field("at", &self.at)
            .field("grant_type", &self.grant_type())
            .field("parameters", &names.collect::<Vec<_>>())
            .field("client_id", &self.client_id())
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}

/// A request that a [`ProtectedApi`](crate::testing::ProtectedApi) received.
///
/// Its `Debug` shows no secret.
#[derive(Clone)]
pub struct ApiCall {
    at: Duration,
    request: Request,
    answered: String,
}

impl ApiCall {
    /// When it arrived, counted from the start of the server, on tokio's clock.
    #[must_use]
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.request.method
    }

    /// The path, and the query if there was one.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.request.path
    }

    /// The bearer token that was presented.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// The header lines, their names in lower case.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.request.headers
    }

    /// The first header line of this name; the name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.request.headers, &name.to_ascii_lowercase())
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.request.body
    }

    /// What the answer was, as an [`Answer`] shows itself: `200`, `401`.
    #[must_use]
    pub fn answered(&self) -> &str {
        &self.answered
    }

    pub(super) fn read(request: Request, at: Duration) -> Result<Self, String> {
        let names = request.headers.iter().map(|(name, _)| name);
        if names.filter(|name| *name == "authorization").count() > 1 {
            return Err("a request with more than one Authorization".into());
        }
        Ok(Self { at, request, answered: String::new() })
    }

    pub(super) fn answer(mut self, answer: &Answer) -> Self {
        self.answered = answer.to_string();
        self
    }
}

impl fmt::Debug for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.headers().iter().map(|(name, _)| name);
        f.debug_struct("ApiCall")
            .field("at", &self.at)
            .field("method", &self.method())
            .field("path", &self.path())
            .field("headers", &names.collect::<Vec<_>>())
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = pairs.iter().find(|(known, _)| known == name)?;
    Some(value)
}

fn read_form(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut parameters = Vec::<(String, String)>::new();
    for (name, value) in form_urlencoded::parse(body).into_owned() {
        // RFC 6749 §3.2: parameters must not be included more than once.
        if find(&parameters, &name).is_some() {
            return Err(format!("a form with more than one {name}"));
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

/// A client's id and secret, from where it put them; more than one place is an error (RFC 6749 §2.3).
fn read_client(
    authorization: Option<&str>,
    parameters: &[(String, String)],
) -> Result<Option<(String, String)>, String> {
    let secret = find(parameters, "client_secret");
    let Some(authorization) = authorization else {
        let id = find(parameters, "client_id");
        return Ok(id.map(|id| (id.to_owned(), secret.unwrap_or_default().to_owned())));
    };
    if secret.is_some() {
        return Err("client credentials in the header and in the form".into());
    }
    let decoded = || {
        let (scheme, credentials) = authorization.split_once(' ')?;
        let bytes = STANDARD.decode(credentials).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (id, secret) = text.split_once(':')?;
        let basic = scheme.eq_ignore_ascii_case("basic");
        basic.then(|| (form_decoded(id), form_decoded(secret)))
    };
    decoded().map(Some).ok_or_else(|| "an Authorization header that is not Basic credentials".into())
}

/// RFC 6749 §2.3.1: id and secret are form-encoded before they go into Basic credentials.
fn form_decoded(text: &str) -> String {
    let name_only = form_urlencoded::parse(text.as_bytes()).next();
    name_only.map_or_else(String::new, |(text, _)| text.into_owned())
}

pub(super) const PATH: &str = "/token";
