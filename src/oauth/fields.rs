//! The fields of an answer, however the server wrote them down.

use http::header::CONTENT_TYPE;
use secrecy::SecretString;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::http::MAX_BODY;
use crate::Lifetime;

/// The top level of a JSON object or of a form; empty for everything else. A key that comes twice counts as its last.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn read(answer: &http::Response<Vec<u8>>) -> Self {
        if answer.body().len() > MAX_BODY {
            return Self(Map::new());
        }
        // Lossy, because a description in Latin-1 must not hide the code beside it.
        let text = String::from_utf8_lossy(answer.body());
        let text = text.trim_start_matches('\u{feff}').trim();
        // The content type has no say over JSON: servers call it text/html and text/javascript.
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Self(fields),
            _ if is_form(answer, text) => Self::from_form(text),
            _ => Self(Map::new()),
        }
    }

    fn from_form(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A field that is a text and not blank.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let text = self.get(name)?.as_str()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// A token: visible ASCII and blanks (RFC 6749 appendix A.12), or it could not be sent.
    pub(super) fn token(&self, name: &str) -> Option<SecretString> {
        let is_token = |text: &&str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        self.text(name).filter(is_token).map(SecretString::from)
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        match self.get("expires_in") {
            None | Some(Value::Null) => Lifetime::Unknown,
            Some(Value::Number(number)) => number.as_f64().map_or(Lifetime::Malformed, Lifetime::from_secs),
            Some(Value::String(text)) => Lifetime::from_text(text),
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Lifetime::Malformed,
        }
    }

    /// The granted scopes: parted by blanks (RFC 6749 §3.3), by commas (GitHub), or as an array (Twitch). They are kept for
    /// as long as the token is, so not without end.
    pub(super) fn scopes(&self) -> Vec<String> {
        let parts = match self.get("scope") {
            Some(Value::String(text)) => vec![text.as_str()],
            Some(Value::Array(parts)) => parts.iter().filter_map(Value::as_str).collect(),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Vec::new(),
        };
        parts
            .into_iter()
            .flat_map(|part| part.split([' ', ',']))
            .filter(|scope| !scope.is_empty())
            .take(MAX_SCOPES)
            .map(str::to_owned)
            .collect()
    }
}

/// Old GitHub and Facebook endpoints answer as forms, successes included, and say so in the content type. Without that,
/// only an error is believed: a page may hold `access_token=` in a link, but does not begin with `error=`.
fn is_form(answer: &http::Response<Vec<u8>>, text: &str) -> bool {
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_declared = content_type.is_some_and(|content_type| {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    is_declared || text.starts_with("error=")
}

/// Far more than any server knows.
const MAX_SCOPES: usize = 1024;
