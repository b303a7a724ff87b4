//! What is wrong with a connection, in a few words of our own.

use std::{error::Error, io};

use super::chain;

/// What the system or the TLS library has against the connection, if one of them stands in the chain. A fixed word for each,
/// since what they print may hold anything.
pub(crate) fn fault(error: &(dyn Error + 'static)) -> Option<&'static str> {
    chain(error).find_map(|cause| {
        #[cfg(feature = "rustls")]
        if cause.is::<rustls::Error>() {
            return Some("TLS failed");
        }
        of_the_system(cause.downcast_ref()?)
    })
}

fn of_the_system(error: &io::Error) -> Option<&'static str> {
    // This one has no kind that is stable.
    if error.to_string().starts_with("failed to lookup address information") {
        return Some("the name does not resolve");
    }
    KINDS.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, fault)| *fault)
}

const KINDS: [(io::ErrorKind, &str); 9] = [
    (io::ErrorKind::ConnectionRefused, "connection refused"),
    (io::ErrorKind::ConnectionReset, CUT_OFF),
    (io::ErrorKind::ConnectionAborted, CUT_OFF),
    (io::ErrorKind::BrokenPipe, CUT_OFF),
    (io::ErrorKind::UnexpectedEof, CUT_OFF),
    (io::ErrorKind::HostUnreachable, UNREACHABLE),
    (io::ErrorKind::NetworkUnreachable, UNREACHABLE),
    (io::ErrorKind::NetworkDown, UNREACHABLE),
    (io::ErrorKind::TimedOut, "timed out"),
];
const CUT_OFF: &str = "connection cut off";
const UNREACHABLE: &str = "unreachable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_fails_is_named_and_what_is_no_connection_is_not() {
        let refused = std::net::TcpStream::connect("127.0.0.1:1").unwrap_err();
        assert_eq!(fault(&io::Error::other(refused)), Some("connection refused"));
        let unknown = std::net::TcpStream::connect("steadfast.invalid:1").unwrap_err();
        assert_eq!(fault(&unknown), Some("the name does not resolve"));
        assert_eq!(fault(&io::Error::other("connection refused, says a proxy")), None);
    }
}
