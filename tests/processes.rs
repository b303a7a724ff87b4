//! One login, many processes: real ones, which are killed at any moment.
//!
//! The test program starts itself as its workers, by name of a test that does nothing unless it is told to.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "workers report on their standard output")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails the test"
)]
#![allow(clippy::disallowed_methods, reason = "processes live in real time")]

use std::{
    env,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use steadfast::{
    IssueError, IssueReason, IssueRequest, TokenSource, Verdict,
    oauth::RefreshTokenGrant,
    rotation::SharedLogin,
    store::{FileStore, GrantStore, Lease, Record, Revision, StoreError},
    testing::{Answer, ProtectedApi, ScriptedIdp},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

mod support;

#[cfg(not(feature = "redis"))]
#[test]
fn the_redis_store_is_tested_with_its_feature_only() {
    support::skipped("without the feature redis its store is not tested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_file_one_or_eight_or_thirty_two_processes_refresh_one_login_two_hundred_times_each() {
    for processes in [1, 8, 32] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("login.json");
        share(processes, "file", &path.to_string_lossy(), &FileStore::new(&path)).await;
    }
}

/// So many processes, each of which obtains [`TURNS`] tokens one after the other, and what has to hold of that.
async fn share(processes: usize, kind: &str, place: &str, store: &impl GrantStore) {
    let idp = rotating_idp(Duration::ZERO).await;
    let began = Instant::now();
    let outcomes = run(processes, &idp, kind, place).await;
    report(&format!("{processes} processes, {kind}"), &outcomes, &idp, began);

    assert!(!idp.reuse_detected());
    assert_eq!(idp.most_in_flight(), 1);
    let revision = store.load().await.unwrap().unwrap().revision().get();
    assert_eq!(outcomes.iter().map(|outcome| outcome.exchanged).sum::<u64>(), revision);
    assert_eq!(idp.calls() as u64, revision, "each exchange is a revision");
    let api = ProtectedApi::start(&idp).await;
    assert_eq!(outcomes.len(), processes);
    for outcome in &outcomes {
        assert_eq!((outcome.exchanged + outcome.adopted, outcome.errors), (TURNS, 0));
        let answer = reqwest::Client::new().get(api.url()).bearer_auth(&outcome.token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "every process ends with a token that the server holds valid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lock_the_same_run_is_taken_for_a_theft() {
    let idp = rotating_idp(Duration::ZERO).await;
    let directory = tempfile::tempdir().unwrap();
    run(8, &idp, "unlocked", &directory.path().join("login.json").to_string_lossy()).await;
    assert!(idp.reuse_detected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_grace_killing_processes_at_any_moment_loses_nothing() {
    let killing = kill_at_random(Duration::from_secs(30)).await;
    assert_eq!(killing.losses, 0);
    assert!(!killing.idp.reuse_detected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_grace_only_a_kill_between_answer_and_commit_loses_the_login() {
    let killing = kill_at_random(Duration::ZERO).await;
    // Each loss is a token that the server issued and nobody wrote down.
    assert!(killing.losses <= killing.unwritten, "{} losses, {} unwritten", killing.losses, killing.unwritten);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_keeps_the_lock_of_a_file_and_finishes_when_it_goes_on() {
    let idp = rotating_idp(Duration::ZERO).await;
    let refresh_token = idp.login();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("login.json");
    idp.then(Answer::success().after(ANSWER));
    let place = path.to_string_lossy().into_owned();
    let stopped = worker(&idp, "file", &place, &refresh_token, "1").env("STEADFAST_LEASE_MS", "500").spawn().unwrap();
    idp.called(1).await;
    let pid = stopped.id().unwrap();
    signal(pid, "STOP");
    tokio::time::sleep(ANSWER + Duration::from_secs(1)).await;

    let grant = RefreshTokenGrant::builder(idp.token_url(), "my-cli", &refresh_token).build().unwrap();
    let other = SharedLogin::builder(grant, FileStore::new(&path)).account("alice");
    let other = other.lease_wait(Duration::from_millis(200)).build();
    let error = other.issue(&IssueRequest::new(IssueReason::Ahead)).await.unwrap_err();
    assert!(
        error.downcast_ref::<IssueError>().unwrap().is_busy(),
        "no time ends its lease, so nobody spends the token"
    );
    assert_eq!(idp.calls(), 1);

    signal(pid, "CONT");
    let outcome = finish(stopped).await;
    let adopted = other.issue(&IssueRequest::new(IssueReason::Ahead)).await.unwrap();
    assert_eq!((adopted.expose_secret(), idp.calls()), (&*outcome.token, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_may_write_nothing_exchanges_nothing() {
    let idp = rotating_idp(Duration::ZERO).await;
    let refresh_token = idp.login();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("login.json").to_string_lossy().into_owned();
    // A limit on the size of files takes no rights, and fails writes as a full disk does.
    let worker = worker(&idp, "file", &place, &refresh_token, "1");
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(worker.as_std().get_program());
    limited.args(worker.as_std().get_args()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    limited.envs(worker.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.env("STEADFAST_TRIES", "3");
    let outcome = finish(limited.spawn().unwrap()).await;
    assert_eq!((outcome.exchanged, outcome.adopted, outcome.errors), (0, 0, 3), "{outcome:?}");
    assert_eq!(idp.calls(), 0);
    assert!(!Path::new(&place).exists());
}

struct Killing {
    idp: ScriptedIdp,
    losses: u64,
    unwritten: u64,
}

/// Four processes refresh as fast as they can; every 50 ms one of them is killed and started again.
async fn kill_at_random(grace: Duration) -> Killing {
    let length = env::var("STEADFAST_KILL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let idp = rotating_idp(grace).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("login.json");
    let (place, stop) = (path.to_string_lossy().into_owned(), directory.path().join("stop"));
    let start = |refresh_token: &str| worker(&idp, "file", &place, refresh_token, "forever").spawn().unwrap();

    let torn = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read_all_along(path.clone(), Arc::clone(&torn)));
    let mut refresh_token = idp.login();
    let mut workers: Vec<Child> = (0..4).map(|_| start(&refresh_token)).collect();
    let (mut kills, mut losses, mut revisions) = (0, 0, 0);
    let until = Instant::now() + Duration::from_secs(length);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let victim = &mut workers[fastrand::usize(..4)];
        victim.kill().await.unwrap();
        kills += 1;
        *victim = start(&refresh_token);
        if let Some(revision) = lost(&path).await {
            // The user signs in again, as the tombstone tells all workers to.
            (losses, revisions) = (losses + 1, revisions + revision.get() - 1);
            for worker in &mut workers {
                worker.kill().await.unwrap();
            }
            std::fs::remove_file(&path).unwrap();
            refresh_token = idp.login();
            workers = (0..4).map(|_| start(&refresh_token)).collect();
        }
    }
    std::fs::write(&stop, "").unwrap();
    let mut done = 0;
    for mut worker in workers {
        let status = tokio::time::timeout(Duration::from_secs(30), worker.wait()).await.expect("nobody is stuck");
        done += u64::from(status.unwrap().success());
    }
    reading.abort();
    assert!(!torn.load(Ordering::Relaxed), "the file was never torn");
    match lost(&path).await {
        Some(revision) => (losses, revisions) = (losses + 1, revisions + revision.get() - 1),
        None => {
            assert_eq!(done, 4, "every process ends with a valid token");
            let record = FileStore::new(&path).load().await.unwrap().unwrap();
            revisions += record.revision().get();
        }
    }
    let successes = idp.log().iter().filter(|call| call.answered().starts_with("200")).count() as u64;
    println!("{kills} kills, {successes} exchanges, {revisions} revisions, {losses} losses, grace {grace:?}");
    assert!(kills > 10 && successes > 10);
    Killing { idp, losses, unwritten: successes.saturating_sub(revisions) }
}

async fn lost(path: &Path) -> Option<Revision> {
    let record = FileStore::new(path).load().await.ok()??;
    matches!(record.content(), steadfast::store::Content::Tombstone(_)).then(|| record.revision())
}

async fn read_all_along(path: std::path::PathBuf, torn: Arc<AtomicBool>) {
    loop {
        if let Err(error) = FileStore::new(&path).load().await {
            println!("{error:?}");
            torn.store(true, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(feature = "redis")]
mod redis {
    use super::*;
    use crate::support::RedisServer;
    use steadfast::store::RedisStore;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_redis_one_or_three_or_eight_or_thirty_two_processes_refresh_one_login_two_hundred_times_each() {
        for processes in [1, 3, 8, 32] {
            let Some(server) = RedisServer::start().await else { return };
            share(processes, "redis", &server.url(), &RedisStore::open(&server.url(), "alice").unwrap()).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_that_was_stopped_for_longer_than_its_lease_writes_over_nobody() {
        let Some(server) = RedisServer::start().await else { return };
        let idp = rotating_idp(Duration::ZERO).await;
        let refresh_token = idp.login();
        idp.then(Answer::success().after(ANSWER));
        let (url, calls) = (server.url(), idp.calls());
        let stalled =
            worker(&idp, "redis", &url, &refresh_token, "1").env("STEADFAST_LEASE_MS", "500").spawn().unwrap();
        idp.called(calls + 1).await;
        let pid = stalled.id().unwrap();
        signal(pid, "STOP");

        // The answer has come, the lease has run out, and the user has signed in anew.
        tokio::time::sleep(ANSWER + Duration::from_secs(1)).await;
        let signed_in = idp.login();
        let grant = RefreshTokenGrant::builder(idp.token_url(), "my-cli", &signed_in).build().unwrap();
        let store = RedisStore::open(&url, "alice").unwrap();
        let other = SharedLogin::builder(grant, store.clone()).account("alice").build();
        other.sign_in().await.unwrap();
        other.issue(&IssueRequest::new(IssueReason::Ahead)).await.unwrap();
        let before = store.load().await.unwrap().unwrap().revision();
        let stored = idp.current_access_token().unwrap();

        signal(pid, "CONT");
        let outcome = finish(stalled).await;
        assert_eq!(store.load().await.unwrap().unwrap().revision(), before, "its late commit was refused");
        assert_eq!(outcome.token, stored, "and it has taken up what was there instead");
        other.issue(&IssueRequest::new(IssueReason::Ahead)).await.unwrap();
        assert!(!idp.reuse_detected());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cut_connections_and_a_restart_of_redis_cost_nobody_the_login() {
        let Some(mut server) = RedisServer::start().await else { return };
        // A commit whose answer is cut off took effect or not; the grace covers what a restart keeps from being committed.
        let idp = rotating_idp(Duration::from_secs(30)).await;
        let refresh_token = idp.login();
        let url = server.url();
        let workers: Vec<_> =
            (0..3).map(|_| finish(worker(&idp, "redis", &url, &refresh_token, "300").spawn().unwrap())).collect();
        let workers = tokio::spawn(futures_util::future::join_all(workers));
        for round in 0..12 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            if round % 4 == 3 {
                server.kill();
                tokio::time::sleep(Duration::from_millis(200)).await;
                server.run().await;
            } else {
                let _ = server.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        }
        let outcomes = workers.await.unwrap();
        println!("{outcomes:?}");
        assert!(!idp.reuse_detected());
        assert!(outcomes.iter().all(|outcome| outcome.exchanged + outcome.adopted == 300), "{outcomes:?}");
        assert!(outcomes.iter().any(|outcome| outcome.errors > 0), "the faults were felt");
    }
}

#[derive(Debug, Default)]
struct Outcome {
    exchanged: u64,
    adopted: u64,
    errors: u64,
    token: String,
}

/// So many processes, each of which obtains [`TURNS`] tokens one after the other.
async fn run(processes: usize, idp: &ScriptedIdp, kind: &str, place: &str) -> Vec<Outcome> {
    let refresh_token = idp.login();
    let workers =
        (0..processes).map(|_| finish(worker(idp, kind, place, &refresh_token, &TURNS.to_string()).spawn().unwrap()));
    futures_util::future::join_all(workers).await
}

async fn finish(mut child: Child) -> Outcome {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut outcome = Outcome::default();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(words) = line.strip_prefix("outcome ") {
            let words: Vec<_> = words.split(' ').collect();
            let [exchanged, adopted, errors] = [0, 1, 2].map(|at: usize| words[at].parse().unwrap());
            outcome = Outcome { exchanged, adopted, errors, token: words[3].to_owned() };
        }
    }
    let _ = child.wait().await;
    outcome
}

fn signal(process: u32, signal: &str) {
    let status = std::process::Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status();
    assert!(status.unwrap().success());
}

fn worker(idp: &ScriptedIdp, kind: &str, place: &str, refresh_token: &str, turns: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "a_worker_process", "--nocapture", "--test-threads", "1"])
        .env("STEADFAST_WORKER", kind)
        .env("STEADFAST_PLACE", place)
        .env("STEADFAST_TOKEN_URL", idp.token_url())
        .env("STEADFAST_REFRESH_TOKEN", refresh_token)
        .env("STEADFAST_TURNS", turns)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Not a test: what the tests above start.
#[tokio::test]
async fn a_worker_process() {
    let Ok(kind) = env::var("STEADFAST_WORKER") else { return };
    let var = |name: &str| env::var(name).unwrap();
    let (place, refresh_token) = (var("STEADFAST_PLACE"), var("STEADFAST_REFRESH_TOKEN"));
    let grant = RefreshTokenGrant::builder(var("STEADFAST_TOKEN_URL"), "my-cli", refresh_token).build().unwrap();
    let store: Arc<dyn GrantStore> = match kind.as_str() {
        "file" => Arc::new(FileStore::new(&place)),
        "unlocked" => Arc::new(Unlocked(FileStore::new(&place), place.clone())),
        #[cfg(feature = "redis")]
        "redis" => Arc::new(steadfast::store::RedisStore::open(&place, "alice").unwrap()),
        other => panic!("{other}"),
    };
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let builder = match number("STEADFAST_LEASE_MS") {
        Some(millis) => SharedLogin::builder(grant, Hasty(store, Duration::from_millis(millis))),
        None => SharedLogin::builder(grant, store),
    };
    let login = builder.account("alice").lease_wait(Duration::from_secs(20)).build();
    let stop = Path::new(&place).with_file_name("stop");
    let turns: u64 = var("STEADFAST_TURNS").parse().unwrap_or(u64::MAX);
    let (mut turn, mut errors, mut token) = (0, 0, String::new());
    // A store without a lock may have gone back for good, which is refused for as long as nobody signs in.
    let tries = number("STEADFAST_TRIES").unwrap_or(500);
    while turn < turns && errors < tries {
        let stopping = turns == u64::MAX && stop.exists();
        match login.issue(&IssueRequest::new(IssueReason::Ahead)).await {
            Ok(issued) => (turn, token) = (turn + 1, issued.expose_secret().to_owned()),
            Err(error) => {
                errors += 1;
                let is_final = |error: &IssueError| matches!(error.verdict(), Verdict::Rejected(_) | Verdict::Replaced);
                assert!(!error.downcast_ref::<IssueError>().is_some_and(is_final), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        }
        if stopping {
            break;
        }
    }
    let tally = login.tally();
    println!("\noutcome {} {} {errors} {token}", tally.exchanged, tally.adopted);
}

/// A store whose leases end sooner than they are wanted to.
struct Hasty(Arc<dyn GrantStore>, Duration);

#[async_trait::async_trait]
impl GrantStore for Hasty {
    async fn lease(&self, _: Duration) -> Result<Lease, StoreError> {
        self.0.lease(self.1).await
    }

    async fn renew(&self, lease: &Lease, _: Duration) -> Result<(), StoreError> {
        self.0.renew(lease, self.1).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.0.load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        self.0.commit(lease, record).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.0.release(lease).await
    }
}

/// A file whose lock has been taken out.
struct Unlocked(FileStore, String);

#[async_trait::async_trait]
impl GrantStore for Unlocked {
    async fn lease(&self, _: Duration) -> Result<Lease, StoreError> {
        Ok(Lease::holding(()))
    }

    async fn renew(&self, _: &Lease, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.0.load().await
    }

    async fn commit(&self, _: &Lease, record: &Record) -> Result<(), StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let new = format!("{}.{}", self.1, std::process::id());
        std::fs::write(&new, secrecy::ExposeSecret::expose_secret(&record.to_json()))
            .map_err(StoreError::unavailable)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).map_err(StoreError::unavailable)?;
        std::fs::rename(&new, &self.1).map_err(StoreError::unavailable)
    }

    async fn release(&self, _: Lease) -> Result<(), StoreError> {
        Ok(())
    }
}

async fn rotating_idp(grace: Duration) -> ScriptedIdp {
    let idp = ScriptedIdp::start().await;
    idp.rotating_with_grace(grace).always(Answer::success());
    idp
}

fn report(what: &str, outcomes: &[Outcome], idp: &ScriptedIdp, began: Instant) {
    let adopted: u64 = outcomes.iter().map(|outcome| outcome.adopted).sum();
    println!("{what}: {} exchanges, {adopted} adopted, {:?}", idp.calls(), began.elapsed());
}

const TURNS: u64 = 200;
/// Long enough for a busy machine to stop a process before the answer comes, and longer than its lease.
const ANSWER: Duration = Duration::from_secs(2);
