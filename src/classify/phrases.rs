//! One table of texts: what libraries print when something goes wrong, and what it means.

use super::{
    Class,
    anchors::Anchors,
    scan::{Index, Table, head_of},
};

/// A row: words to find, and what they mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phrase {
    pub(super) name: &'static str,
    pub(super) says: Says,
    pub(super) origin: &'static str,
    /// Where the word begins that the phrase is looked up by.
    pub(super) head: usize,
}

/// What a phrase means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    Class(Class),
    /// What the HTTP status at the place of `nnn` means.
    Status,
    /// Nothing: it holds words that mean something elsewhere, and takes them out of the text.
    LookAlike,
}

impl Phrase {
    pub(super) const fn of_host(phrase: &'static str, class: Class) -> Self {
        row(phrase, Says::Class(class), "the host")
    }

    /// What stands before the word that the phrase is looked up by, and the phrase from there on.
    pub(super) const fn split_lead(&self) -> (&[u8], &[u8]) {
        self.name.as_bytes().split_at(self.head)
    }
}

impl Says {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Class(class) => class.as_str(),
            Self::Status => "by status",
            Self::LookAlike => "nothing",
        }
    }
}

const AUTHENTICATION: Says = Says::Class(Class::Authentication);
const AUTHORIZATION: Says = Says::Class(Class::Authorization);
const RATE_LIMITED: Says = Says::Class(Class::RateLimited);
const TIMEOUT: Says = Says::Class(Class::Timeout);
const CANCELLED: Says = Says::Class(Class::Cancelled);
const UNAVAILABLE: Says = Says::Class(Class::Unavailable);

const fn row(name: &'static str, says: Says, origin: &'static str) -> Phrase {
    Phrase { name, says, origin, head: head_of(name.as_bytes()) }
}

/// Every phrase we know, in no particular order: the [heaviest](super::Class) in a text wins, and of phrases that begin at
/// the same place the longest is taken.
///
/// A name is the phrase itself, its words joined by `-`. `nnn` stands for any HTTP status, and a word with a capital letter is
/// found in exactly that case. Each row has a text in `tests/classify_corpus.tsv`.
#[rustfmt::skip]
pub(super) static PHRASES: [Phrase; 113] = [
    // The number of an HTTP status, named as one.
    row("status-code-nnn", Says::Status, "axios, mcp-go, Go clients"),
    row("status-nnn", Says::Status, "mcp-go, toolhive"),
    row("http-nnn", Says::Status, "rmcp, Okta's support pages"),
    row("http-error-nnn", Says::Status, "Python urllib"),
    row("returned-error-nnn", Says::Status, "curl --fail"),

    row("401-unauthorized", AUTHENTICATION, "reqwest, http::StatusCode, httpx, Go net/http"),
    row("unauthorized-401", AUTHENTICATION, "mcp-go ErrUnauthorized"),
    row("401-authorization-required", AUTHENTICATION, "nginx"),
    row("401-client-error", AUTHENTICATION, "requests (Python)"),
    row("authentication-failed", AUTHENTICATION, "toolhive ErrAuthenticationFailed, Okta E0000004"),
    row("authentication-error", AUTHENTICATION, "toolhive's categorizer"),
    row("request-unauthenticated", AUTHENTICATION, "toolhive's categorizer"),
    row("request-unauthorized", AUTHENTICATION, "toolhive's categorizer"),
    row("authorization-required", AUTHENTICATION, "mcp-go ErrAuthorizationRequired, rmcp AuthError"),
    row("auth-required", AUTHENTICATION, "rmcp StreamableHttpError"),
    row("no-valid-token-available", AUTHENTICATION, "mcp-go ErrOAuthAuthorizationRequired"),
    row("code-unauthenticated", AUTHENTICATION, "grpc-go"),
    row("have-valid-authentication-credentials", AUTHENTICATION, "tonic"),
    row("had-invalid-authentication-credentials", AUTHENTICATION, "Google APIs"),
    row("missing-required-authentication-credential", AUTHENTICATION, "Google APIs"),
    row("security-token-included-in-the-request-is-invalid", AUTHENTICATION, "AWS"),
    row("security-token-included-in-the-request-is-expired", AUTHENTICATION, "AWS"),
    row("ExpiredAuthenticationToken", AUTHENTICATION, "Azure Resource Manager"),
    row("bad-credentials", AUTHENTICATION, "GitHub"),
    row("E0000011", AUTHENTICATION, "Okta"),
    row("invalid_grant", AUTHENTICATION, "RFC 6749 §5.2: Entra ID, Auth0, Keycloak, golang.org/x/oauth2"),
    row("invalid_token", AUTHENTICATION, "RFC 6750 §3.1"),
    row("invalid_auth", AUTHENTICATION, "Slack"),
    row("token_revoked", AUTHENTICATION, "Slack"),
    row("token-expired-and-refresh-token-is-not-set", AUTHENTICATION, "golang.org/x/oauth2"),
    row("jwt-is-missing", AUTHENTICATION, "Envoy (jwt_verify_lib)"),
    row("jwt-is-expired", AUTHENTICATION, "Envoy (jwt_verify_lib)"),
    row("jwt-verification-fails", AUTHENTICATION, "Envoy (jwt_verify_lib)"),
    row("login-denied", AUTHENTICATION, "curl"),

    row("403-forbidden", AUTHORIZATION, "reqwest, http::StatusCode, nginx, Go net/http"),
    row("403-client-error", AUTHORIZATION, "requests (Python)"),
    row("access-denied", AUTHORIZATION, "toolhive's categorizer, Envoy RBAC, curl"),
    row("code-PermissionDenied", AUTHORIZATION, "grpc-go"),
    row("caller-does-not-have-permission", AUTHORIZATION, "tonic, Google APIs"),
    row("not-authorized-to-perform", AUTHORIZATION, "AWS IAM"),
    row("have-authorization-to-perform-action", AUTHORIZATION, "Azure Resource Manager"),
    row("resource-not-accessible-by-integration", AUTHORIZATION, "GitHub"),
    row("not-have-permission-to-perform-the-requested-action", AUTHORIZATION, "Okta E0000006"),
    row("insufficient-scope", AUTHORIZATION, "RFC 6750 §3.1, rmcp AuthError"),
    row("missing_scope", AUTHORIZATION, "Slack"),

    row("429-too-many-requests", RATE_LIMITED, "http::StatusCode, nginx, Go net/http"),
    row("429-client-error", RATE_LIMITED, "requests (Python)"),
    row("rate-limit-exceeded", RATE_LIMITED, "GitHub, toolhive"),
    row("secondary-rate-limit", RATE_LIMITED, "GitHub"),
    row("exceeded-rate-limit", RATE_LIMITED, "Okta E0000047"),
    row("rate-exceeded", RATE_LIMITED, "AWS"),
    row("being-rate-limited", RATE_LIMITED, "Cloudflare 1015"),
    row("ratelimited", RATE_LIMITED, "Slack"),
    row("code-ResourceExhausted", RATE_LIMITED, "grpc-go"),
    row("resource-has-been-exhausted", RATE_LIMITED, "tonic, Google APIs"),

    row("timeout", TIMEOUT, "Go net, axios, Envoy, hyper"),
    row("timed-out", TIMEOUT, "std, reqwest, tower, curl, urllib3, nginx"),
    row("request-time-out", TIMEOUT, "nginx 408"),
    row("deadline-exceeded", TIMEOUT, "Go context"),
    row("code-DeadlineExceeded", TIMEOUT, "grpc-go"),
    row("deadline-has-elapsed", TIMEOUT, "tokio"),
    row("deadline-expired-before-operation-could-complete", TIMEOUT, "tonic"),

    row("operation-was-cancelled", CANCELLED, "tonic"),
    row("operation-cancelled", CANCELLED, "toolhive ErrCancelled"),
    row("context-canceled", CANCELLED, "Go context"),
    row("code-Canceled", CANCELLED, "grpc-go"),

    row("407-proxy-authentication-required", UNAVAILABLE, "http::StatusCode, nginx: the backend was not reached"),
    row("500-internal-server-error", UNAVAILABLE, "http::StatusCode, nginx, Go net/http"),
    row("502-bad-gateway", UNAVAILABLE, "http::StatusCode, nginx, Go net/http"),
    row("503-service-unavailable", UNAVAILABLE, "http::StatusCode, Go net/http"),
    row("503-service-temporarily-unavailable", UNAVAILABLE, "nginx"),
    row("504-gateway-timeout", UNAVAILABLE, "http::StatusCode, Go net/http"),
    row("504-gateway-time-out", UNAVAILABLE, "nginx"),
    row("gateway-timeout", UNAVAILABLE, "behind a 504 in any form: another's time-out, not ours"),
    row("500-server-error", UNAVAILABLE, "requests (Python)"),
    row("502-server-error", UNAVAILABLE, "requests (Python)"),
    row("503-server-error", UNAVAILABLE, "requests (Python)"),
    row("504-server-error", UNAVAILABLE, "requests (Python)"),
    row("connection-refused", UNAVAILABLE, "std, Go net, curl, urllib3"),
    row("connection-reset", UNAVAILABLE, "std, Go net"),
    row("operation-was-canceled", UNAVAILABLE, "hyper: the connection went away under the request"),
    row("connection-closed", UNAVAILABLE, "hyper, rmcp, mcp go-sdk"),
    row("no-route-to-host", UNAVAILABLE, "std, Go net"),
    row("network-is-unreachable", UNAVAILABLE, "std, Go net"),
    row("broken-pipe", UNAVAILABLE, "std, Go net"),
    row("EOF", UNAVAILABLE, "Go io"),
    row("no-such-host", UNAVAILABLE, "Go net"),
    row("dns-error", UNAVAILABLE, "hyper-util"),
    row("lookup-address-information", UNAVAILABLE, "std"),
    row("could-not-resolve", UNAVAILABLE, "curl"),
    row("name-or-service-not-known", UNAVAILABLE, "glibc, under urllib3 and others"),
    row("establish-a-new-connection", UNAVAILABLE, "urllib3"),
    row("connection-aborted", UNAVAILABLE, "urllib3"),
    row("could-not-connect-to-server", UNAVAILABLE, "curl"),
    row("empty-reply-from-server", UNAVAILABLE, "curl"),
    row("ECONNREFUSED", UNAVAILABLE, "Node.js"),
    row("ECONNRESET", UNAVAILABLE, "Node.js"),
    row("ENOTFOUND", UNAVAILABLE, "Node.js"),
    row("socket-hang-up", UNAVAILABLE, "Node.js"),
    row("transport-closed", UNAVAILABLE, "rmcp, mcp-go"),
    row("use-of-closed-network-connection", UNAVAILABLE, "Go net"),
    row("peer-certificate", UNAVAILABLE, "rustls, curl"),
    row("code-Unavailable", UNAVAILABLE, "grpc-go"),
    row("service-is-currently-unavailable", UNAVAILABLE, "tonic, Google APIs"),
    row("backend-unavailable", UNAVAILABLE, "toolhive ErrBackendUnavailable"),
    row("no-healthy-upstream", UNAVAILABLE, "Envoy"),
    row("upstream-connect-error", UNAVAILABLE, "Envoy"),
    row("upstream-prematurely-closed", UNAVAILABLE, "nginx"),
    row("web-server-is-down", UNAVAILABLE, "Cloudflare 521"),

    // Look-alikes.
    row("EOF-while-parsing", Says::LookAlike, "serde_json: a text that is too short, wherever it came from"),
    row("field-timeout", Says::LookAlike, "serde"),
    row("timeout-must", Says::LookAlike, "golang.org/x/oauth2 and other checks of settings"),
    row("code-ResourceExhausted-desc-grpc-received-message-larger-than-max", Says::LookAlike, "grpc-go"),
];

/// The phrases, ready to be found.
pub(super) static STANDARD: Table<'static> = INDEX.table(&PHRASES, |text| ANCHORS.any_stands(&PHRASES, text));
static INDEX: Index<[u16; PHRASES.len()]> = Index::of_table(&PHRASES);
static ANCHORS: Anchors<{ PHRASES.len() }> = Anchors::of(&PHRASES);
#[cfg(test)]
pub(super) static ALL_LOOKED_AT: Table<'static> = INDEX.table(&PHRASES, |_| true);
