//! What reading an error costs. The yardstick for texts is lower-casing them and 13 `contains`.
//!
//! A miss is the dearest case for the yardstick and the one that a proxy sees most. It depends on the text: ours on how many of
//! its words are an anchor of a phrase, the yardstick's hardly. A hit costs us a second look at the text, up to the phrase.

use std::{error::Error, fmt, hint::black_box, io};

use steadfast::classify::Classifier;

use crate::measure::Table;

pub(crate) fn measure(table: &mut Table) {
    let plain = io::Error::from(io::ErrorKind::ConnectionRefused);
    typed(table, "an error known by its type", "≤ 60 ns", &plain);
    let wrapped = Wrapped(Box::new(Wrapped(Box::new(Wrapped(Box::new(io::Error::from(io::ErrorKind::TimedOut)))))));
    typed(table, "the same under three errors that are not", "", &wrapped);
    for (len, target) in [(40, 1.0), (400, 1.0), (16 * 1024, 0.5)] {
        miss(table, &format!("text of {len} B that means nothing"), target, &prose(len));
    }
    for Real { name, text } in REAL {
        miss(table, &format!("{name} of {} B that means nothing", text.len()), 1.0, text);
    }
    for len in [40, 400] {
        let text = prose(len - 17) + " 401 unauthorized";
        texts(table, &format!("text of {len} B, `401 unauthorized` at its end"), f64::NAN, &text);
    }
}

fn typed(table: &mut Table, what: &str, target: &str, error: &(dyn Error + 'static)) {
    table.absolute(what, target, 20_000, |times| {
        (0..times).for_each(|_| {
            black_box(CLASSIFIER.classify(black_box(error)));
        });
    });
}

fn miss(table: &mut Table, what: &str, target: f64, text: &str) {
    assert_eq!(CLASSIFIER.classify_text(text).rule(), "unrecognised");
    assert!(!contains_one_of_13(text));
    texts(table, what, target, text);
}

fn texts(table: &mut Table, what: &str, target: f64, text: &str) {
    table.compare(
        &format!("{what} (floor: lower-casing and 13 `contains`)"),
        target,
        500,
        |times| {
            (0..times).for_each(|_| {
                black_box(contains_one_of_13(black_box(text)));
            })
        },
        |times| {
            (0..times).for_each(|_| {
                black_box(CLASSIFIER.classify_text(black_box(text)));
            })
        },
    );
}

fn contains_one_of_13(text: &str) -> bool {
    let text = text.to_lowercase();
    PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// What a backend prints that has nothing to say to us.
fn prose(len: usize) -> String {
    PROSE.chars().cycle().take(len).collect()
}

struct Real {
    name: &'static str,
    text: &'static str,
}

#[derive(Debug)]
struct Wrapped(Box<dyn Error>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call failed")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

static CLASSIFIER: Classifier = Classifier::standard();

const PHRASES: [&str; 13] = [
    "authentication failed",
    "authentication error",
    "401 unauthorized",
    "403 forbidden",
    "unauthorized (401)",
    "http 401",
    "http 403",
    "status code 401",
    "status code 403",
    "request unauthenticated",
    "request unauthorized",
    "access denied",
    "authorization required",
];

const PROSE: &str = "failed to list the tools of backend 'github': calling \"tools/list\": the response has no \
    result: Invalid params: the cursor of page 3 does not belong to this listing (it was made at 10:42:07 by \
    instance mcp-7f9c), so nothing was read from it; start again with the first page, or ask for fewer tools at once. ";

/// Texts of about 400 B, as an API, nginx, Go and reqwest print them. They mean nothing to us, but are full of the words that our
/// phrases are made of.
const REAL: [Real; 4] = [
    Real {
        name: "json body",
        text: r#"{"error":{"code":404,"message":"The requested resource 'projects/acme-prod/locations/europe-west1/services/tools' was not found. Check that the server name is spelled as in the request, and that the connection of this client belongs to the project.","status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.rpc.RequestInfo","requestId":"6f1c9a2e-8d0b-4c6e-9a77-0f5f2c1d3b4a"}]}}"#,
    },
    Real {
        name: "nginx page",
        text: "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.24.0 (Ubuntu)</center>\r\n</body>\r\n</html>\r\n<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n",
    },
    Real {
        name: "go chain",
        text: "failed to initialize client for backend 'github': failed to list tools: calling \"tools/list\": sending \"tools/list\": rejected by transport: failed to decode response: json: cannot unmarshal array into Go struct field ListToolsResult.tools.inputSchema of type map[string]interface {}: while reading the body of POST https://mcp.example.com/v1/mcp with content type \"application/json; charset=utf-8\" and session 9f2c",
    },
    Real {
        name: "reqwest chain",
        text: "error decoding response body for url (https://api.example.com/v2/accounts/1234567/connections?page=3&per_page=100): expected value at line 1 column 1: the server answered the request with content-type text/html where the client expected application/json: while refreshing the catalogue of services: invalid type: null, expected a string at line 42 column 17: HTTP status client error (404 Not Found)",
    },
];
