//! No secret in anything that is printed.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, Once},
};

use steadfast::{
    BoxError, IssueError, IssueReason, IssueRequest, IssuedToken, MonitoredTokenSource, StaticToken, StatusEvent,
    StopReason, TokenSource, sink_fn, source_fn,
};
use tokio::time::sleep;

use crate::world::{HOUR, hush, impatient, secs, settled};

#[tokio::test(start_paused = true)]
async fn no_type_prints_a_secret() {
    let source = || async { Ok(IssuedToken::bearer(SECRET).expires_in(HOUR)) };
    let builder = MonitoredTokenSource::builder(source).sink(|_: StatusEvent| async { Ok(()) });
    let mut shown = vec![format!("{builder:?}")];
    let (tokens, driver) = builder.pair().unwrap();
    shown.push(format!("{driver:?}"));
    tokio::spawn(driver);
    let token = tokens.token().await.unwrap();
    assert_eq!(token.secret(), SECRET);
    shown.push(format!("{token:?} {:?}", token.authorization()));
    shown.push(format!("{tokens:?} {:?} {:?} {:?}", tokens.snapshot(), tokens.downgrade(), tokens.subscribe()));
    shown.push(format!("{:?} {:?}", IssuedToken::bearer(SECRET), StaticToken::new(SECRET)));
    shown.push(format!("{:?}", source_fn(|_| async { Ok(IssuedToken::bearer(SECRET)) })));
    let request = IssueRequest::new(IssueReason::Rejected).with_claims(format!(r#"{{"email":"{SECRET}"}}"#));
    let text = format!("{request:?}");
    assert!(text.contains("Rejected") && text.contains("claims"), "{text}");
    shown.push(text);
    for text in shown {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_error_prints_what_a_source_said() {
    let source = || async { Err::<IssuedToken, BoxError>(format!("refused {SECRET}").into()) };
    let policy = impatient();
    let tokens =
        MonitoredTokenSource::builder(source).policy(policy).sink(sink_fn(|_| async { Ok(()) })).spawn().unwrap();
    let error = tokens.token().await.unwrap_err();
    assert!(error.is_retrying());
    let response = error.to_response();
    let issue = IssueError::transient(format!("refused {SECRET}"));
    for text in [
        format!("{error} {error:?} {error:#?}"),
        format!("{issue} {issue:?} {issue:#?}"),
        format!("{response:?}"),
        format!("{:?}", tokens.snapshot()),
    ] {
        assert!(!text.contains(SECRET), "{text}");
    }
    // Whoever asks for it gets it.
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.source().unwrap().to_string().contains(SECRET));
}

#[tokio::test(start_paused = true)]
async fn no_log_line_holds_a_secret_whatever_source_and_sink_say() {
    let log = Log::of_this_thread();
    hush();
    let calls = Arc::new(Mutex::new(0));
    let source = move || {
        let call = {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        async move {
            match call {
                1 | 4 => Ok(IssuedToken::bearer(SECRET).expires_in(HOUR)),
                3 => panic!("{SECRET} {}", crate::world::TRAP),
                _ => Err::<_, BoxError>(format!("refused {SECRET}").into()),
            }
        }
    };
    let sink = |_: StatusEvent| async { Err::<(), BoxError>(format!("cannot store {SECRET}").into()) };
    let tokens = MonitoredTokenSource::builder(source).policy(impatient()).sink(sink).spawn().unwrap();
    sleep(6 * HOUR).await;
    let token = tokens.token().await;
    tokens.retry_now();
    if let Ok(token) = token {
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{SECRET}", x="{SECRET}""#);
        let _ = tokens.reject(token.generation(), Some(&challenge.parse().unwrap()));
    }
    sleep(secs(60)).await;
    tokens.reauthenticate(StaticToken::new(SECRET)).unwrap();
    sleep(secs(60)).await;
    tokens.shutdown().await;
    settled().await;
    let text = log.text();
    assert!(text.contains("an attempt failed") && text.contains("did not take an event"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[tokio::test(start_paused = true)]
async fn without_a_sink_the_log_tells_the_story() {
    let log = Log::of_this_thread();
    let tokens = MonitoredTokenSource::builder(StaticToken::new(SECRET)).name("github").spawn().unwrap();
    let token = tokens.token().await.unwrap();
    sleep(secs(60)).await;
    let _ = tokens.reject(token.generation(), None);
    settled().await;
    tokens.shutdown().await;
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("steadfast::status")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, parts) in lines.iter().zip([
        [" INFO ", "workload=\"github\"", "sequence=1", "to=\"running\""],
        ["ERROR ", "from=\"running\"", "sequence=2", "to=\"unauthenticated\""],
        [" INFO ", "from=\"unauthenticated\"", "sequence=3", "to=\"stopped\""],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(lines[2].contains(&StopReason::ShutDown.to_string()));
    assert!(!StaticToken::new(SECRET).can_refresh() && !text.contains(SECRET), "{text}");
}

/// What is logged on a thread, at `TRACE`. One subscriber for all threads: one per test would come and go while other
/// tests reach a log line for the first time, and whether the line is wanted is decided then.
#[derive(Clone, Copy)]
struct Log;

impl Log {
    fn of_this_thread() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(|| Log).init();
        });
        LINES.set(Some(Vec::new()));
        Self
    }

    fn text(self) -> String {
        String::from_utf8(LINES.take().unwrap()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

const SECRET: &str = "hunter2";
