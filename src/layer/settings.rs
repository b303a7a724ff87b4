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

/// Where a request goes. Small: it is in each future.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// The one of the allowed origins that has this position.
    Origin(u16),
    /// Its URL names none: the inner service alone knows.
    Unnamed,
}

type Predicate = dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync;

impl Settings {
    /// Where the token goes with this request; `None` if it does not belong on it.
    pub(super) fn destination(&self, request: &mut impl RequestMessage) -> Option<Destination> {
        let allowed = may_carry_a_token(request.method()).then(|| self.destination_of(&request.target())).flatten();
        if !request.headers().contains_key(&self.header) {
            return allowed;
        }
        // The caller's own credentials are the caller's affair. Ours, copied from another request, are not.
        let mut own = request.headers().get_all(&self.header).into_iter();
        if allowed.is_none() && self.tokens.servable().is_some_and(|token| own.any(|own| token.authorization() == own))
        {
            request.headers_mut().remove(&self.header);
        }
        None
    }

    pub(super) fn attach(&self, request: &mut impl RequestMessage, token: &AccessToken) {
        request.headers_mut().insert(self.header.clone(), token.authorization());
    }

    fn destination_of(&self, target: &Target<'_>) -> Option<Destination> {
        match target {
            Target::Relative => self.inner_is_bound.then_some(Destination::Unnamed),
            Target::Absolute { .. } => {
                let position = self.origins.iter().position(|origin| origin.is_of(target))?;
                u16::try_from(position).ok().map(Destination::Origin)
            }
            Target::Unclear(_) => None,
        }
    }

    /// What the response to a request that went there says of its token.
    pub(super) fn say(&self, destination: Destination, response: &impl ResponseMessage) -> Say {
        // The client has followed a redirect, and has left the token behind: even an origin that may have it cannot judge
        // what it has not seen.
        let stayed = |from| destination != Destination::Unnamed && self.destination_of(&from) == Some(destination);
        if response.came_from().is_some_and(|from| !stayed(from)) {
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
