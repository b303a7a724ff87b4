//! Servers that mean harm, on real sockets, against the ready-made client: whatever they do, what comes out is an ordinary
//! answer or a typed error, in bounded memory and time, and nothing of theirs is logged as it came.
#![cfg(all(feature = "oauth2", feature = "reqwest"))]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read the clock of the test, and helpers of tests panic"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use steadfast::{
    AuthError, AuthLayer, IssueError, LayerError, MonitoredTokenSource, RefreshPolicy,
    oauth::{RefreshTokenGrant, TokenEndpointError},
    testing::{Answer, ProtectedApi, ScriptedIdp},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

#[tokio::test(start_paused = true)]
async fn a_hostile_token_endpoint_is_a_bounded_typed_failure() {
    let _turn = TURN.lock().await;
    let log = log();
    let mut report = String::new();
    for Row { name, does, comes_out } in token_endpoints() {
        let server = Server::start(does).await;
        log.clear();
        let (begun, before) = (Instant::now(), held());
        let grant = RefreshTokenGrant::builder(server.url(), "app", "rt-secret").build().unwrap();
        let policy = RefreshPolicy { max_tries: 1, caller_wait: Duration::from_secs(60), ..RefreshPolicy::DEFAULT };
        let tokens = MonitoredTokenSource::builder(grant).policy(policy).spawn().unwrap();
        let came_out = match tokens.token().await {
            Ok(token) => {
                is_fit_to_be_shown(name, &format!("{token:?} {:?}", tokens.snapshot()));
                "a token"
            }
            Err(error) => {
                is_fit_to_be_shown(name, &chain(&error));
                assert!(error.is_retrying() || error.is_unauthenticated(), "{name}: {error:?}");
                rule(&error)
            }
        };
        let peak = peak() - before;
        report += &format!("{name}: {came_out}, {} KiB at most, {:?}\n", peak / 1024, begun.elapsed());
        assert_eq!(came_out, comes_out, "{name}");
        assert!(peak <= MOST_MEMORY, "{name}: {peak} bytes");
        assert!(begun.elapsed() <= ATTEMPT, "{name}: {:?}", begun.elapsed());
        log.is_clean(name);
        tokens.shutdown().await;
        server.until_let_go().await;
    }
    println!("{report}");
}

#[tokio::test(start_paused = true)]
async fn a_hostile_api_gets_one_refresh_for_a_refusal_and_the_caller_gets_what_the_client_made_of_it() {
    let _turn = TURN.lock().await;
    let log = log();
    let mut report = String::new();
    for Row { name, does, comes_out } in apis() {
        let idp = ScriptedIdp::start().await;
        idp.always(Answer::success());
        let server = Server::start(does).await;
        let tokens = MonitoredTokenSource::builder(
            RefreshTokenGrant::builder(idp.token_url(), "app", idp.login()).build().unwrap(),
        );
        let tokens = tokens.spawn().unwrap();
        tokens.token().await.unwrap();
        sleep(RefreshPolicy::DEFAULT.settle).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let auth = AuthLayer::new(tokens.clone(), server.origin()).unwrap().replay_once().wrap(client.clone());
        log.clear();
        let (begun, before) = (Instant::now(), held());
        let came_out = match auth.send(client.get(server.url()).build().unwrap()).await {
            Ok(response) => {
                let challenge = response.extensions().get::<steadfast::Challenge>();
                is_fit_to_be_shown(name, &format!("{challenge:?}"));
                format!("{}, {} calls", response.status().as_u16(), idp.calls())
            }
            Err(LayerError::Inner(_)) => format!("the client's error, {} calls", idp.calls()),
            Err(LayerError::Auth(error)) => panic!("{name}: {error}"),
        };
        let peak = peak() - before;
        report += &format!("{name}: {came_out}, {} KiB at most, {:?}\n", peak / 1024, begun.elapsed());
        assert_eq!(came_out, comes_out, "{name}");
        assert!(peak <= MOST_MEMORY, "{name}: {peak} bytes");
        // The new token is given time to get round before its refusal counts.
        assert!(begun.elapsed() <= RefreshPolicy::DEFAULT.settle, "{name}: {:?}", begun.elapsed());
        log.is_clean(name);
        assert!(idp.log().iter().all(|call| call.parameter("claims").is_none()), "{name}: claims were passed on");
        tokens.shutdown().await;
        server.until_let_go().await;
    }
    println!("{report}");
}

/// Refusals of whatever token comes, to 50 callers who ask ten times a minute.
#[tokio::test(start_paused = true)]
async fn a_storm_of_refusals_reaches_the_token_endpoint_as_a_trickle() {
    let _turn = TURN.lock().await;
    let idp = ScriptedIdp::start().await;
    idp.always(Answer::success());
    let api = ProtectedApi::start(&idp).await;
    api.reject_everything();
    let grant = RefreshTokenGrant::builder(idp.token_url(), "app", idp.login()).build().unwrap();
    let tokens = MonitoredTokenSource::builder(grant).spawn().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let auth = AuthLayer::new(tokens.clone(), api.url()).unwrap().replay_once().wrap(client.clone());
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (auth, client, url) = (auth.clone(), client.clone(), api.url());
        callers.spawn(async move {
            for _ in 0..60 {
                match auth.send(client.get(&url).build().unwrap()).await {
                    Ok(response) => assert_eq!(response.status(), 401),
                    // What was definitely refused is not sent again, and the next token is not due yet.
                    Err(LayerError::Auth(error)) => assert!(error.is_retrying(), "{error:?}"),
                    Err(LayerError::Inner(error)) => panic!("{error}"),
                }
                sleep(Duration::from_secs(6)).await;
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    println!("{} refusals, {} calls of the token endpoint", api.calls(), idp.calls());
    assert_eq!(idp.calls(), 5);
    assert_eq!(idp.most_in_flight(), 1);
}

// What they do.

struct Row {
    name: &'static str,
    does: Does,
    /// The rule that explains the failure, or what else comes out.
    comes_out: &'static str,
}

/// What a server does with each connection, once it has read the request.
enum Does {
    /// Says this, and closes.
    Says(Vec<u8>),
    /// Says `head`, and then `again` and `again`, with a pause each time, for as long as anybody listens.
    GoesOn { head: Vec<u8>, again: Vec<u8>, pause: Duration },
}

fn token_endpoints() -> Vec<Row> {
    let row = |name, comes_out, does| Row { name, does, comes_out };
    let bare = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\n{more}").into_bytes();
    let ok = |more: &str| bare("200 OK", more);
    let mib = 1024 * 1024;
    vec![
        row("10 GiB of body", "no-token", goes_on(ok("content-length: 10737418240\r\n\r\n"), filler())),
        row("a body without end", "no-token", goes_on(ok("\r\n"), filler())),
        row("chunks without end", "no-token", goes_on(ok("transfer-encoding: chunked\r\n\r\n"), chunk())),
        row(
            "a chunk of 2^63 bytes",
            "no-token",
            goes_on(ok("transfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\n"), filler()),
        ),
        row(
            "chunk extensions without end",
            "outcome-unknown",
            goes_on(ok("transfer-encoding: chunked\r\n\r\n1;a=HOSTILE"), b";a=HOSTILE".repeat(6000)),
        ),
        row(
            "trailers without end",
            "outcome-unknown",
            goes_on(ok("transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"), b"x-a: HOSTILE\r\n".repeat(5000)),
        ),
        row("a slow head", "attempt-timeout", slowly(ok(""), b"x-a: HOSTILE\r\n")),
        row("half a head, then silence", "attempt-timeout", slowly(ok("x-a: HOST"), b"")),
        row("a slow body", "attempt-timeout", slowly(ok("content-length: 1000\r\n\r\n"), b" ")),
        row("interim answers without end", "attempt-timeout", slowly(Vec::new(), &INTERIM.repeat(100))),
        row("header lines without end", "outcome-unknown", goes_on(ok(""), b"x-a: HOSTILE\r\n".repeat(5000))),
        row("a header line without end", "outcome-unknown", goes_on(ok("x-a: "), filler())),
        row("a million header lines", "outcome-unknown", says(ok(&"x: y\r\n".repeat(1_000_000)), b"\r\n{}")),
        row(
            "ninety great header lines",
            "no-code",
            says(bare("400 Bad", &format!("x-a: {}\r\n", "HOSTILE".repeat(500)).repeat(90)), b"\r\n{}"),
        ),
        row(
            "a gzip bomb",
            "no-token",
            says(ok("content-encoding: gzip\r\ncontent-type: application/json\r\n\r\n"), &gzip_bomb()),
        ),
        row("a compressed answer, which nobody asked for", "no-code", {
            let body = gzip(br#"{"error":"invalid_grant"}"#, 1);
            says(bare("400 Bad", "content-encoding: gzip\r\ncontent-type: application/json\r\n\r\n"), &body)
        }),
        row(
            "a redirect to the metadata address",
            "redirect",
            says(bare("307 Temporary Redirect", "location: http://169.254.169.254/latest/HOSTILE\r\n\r\n"), b""),
        ),
        row("a redirect to itself", "redirect", says(bare("308 Permanent Redirect", "location: /token\r\n\r\n"), b"")),
        row(
            "escape sequences in the description",
            "rejected-code",
            error(r#"{"error":"invalid_grant","error_description":"\u001b[31mHOSTILE\u001b[0m\r\n\u0000\u202e"}"#),
        ),
        row("raw escape sequences", "no-code", error("{\"error\":\"invalid_grant\x1b[31m HOSTILE\0\"}")),
        row("escape sequences in the code", "no-code", error(r#"{"error":"invalid_grant\u001b[31m HOSTILE"}"#)),
        row("a long code", "no-code", error(&format!(r#"{{"error":"{}"}}"#, "hostile".repeat(mib / 8)))),
        row("megabytes of code", "no-code", error(&format!(r#"{{"error":"{}"}}"#, "hostile".repeat(mib)))),
        row(
            "a long description",
            "rejected-code",
            error(&format!(
                r#"{{"error":"invalid_grant","error_description":"{}"}}"#,
                r"HOSTILE rt-secret\u001b".repeat(mib / 32)
            )),
        ),
        row("nested 100,000 deep", "no-code", error(&format!(r#"{{"error":{}"#, "[".repeat(100_000)))),
        row("nested 100,000 deep, as objects", "no-code", error(&r#"{"error":"#.repeat(100_000))),
        row("half a million values", "no-code", error(&format!(r#"{{"error":[{}0]}}"#, "0,".repeat(mib / 2 - 16)))),
        row("a hundred thousand keys", "no-code", error(&format!("{{{}}}", keys(80_000)))),
        row("NUL", "no-code", error(&"\0".repeat(1000))),
        row("no UTF-8", "no-token", says(ok("\r\n"), &b"\xff\xfe\xc0\x80HOSTILE".repeat(1000))),
        row(
            "no UTF-8 in the description",
            "rejected-code",
            says(
                bare("400 Bad", "\r\n"),
                b"{\"error\":\"invalid_grant\",\"error_description\":\"HOSTILE \xff\xfe\x80\"}",
            ),
        ),
        row("a code that comes twice", "rejected-code", error(r#"{"error":"slow_down","error":"invalid_grant"}"#)),
        row(
            "a token that comes twice",
            "a token",
            says(ok("\r\n"), br#"{"access_token":"at-1","access_token":"at-2"}"#),
        ),
        row("a huge lifetime", "a token", says(ok("\r\n"), br#"{"access_token":"at-1","expires_in":1e308}"#)),
        row("a negative lifetime", "a token", says(ok("\r\n"), br#"{"access_token":"at-1","expires_in":-1e308}"#)),
        row("a number that is none", "no-token", says(ok("\r\n"), br#"{"access_token":"at-1","expires_in":1e999}"#)),
        row("half a million scopes", "a token", says(ok("\r\n"), scopes().as_bytes())),
        row("a token of a megabyte", "a token", says(ok("\r\n"), great_token().as_bytes())),
        row(
            "a token with a header in it",
            "no-token",
            says(ok("\r\n"), br#"{"access_token":"at\r\nX-Evil: HOSTILE"}"#),
        ),
        row(
            "a century of Retry-After",
            "server-error",
            says(bare("503 Busy", &format!("retry-after: {}\r\n", "9".repeat(1000)).repeat(50)), b"\r\n"),
        ),
        row("a status that is none", "outcome-unknown", says(b"HTTP/1.1 99999 HOSTILE\r\n\r\n".to_vec(), b"")),
        row("another protocol", "outcome-unknown", goes_on(b"SSH-2.0-HOSTILE\r\n".to_vec(), filler())),
    ]
}

fn apis() -> Vec<Row> {
    let row = |name, comes_out, does| Row { name, does, comes_out };
    let refused = |lines: &[&str]| {
        let lines: String = lines.iter().map(|line| format!("www-authenticate: {line}\r\n")).collect();
        says(format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n{lines}\r\n").into_bytes(), b"")
    };
    let great = 300 * 1024;
    vec![
        row("a hundred thousand challenges", "401, 2 calls", refused(&[&"HOSTILE, ".repeat(great / 9)])),
        row("ninety lines of challenges", "401, 2 calls", refused(&["HOSTILE a=b, ".repeat(250).as_str(); 90])),
        row("a quote without end", "401, 2 calls", refused(&[&format!("Bearer realm=\"{}", "\\".repeat(great))])),
        row(
            "parameters without end",
            "401, 2 calls",
            refused(&[&format!("Bearer {}", "a=HOSTILE,".repeat(great / 10))]),
        ),
        row(
            "a great description",
            "401, 2 calls",
            refused(&[&format!("Bearer error=invalid_token, error_description=\"{}\"", "HOSTILE ".repeat(7000))]),
        ),
        row(
            "claims of 50 KiB",
            "401, 2 calls",
            refused(&[&format!(
                r#"Bearer error=insufficient_claims, claims="{{\"HOSTILE\":\"{}\"}}""#,
                "a".repeat(50 * 1024)
            )]),
        ),
        row("no ASCII", "401, 2 calls", refused(&["Bearer realm=\"\u{202e}\u{9b}31mHOSTILE\""])),
        row("escape sequences", "the client's error, 1 calls", refused(&["Bearer realm=\"\x1b[31mHOSTILE\""])),
        row(
            "the metadata address",
            "401, 2 calls",
            refused(&[
                "Bearer resource_metadata=\"http://169.254.169.254/HOSTILE\", authorization_uri=\"file:///etc\"",
            ]),
        ),
        row("header lines without end", "the client's error, 1 calls", {
            let lines = b"www-authenticate: Bearer HOSTILE\r\n".repeat(2000);
            goes_on(b"HTTP/1.1 401 Unauthorized\r\n".to_vec(), lines)
        }),
        row("a refusal with a body without end", "401, 2 calls", {
            goes_on(b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\n\r\n".to_vec(), filler())
        }),
    ]
}

fn says(head: Vec<u8>, body: &[u8]) -> Does {
    Does::Says([&head, body].concat())
}

fn error(body: &str) -> Does {
    let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n", body.len());
    says(head.into_bytes(), body.as_bytes())
}

fn goes_on(head: Vec<u8>, again: Vec<u8>) -> Does {
    Does::GoesOn { head, again, pause: Duration::ZERO }
}

fn slowly(head: Vec<u8>, again: &[u8]) -> Does {
    Does::GoesOn { head, again: again.to_vec(), pause: Duration::from_millis(100) }
}

fn filler() -> Vec<u8> {
    b"HOSTILE ".repeat(8 * 1024)
}

fn chunk() -> Vec<u8> {
    [b"10000\r\n".as_slice(), &filler(), b"\r\n"].concat()
}

/// A hundred members of ten mebibytes each, which take a hundredth of that.
fn gzip_bomb() -> Vec<u8> {
    gzip(&[b' '; 64 * 1024], 160).repeat(100)
}

fn gzip(plain: &[u8], times: usize) -> Vec<u8> {
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..times {
        member.write_all(plain).unwrap();
    }
    member.finish().unwrap()
}

fn keys(count: usize) -> String {
    let keys: Vec<_> = (0..count).map(|number| format!("\"{number:06}\":0")).collect();
    keys.join(",")
}

fn scopes() -> String {
    format!(r#"{{"access_token":"at-1","scope":"{}"}}"#, "a ".repeat(512 * 1024 - 64))
}

fn great_token() -> String {
    format!(r#"{{"access_token":"{}"}}"#, "a".repeat(1024 * 1024 - 64))
}

const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: HOSTILE\r\n\r\n";

struct Server {
    address: SocketAddr,
    connections: Arc<tokio::sync::Mutex<JoinSet<()>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (does, connections) = (Arc::new(does), Arc::default());
        let listening = tokio::spawn({
            let connections: Arc<tokio::sync::Mutex<JoinSet<()>>> = Arc::clone(&connections);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let does = Arc::clone(&does);
                    // The client may hang up at any point: that is the best end of it.
                    connections.lock().await.spawn(async move {
                        let _hung_up = does.to(stream).await;
                    });
                }
            }
        });
        Self { address, connections, listening }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn url(&self) -> String {
        format!("{}/token", self.origin())
    }

    /// Nobody listens to it any more.
    async fn until_let_go(self) {
        self.listening.abort();
        // What it said is freed, or it would be missing from the next count.
        assert!(self.listening.await.unwrap_err().is_cancelled());
        while let Some(connection) = self.connections.lock().await.join_next().await {
            connection.unwrap();
        }
    }
}

impl Does {
    async fn to(&self, mut stream: TcpStream) -> io::Result<()> {
        read_request(&mut stream).await?;
        match self {
            Self::Says(bytes) => stream.write_all(bytes).await?,
            Self::GoesOn { head, again, pause } => {
                stream.write_all(head).await?;
                let (mut reader, mut writer) = stream.split();
                let going_on = async {
                    loop {
                        writer.write_all(again).await?;
                        if !pause.is_zero() {
                            sleep(*pause).await;
                        }
                    }
                };
                let mut nothing = [0; 1];
                return tokio::select! {
                    done = going_on => done,
                    _hung_up = reader.read(&mut nothing) => Ok(()),
                };
            }
        }
        stream.shutdown().await
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(());
            }
        }
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text += &String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
    }
}

fn chain(error: &AuthError) -> String {
    let chain = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    chain.map(|error| format!("{error} {error:?}\n")).collect::<String>() + &format!("{:?}", error.to_response())
}

fn rule(error: &AuthError) -> &'static str {
    let error = error.source().unwrap().downcast_ref::<IssueError>().unwrap();
    if let Some(facts) = error.source().and_then(|cause| cause.downcast_ref::<TokenEndpointError>()) {
        let description = facts.description().unwrap_or_default();
        assert!(description.chars().count() <= 256);
        is_fit_to_be_shown(error.rule(), description);
    }
    error.rule()
}

// What is logged.

/// Everything that anybody logs, at TRACE, and what tests add to it.
#[derive(Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

fn log() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let start = || {
        // Its room is made beforehand, and counts as nobody's.
        let log = Log(Arc::new(Mutex::new(Vec::with_capacity(MOST_LOGGED))));
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone());
        subscriber.with_max_level(tracing::Level::TRACE).init();
        log
    };
    LOG.get_or_init(start).clone()
}

impl Log {
    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    fn is_clean(&self, name: &str) {
        let log = self.0.lock().unwrap();
        let text = std::str::from_utf8(&log).unwrap();
        assert!(text.len() < MOST_LOGGED, "{name}: {} bytes of log", text.len());
        assert!(!text.contains("HOSTILE") && !text.contains("rt-secret"), "{name}: {text}");
        assert!(!text.chars().any(|sign| sign.is_control() && sign != '\n'), "{name}: {text:?}");
    }
}

/// What a host prints of it.
fn is_fit_to_be_shown(name: &str, text: &str) {
    assert!(!text.chars().any(|sign| sign.is_control() && sign != '\n'), "{name}: {text:?}");
    assert!(!text.contains(['\u{202e}', '\u{9b}']) && !text.contains("rt-secret"), "{name}: {text:?}");
    assert!(text.len() <= 4096, "{name}: {text:?}");
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

// What is allocated.

/// The tests share the log and the count.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// What is held now; the peak counts from here.
fn held() -> usize {
    let held = HELD.load(Ordering::SeqCst);
    PEAK.store(held, Ordering::SeqCst);
    held
}

fn peak() -> usize {
    PEAK.load(Ordering::SeqCst)
}

struct Counting;

impl Counting {
    fn add(size: usize) {
        let held = HELD.fetch_add(size, Ordering::SeqCst) + size;
        PEAK.fetch_max(held, Ordering::SeqCst);
    }
}

// SAFETY: every call is handed on to the system's allocator as it is. Growing in place counts as a new allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ATTEMPT: Duration = RefreshPolicy::DEFAULT.attempt_timeout;
const MOST_MEMORY: usize = 32 * 1024 * 1024;
const MOST_LOGGED: usize = 4 * 1024 * 1024;
