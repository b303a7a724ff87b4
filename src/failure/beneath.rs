//! One step down an error's chain, also where `source()` leaves the most telling error out.

use std::{error::Error, io, sync::Arc};

/// What lies directly under the error.
///
/// A wrapper that is transparent, or that is itself a pointer, answers `source()` with what is under the error it wraps, and
/// the wrapped one is never seen. The wrappers of that kind that hosts meet are opened here.
pub(super) fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|wrapped| wrapped as _);
    }
    if let Some(error) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**error);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<Box<reqwest::Error>>() {
        return Some(&**error);
    }
    #[cfg(feature = "reqwest-012")]
    if let Some(error) = error.downcast_ref::<Box<reqwest012::Error>>() {
        return Some(&**error);
    }
    #[cfg(feature = "reqwest-middleware")]
    if let Some(error) = error.downcast_ref::<reqwest_middleware::Error>() {
        return Some(match error {
            reqwest_middleware::Error::Middleware(error) => error.as_ref(),
            reqwest_middleware::Error::Reqwest(error) => error,
        });
    }
    #[cfg(feature = "h2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return error.get_io().map(|wrapped| wrapped as _);
    }
    error.source()
}
