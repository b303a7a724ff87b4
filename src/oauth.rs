//! The OAuth grants: [`RefreshTokenGrant`] (RFC 6749 §6) and [`ClientCredentialsGrant`] (§4.4), as token sources.
//!
//! The `oauth2` crate builds the request; what comes back is judged here, from the raw exchange, because the
//! answers that matter most in an outage (a firewall's error page, a captive portal, a 503 with `Retry-After`) are
//! not OAuth answers at all. *Permanent only from an OAuth verdict*: everything else may pass, and is retried.
//!
//! Nothing here prints a secret: not in `Debug`, not in an error, and not where the server repeats it to us.

mod grant;
pub use grant::{
    ClientCredentials, ClientCredentialsGrant, RefreshTokenGrant, Refreshing, RotatedToken, Stored,
    StoredRefreshTokenGrant,
};

mod builder;
pub use builder::{ClientAuth, GrantBuilder, GrantError};

mod exchange;
pub use exchange::Exchanged;

mod response;
pub(crate) use response::{Saying, condemns, saying_of};

mod error;
pub use error::TokenEndpointError;

mod secrets;

mod fields;

#[cfg(feature = "reqwest")]
mod client;
#[cfg(feature = "reqwest")]
pub use client::{HttpSetupError, ReqwestHttp};

mod http;
pub use self::http::{TokenHttp, TransportError};
