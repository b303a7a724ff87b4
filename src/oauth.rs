//! The OAuth grants.
