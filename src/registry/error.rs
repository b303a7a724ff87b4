//! Why there is no monitor for a key.

use std::{error::Error, fmt, sync::Arc};

use crate::BuildError;

/// Why a [`TokenRegistry`](super::TokenRegistry) has no monitor for a key.
///
/// Cheap to clone: all who waited share it.
#[derive(Clone)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry was shut down.
    ShutDown,
    /// The factory made no source.
    Factory(Arc<dyn Error + Send + Sync>),
    /// There is a source, but the monitor cannot work.
    Build(BuildError),
    /// The factory panicked, or the registry's runtime went away.
    Interrupted,
}

impl RegistryError {
    /// Whether the registry was shut down.
    #[must_use]
    pub const fn is_shut_down(&self) -> bool {
        matches!(self, Self::ShutDown)
    }

    /// Whether the factory made no source.
    #[must_use]
    pub const fn is_factory(&self) -> bool {
        matches!(self, Self::Factory(_))
    }
}

impl fmt::Debug for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShutDown => f.write_str("ShutDown"),
            // Not the cause: what a foreign error says may hold anything. Whoever wants it takes it from `source()`.
            Self::Factory(_) => f.write_str("Factory(..)"),
            Self::Build(error) => f.debug_tuple("Build").field(error).finish(),
            Self::Interrupted => f.write_str("Interrupted"),
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShutDown => "the registry of token sources was shut down",
            Self::Factory(_) => "no token source could be made for this key",
            Self::Build(_) => "the monitor of a token source cannot work as it was described",
            Self::Interrupted => "the making of a token source was interrupted by a panic or by the end of its runtime",
        })
    }
}

impl Error for RegistryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Factory(cause) => Some(&**cause),
            Self::Build(cause) => Some(cause),
            Self::ShutDown | Self::Interrupted => None,
        }
    }
}
