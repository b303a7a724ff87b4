//! What a source is told when its provider would not, or could not.

use std::fmt;

use crate::BoxError;

/// What a source under a provider failed of.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The provider's address, which is its name among those alive.
    pub(super) by: usize,
    pub(super) what: What,
}

pub(super) enum What {
    Down,
    Busy,
    Failed(BoxError),
}

// What a foreign error prints of itself may be a secret.
impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "Down",
            Self::Busy => "Busy",
            Self::Failed(_) => "Failed(..)",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.what {
            What::Down => "the identity provider is down, and somebody else is probing it",
            What::Busy => "too many exchanges with the identity provider are under way",
            What::Failed(_) => "the exchange with the identity provider failed",
        })
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.what {
            What::Failed(cause) => Some(&**cause),
            What::Down | What::Busy => None,
        }
    }
}
