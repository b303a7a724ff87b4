//! What the layer was told, and what it decides by it.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::{RequestMessage, ResponseMessage};
use crate::{
    AccessToken, MonitoredTokenSource, Origin,
    monitor::rejection::{Answer, Say},
    origin::Target,
};

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) tokens: MonitoredTokenSource,
    pub(super) origins: Vec<Origin>,
    pub(super) inner_is_bound: bool,
    pub(super) header: HeaderName,
    pub(super) rejected_when: Option<Arc<Predicate>>,
    pub(super) tag_responses: bool,
}

type Predicate = dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync;

impl Settings {
    /// Whether the token belongs on this request.
    pub(super) fn concerns(&self, request: &mut impl RequestMessage) -> bool {
        let allowed = may_carry_a_token(request.method()) && self.allows(&request.target());
        let mut own = request.headers().get_all(&self.header).into_iter().peekable();
        if own.peek().is_none() {
            return allowed;
        }
        // The caller's own credentials are the caller's affair. Ours, copied from another request, are not.
        if !allowed && self.tokens.servable().is_some_and(|token| own.any(|own| token.authorization() == own)) {
            request.headers_mut().remove(&self.header);
        }
        false
    }

    pub(super) fn attach(&self, request: &mut impl RequestMessage, token: &AccessToken) {
        request.headers_mut().insert(self.header.clone(), token.authorization());
    }

    fn allows(&self, target: &Target<'_>) -> bool {
        match target {
            Target::Relative => self.inner_is_bound,
            Target::Absolute { .. } => self.origins.iter().any(|origin| origin.is_of(target)),
            Target::Unclear(_) => false,
        }
    }

    /// Which of the origins this is; none where the inner service alone knows.
    pub(super) fn origin_of(&self, target: &Target<'_>) -> Option<u16> {
        let position = self.origins.iter().position(|origin| origin.is_of(target))?;
        u16::try_from(position).ok()
    }

    /// What the response to a request for this origin (see [`origin_of`](Self::origin_of)) says of its token.
    pub(super) fn say(&self, origin: Option<u16>, response: &impl ResponseMessage) -> Say {
        // The client has followed a redirect, and has left the token behind: even an origin that may have it cannot judge
        // what it has not seen.
        if response.came_from().is_some_and(|target| origin.is_none() || self.origin_of(&target) != origin) {
            return Say::Nothing;
        }
        let (status, headers) = (response.status(), response.headers());
        let refused = self.rejected_when.as_ref().is_some_and(|refused| refused(status, headers));
        if refused { Say::Refused } else { Answer::of(status, headers).say() }
    }

    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("tokens", &self.tokens)
            .field("origins", &self.origins)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// A server sends back what TRACE has brought (RFC 9110 §9.3.8), and a CONNECT is for the proxy on the way.
fn may_carry_a_token(method: &Method) -> bool {
    !matches!(*method, Method::TRACE | Method::CONNECT)
}
