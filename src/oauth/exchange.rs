//! One exchange with the token endpoint: asked in the words of the `oauth2` crate, understood in our own. No state: which
//! refresh token is the current one is the caller's business.

use std::{cell::Cell, fmt, sync::Arc};

use http::header::AUTHORIZATION;
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RefreshToken, Scope, SyncHttpClient, TokenUrl,
    basic::BasicClient,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    error::TokenEndpointError,
    http::{TokenHttp, TransportError},
    response::{Asked, Refusal, judge},
    secrets::Secrets,
};
use crate::{Delivery, IssueError, IssueRequest, IssuedToken, Verdict};

/// Everything about an exchange that stays the same from one to the next.
pub(crate) struct Exchange {
    pub(super) token_url: Url,
    pub(super) client_id: String,
    pub(super) client_secret: Option<SecretString>,
    pub(super) auth_type: AuthType,
    pub(super) scopes: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) params: Vec<(String, SecretString)>,
    pub(super) http: Arc<dyn TokenHttp>,
}

/// What came of an exchange. The new refresh token counts even where nothing else in the answer is of use.
#[derive(Debug)]
pub struct Exchanged {
    /// The access token, or why there is none.
    pub issued: Result<IssuedToken, IssueError>,
    /// The refresh token that takes the old one's place, if one came.
    pub refresh_token: Option<SecretString>,
}

impl Exchange {
    /// Trades the refresh token for an access token (RFC 6749 §6).
    pub(crate) async fn refresh(&self, refresh_token: &SecretString, request: &IssueRequest) -> Exchanged {
        let token = RefreshToken::new(refresh_token.expose_secret().to_owned());
        let client = self.client();
        let ask = client.exchange_refresh_token(&token).add_scopes(self.scopes());
        let scribe = Scribe::default();
        // Always an error: the request is all we want.
        let _ = self.params(request).fold(ask, |ask, (name, value)| ask.add_extra_param(name, value)).request(&scribe);
        self.send(scribe.into_request(), Some(refresh_token)).await
    }

    /// Asks for a token in the client's own name (RFC 6749 §4.4).
    pub(crate) async fn client_credentials(&self, request: &IssueRequest) -> Exchanged {
        let client = self.client();
        let ask = client.exchange_client_credentials().add_scopes(self.scopes());
        let scribe = Scribe::default();
        let _ = self.params(request).fold(ask, |ask, (name, value)| ask.add_extra_param(name, value)).request(&scribe);
        self.send(scribe.into_request(), None).await
    }

    /// Made for each exchange, because the `oauth2` crate's secrets stay in memory for as long as its client does.
    fn client(&self) -> EndpointClient {
        let client = BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_auth_type(self.auth_type.clone())
            .set_token_uri(TokenUrl::from_url(self.token_url.clone()));
        match &self.client_secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned())),
            None => client,
        }
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.scopes.iter().cloned().map(Scope::new)
    }

    /// Claims of a challenge take the place of those the host always sends: they say what the resource wants *now*.
    fn params<'a>(&'a self, request: &'a IssueRequest) -> impl Iterator<Item = (&'a str, &'a str)> {
        let claims = request.claims();
        let resources = self.resources.iter().map(|resource| (RESOURCE, resource.as_str()));
        let params = self.params.iter().map(|(name, value)| (name.as_str(), value.expose_secret()));
        resources
            .chain(params.filter(move |(name, _)| claims.is_none() || *name != CLAIMS))
            .chain(claims.map(|claims| (CLAIMS, claims)))
    }

    async fn send(&self, message: Option<HttpRequest>, refresh_token: Option<&SecretString>) -> Exchanged {
        let Some(message) = message else {
            return Exchanged {
                issued: Err(IssueError::of_rule(Delivery::NotSent, "request-not-built")),
                refresh_token: None,
            };
        };
        let asked = Asked { rotating: refresh_token.is_some(), secrets: self.secrets(&message, refresh_token) };
        match self.http.send(message).await {
            Ok(answer) => {
                let judged = judge(&answer, &asked);
                Exchanged {
                    issued: judged.issued.map_err(|refusal| self.refused(refusal)),
                    refresh_token: judged.refresh_token,
                }
            }
            Err(error) => Exchanged { issued: Err(self.broken(error)), refresh_token: None },
        }
    }

    fn secrets(&self, message: &HttpRequest, refresh_token: Option<&SecretString>) -> Secrets {
        let params = self.params.iter().map(|(_, value)| value);
        let mut secrets = Secrets::default();
        for secret in refresh_token.into_iter().chain(&self.client_secret).chain(params) {
            secrets.add(secret.expose_secret());
        }
        let authorization = message.headers().get(AUTHORIZATION);
        if let Some(basic) = authorization.and_then(|value| value.to_str().ok()) {
            secrets.add(basic.trim_start_matches("Basic "));
        }
        secrets
    }

    fn refused(&self, refusal: Refusal) -> IssueError {
        let Refusal { rule, verdict, delivery, status, code, description, retry_after } = refusal;
        let facts = TokenEndpointError { status: Some(status), code, description, retry_after, ..self.facts(delivery) };
        IssueError::new(verdict, delivery, rule, facts)
            .with_retry_after(retry_after)
            .with_client(&self.client_id, &self.token_host())
    }

    fn broken(&self, error: TransportError) -> IssueError {
        let delivery = error.delivery();
        let rule = match delivery {
            Delivery::NotSent => "not-sent",
            Delivery::Answered | Delivery::Unknown => "outcome-unknown",
        };
        let facts = TokenEndpointError { cause: Some(error), ..self.facts(delivery) };
        IssueError::new(Verdict::Transient, delivery, rule, facts)
    }

    fn facts(&self, delivery: Delivery) -> TokenEndpointError {
        TokenEndpointError {
            status: None,
            code: None,
            description: None,
            retry_after: None,
            delivery,
            client_id: self.client_id.clone(),
            token_host: self.token_host(),
            cause: None,
        }
    }

    fn token_host(&self) -> String {
        let host = self.token_url.host_str().unwrap_or_default();
        match self.token_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

impl Exchange {
    /// The token endpoint without its query, where a tenant's key may stand.
    pub(crate) fn issuer(&self) -> String {
        let mut url = self.token_url.clone();
        url.set_query(None);
        url.into()
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn scopes_asked(&self) -> &[String] {
        &self.scopes
    }

    /// The resources, and what some servers call `audience` instead.
    pub(crate) fn audience(&self) -> impl Iterator<Item = &str> {
        let params = self.params.iter().filter(|(name, _)| name == AUDIENCE).map(|(_, value)| value.expose_secret());
        self.resources.iter().map(String::as_str).chain(params)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("client_id", &self.client_id)
            .field("token_host", &self.token_host())
            .finish_non_exhaustive()
    }
}

type EndpointClient = BasicClient<
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointSet,
>;

/// Takes down the request that the `oauth2` crate writes, in place of sending it.
///
/// The rest of the crate's exchange is of no use to us: it drops the status and the headers of a failure, refuses
/// `"expires_in": "3600"`, a 201 and a missing `token_type`, and its errors carry the body, tokens and all.
#[derive(Default)]
struct Scribe(Cell<Option<HttpRequest>>);

impl Scribe {
    fn into_request(self) -> Option<HttpRequest> {
        let mut request = self.0.into_inner()?;
        if let Some(basic) = request.headers_mut().get_mut(AUTHORIZATION) {
            basic.set_sensitive(true);
        }
        Some(request)
    }
}

impl SyncHttpClient for Scribe {
    type Error = TransportError;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        self.0.set(Some(request));
        Err(TransportError::not_sent("only written down"))
    }
}

/// RFC 8707 §2.
const RESOURCE: &str = "resource";

/// Auth0 and others; RFC 8693 §2.1.
const AUDIENCE: &str = "audience";

/// OpenID Connect Core §5.5; sent to the token endpoint for Continuous Access Evaluation.
const CLAIMS: &str = "claims";
