//! The layer.
mod clients;
