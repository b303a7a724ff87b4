//! The secrets of one request, found again in what the server says: some servers repeat the refresh token in the
//! description of their error.

use std::cmp::Reverse;

use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::byte_serialize;

use crate::OAuthCode;

#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(super) fn add(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.0.push(secret.into());
        }
    }

    /// The beginning of the text without any of the secrets: so much of it that `limit` characters are left, or all of it.
    ///
    /// No more than that is looked at, because a text from the network may be long.
    pub(super) fn redact(&self, text: &str, limit: usize) -> String {
        let mut traces: Vec<_> = self.exposed().flat_map(traces).collect();
        // The longest first: replacing a part of a secret would leave the rest standing.
        traces.sort_unstable_by_key(|trace| Reverse(trace.len()));
        let mut clean = String::new();
        let mut rest = text;
        for _ in 0..limit {
            if let Some(after) = traces.iter().find_map(|trace| rest.strip_prefix(trace.as_str())) {
                clean.push_str("[redacted]");
                rest = after;
            } else {
                let mut after = rest.chars();
                clean.extend(after.next());
                rest = after.as_str();
            }
        }
        clean
    }

    /// Whether a text in an error code's place is a secret in disguise: opaque tokens have the form of a code.
    pub(super) fn give_away(&self, code: &OAuthCode) -> bool {
        let code = code.as_str();
        self.exposed().any(|secret| {
            let secret = secret.to_ascii_lowercase();
            secret == code
                || (code.len() >= TELLING && secret.contains(code))
                || (secret.len() >= TELLING && code.contains(&secret))
        })
    }

    fn exposed(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(ExposeSecret::expose_secret)
    }
}

/// The ways a secret may be spelled: as it is, as a form or a URL encodes it, with hexadecimal digits of either case, and,
/// whatever else a server escapes, the stretches that no encoding touches.
fn traces(secret: &str) -> impl Iterator<Item = String> {
    let form: String = byte_serialize(secret.as_bytes()).collect();
    let in_url = form.replace('+', "%20");
    let [small_form, small_in_url] = [&form, &in_url].map(|encoded| in_small_hex(encoded));
    let untouched = secret
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|stretch| stretch.len() >= TELLING)
        .map(str::to_owned);
    [secret.to_owned(), form, in_url, small_form, small_in_url].into_iter().chain(untouched)
}

/// `%2f` for `%2F`, as .NET writes it.
fn in_small_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut small = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        small.extend(["%", &hex.to_ascii_lowercase(), rest]);
    }
    small
}

/// So many characters in a row are no coincidence.
const TELLING: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_secret_is_removed() {
        let mut secrets = Secrets::default();
        secrets.add("rt/1+x y=Zz");
        secrets.add("abcdefgh12345678&tail");
        for text in [
            "token rt/1+x y=Zz is unknown",
            "token rt%2F1%2Bx+y%3DZz is unknown",
            "token rt%2F1%2Bx%20y%3DZz is unknown",
            "token rt%2f1%2bx+y%3dZz is unknown",
            "token rt%2f1%2bx%20y%3dZz is unknown",
            "token abcdefgh12345678&tail is unknown",
        ] {
            assert_eq!(secrets.redact(text, 100), "token [redacted] is unknown");
        }
        assert_eq!(secrets.redact("token abcdefgh12345678&amp;tail", 100), "token [redacted]&amp;tail");
    }

    #[test]
    fn a_secret_that_begins_like_another_leaves_no_rest() {
        let mut secrets = Secrets::default();
        secrets.add("abc");
        secrets.add("abc-and-more");
        assert_eq!(secrets.redact("abc-and-more", 100), "[redacted]");
    }

    #[test]
    fn an_empty_secret_removes_nothing() {
        let mut secrets = Secrets::default();
        secrets.add("");
        assert_eq!(secrets.redact("plain", 100), "plain");
    }

    #[test]
    fn what_stands_for_a_secret_is_not_looked_at_again() {
        let mut secrets = Secrets::default();
        for letter in ["r", "e", "d", "a", "c", "t"] {
            secrets.add(letter);
        }
        assert_eq!(secrets.redact("a b", 100), "[redacted] b");
        // Of a megabyte no more is looked at than can be shown.
        assert_eq!(secrets.redact(&"a".repeat(1024 * 1024), 3), "[redacted][redacted][redacted]");
    }

    #[test]
    fn a_token_in_the_place_of_the_code_is_seen() {
        let mut secrets = Secrets::default();
        secrets.add("Opaque-Token.0001");
        let gives_away = |code| secrets.give_away(&OAuthCode::new(code).unwrap());
        assert!(gives_away("opaque-token.0001"));
        assert!(gives_away("unknown.opaque-token.0001"));
        assert!(gives_away("opaque-token"));
        assert!(!gives_away("invalid_grant"));
    }
}
