//! What holds of every input, one module per fuzz target. The test `fuzz_corpus` includes this file too, and replays the
//! corpora without a fuzzer.

use std::error::Error;

pub mod classify_text;
pub mod policy_env;
#[cfg(feature = "oauth2")]
pub mod retry_after;
#[cfg(feature = "oauth2")]
pub mod scenario_file;
#[cfg(feature = "oauth2")]
pub mod store_file;
#[cfg(feature = "oauth2")]
pub mod token_response;
pub mod www_authenticate;

/// The result of a future that has nothing to wait for.
#[cfg(feature = "oauth2")]
fn at_once<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Waker};

    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// Whatever a log could hold of an error and of what is under it.
fn printed(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(|error| format!("{error} {error:?} {error:#?}\n")).collect()
}

/// Escape sequences and line breaks would forge a log.
fn is_fit_to_be_shown(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
