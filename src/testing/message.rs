//! HTTP/1.1 messages. Requests are read strictly: what a server would have to guess at is an error.

use http::StatusCode;

/// `None` while some of it is missing; a sentence if it will never do.
type Parsed<T> = Result<Option<T>, String>;

/// One HTTP/1.1 request, whole.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The request in `received`.
    pub(super) fn parse(received: &[u8]) -> Parsed<Self> {
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Request::new(&mut lines);
        let rest = match head.parse(received) {
            Ok(httparse::Status::Complete(end)) => received.get(end..).unwrap_or_default(),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("not an HTTP request: {error}")),
        };
        if head.version != Some(1) {
            return Err("not HTTP/1.1".into());
        }
        let mut headers = Vec::new();
        for line in &*head.headers {
            let value = str::from_utf8(line.value).map_err(|_| format!("header {} is not text", line.name))?;
            headers.push((line.name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut request = Self {
            method: head.method.unwrap_or_default().to_owned(),
            path: head.path.unwrap_or_default().to_owned(),
            headers,
            body: Vec::new(),
        };
        let framing = (request.header("transfer-encoding"), request.header("content-length"));
        let body = match framing {
            (None, None) => Some((Vec::new(), rest)),
            (None, Some(length)) => {
                let length = length.parse::<usize>().map_err(|_| "a Content-Length that is no number")?;
                rest.split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => dechunk(rest)?,
            (Some(_), _) => return Err("a Transfer-Encoding that is not plain chunked".into()),
        };
        let Some((body, rest)) = body else {
            return Ok(None);
        };
        if !rest.is_empty() {
            return Err("more than one request on a connection that serves one".into());
        }
        request.body = body;
        Ok(Some(request))
    }

    /// The value of the first header line with this name, given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// A response as bytes. Head and body are apart, because some answers break off in the body.
pub(super) struct Message {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn new(status: u16, headers: &[(String, String)], kind: &str, body: Vec<u8>) -> Self {
        let reason = StatusCode::from_u16(status).ok();
        let reason = reason.and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
        let mut line = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        for (name, value) in headers {
            line(name, value);
        }
        // A response to a token request must not be stored (RFC 6749 §5.1).
        let own = [
            ("content-length", body.len().to_string()),
            ("content-type", kind.to_owned()),
            ("connection", "close".to_owned()),
            ("cache-control", "no-store".to_owned()),
        ];
        for (name, value) in &own {
            let replaced = headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
            if !replaced && !value.is_empty() {
                line(name, value);
            }
        }
        head.push_str("\r\n");
        Self { head: head.into(), body }
    }

    /// Bytes that are not necessarily HTTP.
    pub(super) const fn raw(bytes: Vec<u8>) -> Self {
        Self { head: Vec::new(), body: bytes }
    }
}

/// The body of a chunked message (RFC 9112 §7.1) and what comes after it.
fn dechunk(mut rest: &[u8]) -> Parsed<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a chunk without a size".into()),
        };
        let length = usize::try_from(length).map_err(|_| "a chunk that is too long")?;
        let chunk = rest.get(line..).unwrap_or_default();
        let Some((data, after)) = chunk.split_at_checked(length) else {
            return Ok(None);
        };
        let Some((end, after)) = after.split_at_checked(2) else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err("a chunk that does not end where it says, or a trailer".into());
        }
        body.extend_from_slice(data);
        rest = after;
        if length == 0 {
            return Ok(Some((body, rest)));
        }
    }
}

const MAX_HEADERS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_at_its_last_byte_and_not_before() {
        let plain = "POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc";
        let chunked = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        for whole in [plain, chunked] {
            let whole = whole.as_bytes();
            for end in 0..whole.len() {
                assert!(Request::parse(&whole[..end]).unwrap().is_none());
            }
            let request = Request::parse(whole).unwrap().unwrap();
            assert_eq!((&*request.method, &*request.path, &*request.body), ("POST", "/a", &b"abc"[..]));
        }
    }

    #[test]
    fn what_would_have_to_be_guessed_at_is_an_error() {
        for bad in [
            "POST /a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(Request::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
