use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::Challenge;

/// What a challenge asks for: the one place that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The token is refused for good; what a new one must have, where the server says so. A revoked session is announced
    /// like this, with claims.
    InvalidToken { claims: Option<String> },
    /// The token lacks claims that a new one can bring. It may still be good for other requests.
    ClaimsNeeded { claims: String },
    /// No new token helps: the user must sign in more strongly (RFC 9470), or the host's proof was wrong (RFC 9449).
    HandToHost,
    /// Nothing certain about the token.
    Suspect,
}

impl Challenge {
    /// What the challenge asks for.
    pub(crate) fn meaning(&self) -> Meaning {
        let error = self.error().filter(|_| self.is_of_a_token());
        match error.map(str::to_ascii_lowercase).as_deref() {
            Some("invalid_token") => Meaning::InvalidToken { claims: self.claims() },
            Some("insufficient_claims") => {
                self.claims().map_or(Meaning::Suspect, |claims| Meaning::ClaimsNeeded { claims })
            }
            Some("insufficient_user_authentication" | "use_dpop_nonce" | "invalid_dpop_proof") => Meaning::HandToHost,
            _ => Meaning::Suspect,
        }
    }
}

/// The JSON text of a `claims` parameter, if it holds what looks like an object of bounded size.
pub(super) fn decoded_claims(sent: &str) -> Option<String> {
    let sent = sent.trim();
    let text = if sent.starts_with('{') {
        sent.to_owned()
    } else {
        let encoded = sent.replace('-', "+").replace('_', "/");
        String::from_utf8(BASE64.decode(encoded).ok()?).ok()?
    };
    let is_object = text.trim().starts_with('{') && text.trim().ends_with('}');
    (is_object && text.len() <= MAX_CLAIMS).then_some(text)
}

/// Servers send either alphabet, padded or not; the other alphabet's two signs are replaced before.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

const MAX_CLAIMS: usize = 8 * 1024;
