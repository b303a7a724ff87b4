//! The stores: each keeps the promises, and nothing is destroyed that cannot be read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails the test"
)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use steadfast::{
    BoxError, IssueError, IssueReason, IssueRequest, IssuedToken, TokenSource,
    oauth::Exchanged,
    rotation::{Grant, SharedLogin},
    store::{Content, FileStore, GrantStore, Identity, MemoryStore, Record, StoreError, StoredGrant, Terms},
    testing::conformance,
};
use tempfile::TempDir;

mod support;

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_the_promises() {
    let places = Mutex::new(HashMap::<String, MemoryStore>::new());
    conformance::check(async |place: &str| {
        places.lock().unwrap().entry(place.to_owned()).or_insert_with(MemoryStore::new).clone()
    })
    .await;
}

#[tokio::test]
async fn the_file_store_keeps_the_promises() {
    let directory = tempfile::tempdir().unwrap();
    conformance::check(async |place: &str| FileStore::new(directory.path().join(place))).await;
    let left: Vec<_> = names(directory.path()).into_iter().filter(|name| name.ends_with(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[should_panic(expected = "one holds the lease at a time")]
async fn a_store_without_a_lock_is_found_out() {
    let places = Mutex::new(HashMap::<String, MemoryStore>::new());
    conformance::check(async |place: &str| {
        let store = places.lock().unwrap().entry(place.to_owned()).or_insert_with(MemoryStore::new).clone();
        Unlocked(store)
    })
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with_a_login().await;
    let _lease = place.store().lease(TTL).await.unwrap();
    for name in ["login.json", "login.json.lock", "login.json.new"] {
        let mode = fs::metadata(place.path().with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_can_read_is_refused_and_kept() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with_a_login().await;
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        let before = place.text();
        assert!(matches!(place.store().load().await, Err(StoreError::NotPrivate)), "{mode:o}");
        assert!(matches!(place.commit_next().await, Err(StoreError::NotPrivate)), "{mode:o}");
        assert_eq!(place.text(), before);
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    place.commit_next().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_symbolic_link_is_refused_and_what_it_points_to_is_kept() {
    use std::os::unix::fs::symlink;
    let (place, other) = (Place::empty(), Place::with_a_login().await);
    let before = other.text();
    symlink(other.path(), place.path()).unwrap();
    assert!(matches!(place.store().load().await, Err(StoreError::NotPrivate)));
    assert!(matches!(place.commit_next().await, Err(StoreError::NotPrivate)));
    fs::remove_file(place.path()).unwrap();

    // A trap in the place of the other two files.
    symlink(other.path(), place.path().with_file_name("login.json.new")).unwrap();
    place.commit_next().await.unwrap();
    assert!(fs::symlink_metadata(place.path()).unwrap().is_file());
    fs::remove_file(place.path().with_file_name("login.json.lock")).unwrap();
    symlink(other.path(), place.path().with_file_name("login.json.lock")).unwrap();
    assert!(matches!(place.store().lease(TTL).await, Err(StoreError::NotPrivate)));
    assert_eq!(other.text(), before);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_kept() {
    let place = Place::with_a_login().await;
    let whole = place.text();
    let [newer, much_newer] =
        ["2", "99999999999"].map(|version| whole.replacen("\"version\":1", &format!("\"version\":{version}"), 1));
    let truncated = &whole[..whole.len() / 2];
    for (text, is_newer) in [
        (truncated, false),
        ("", false),
        ("{\"version\":1}", false),
        (newer.as_str(), true),
        (much_newer.as_str(), true),
    ] {
        place.put(text.as_bytes());
        for error in [place.store().load().await.unwrap_err(), place.commit_next().await.unwrap_err()] {
            let expected =
                if is_newer { matches!(error, StoreError::Newer) } else { matches!(error, StoreError::Corrupt(_)) };
            assert!(expected, "{text}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("rt-secret"));
        }
        assert_eq!(place.text(), text, "it stays as it was");
    }
    place.put(b"\xff\xfe{}");
    assert!(matches!(place.store().load().await, Err(StoreError::Corrupt(_))));
    place.put(whole.as_bytes());
    place.commit_next().await.unwrap();
}

#[test]
fn what_is_wrong_with_a_record_is_said_without_its_secrets() {
    for text in ["\"rt-secret\"", "{\"version\":\"rt-secret\"}", "{\"version\":1,\"revision\":\"rt-secret\"}"] {
        let error = Record::from_json(text).unwrap_err();
        let shown = format!("{error:?} {error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(matches!(error, StoreError::Corrupt(_)) && !shown.contains("rt-secret"), "{shown}");
    }
}

#[tokio::test]
async fn what_a_killed_holder_left_behind_is_in_nobodys_way() {
    let place = Place::with_a_login().await;
    fs::write(place.path().with_file_name("login.json.new"), "half a lo").unwrap();
    place.commit_next().await.unwrap();
    assert_eq!(place.store().load().await.unwrap().unwrap().revision().get(), 2);
    assert_eq!(names(place.path().parent().unwrap()), ["login.json", "login.json.lock"]);
}

// Elsewhere what is open cannot be removed.
#[cfg(unix)]
#[tokio::test]
async fn a_lease_is_lost_with_its_lock_file() {
    let place = Place::with_a_login().await;
    let lease = place.store().lease(TTL).await.unwrap();
    fs::remove_file(place.path().with_file_name("login.json.lock")).unwrap();
    assert!(matches!(place.store().renew(&lease, TTL).await, Err(StoreError::LeaseLost)));
    let next = place.store().lease(TTL).await.unwrap();
    assert!(matches!(place.store().renew(&lease, TTL).await, Err(StoreError::LeaseLost)));
    drop(lease);
    place.store().renew(&next, TTL).await.unwrap();
    let record = place.next().await;
    place.store().commit(&next, &record).await.unwrap();
}

#[tokio::test]
async fn a_missing_directory_is_found_before_anything_is_spent() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::new(directory.path().join("missing").join("login.json"));
    assert!(store.load().await.unwrap().is_none());
    let error = store.lease(TTL).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)));
    assert!(causes(&error).contains("login.json.lock"), "{}", causes(&error));
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let place = Place::empty();
    fs::create_dir(place.path()).unwrap();
    let error = place.store().load().await.unwrap_err();
    assert!(matches!(error, StoreError::NotPrivate) && error.to_string().contains("directory"), "{error}");
    fs::remove_dir(place.path()).unwrap();
    fs::create_dir(place.path().with_file_name("login.json.lock")).unwrap();
    let error = place.store().lease(TTL).await.unwrap_err();
    assert!(matches!(error, StoreError::NotPrivate) && error.to_string().contains("lock"), "{error}");
}

#[tokio::test]
async fn a_login_that_could_not_be_read_again_is_not_stored() {
    let place = Place::with_a_login().await;
    let (store, before) = (place.store(), place.text());
    let lease = store.lease(TTL).await.unwrap();
    let stored = store.load().await.unwrap().unwrap();
    let long = StoredGrant::new(stored.identity().clone(), Terms::default(), "x".repeat(1024 * 1024));
    let refused = store.commit(&lease, &Record::after(Some(stored.revision()), Content::Grant(long))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(place.text(), before);
}

#[test]
fn a_copy_of_a_process_makes_no_mark_of_the_same_kind() {
    let identity = Identity::new("alice", "https://login.example.com/token", "my-cli");
    let content = Content::Grant(StoredGrant::new(identity, Terms::default(), "rt-secret"));
    let [one, other] = [(); 2].map(|()| {
        fastrand::seed(7);
        Record::after(None, content.clone())
    });
    assert_ne!(one.revision(), other.revision());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_and_a_read_only_directory_are_found_before_anything_is_spent() {
    let Some(disk) = SmallDisk::mount("size=64k") else { return };
    let place = Place::at(disk.0.path().join("login.json"));
    place.commit_next().await.unwrap();
    let before = place.text();

    // Full to the last byte.
    disk.fill();
    assert!(matches!(place.store().lease(TTL).await, Err(StoreError::Unavailable(_))));
    assert_eq!(place.text(), before);
    assert_eq!(names(disk.0.path()), ["filler", "login.json", "login.json.lock"], "no half a file is left");

    // Full only after the lease was taken: what it has put aside is enough for the commit.
    disk.make_room();
    let lease = place.store().lease(TTL).await.unwrap();
    disk.fill();
    let record = place.next().await;
    place.store().commit(&lease, &record).await.unwrap();
    drop(lease);
    let after = place.text();

    disk.remount("ro");
    assert!(matches!(place.store().lease(TTL).await, Err(StoreError::Unavailable(_))));
    assert!(place.store().load().await.unwrap().is_some(), "it can still be read");
    assert_eq!(place.text(), after);
}

// A login in a file.

#[tokio::test]
async fn a_file_that_was_deleted_is_not_written_again_by_itself() {
    let place = Place::empty();
    let grant = Rotating::default();
    let login = place.login(&grant);
    login.issue(&request()).await.unwrap();
    let elsewhere = fs::read(place.path()).unwrap();
    fs::remove_file(place.path()).unwrap();
    assert_eq!(rule(login.issue(&request()).await), "store-login-gone");

    // Moved away, and put back.
    fs::write(place.path(), elsewhere).unwrap();
    private(place.path());
    login.issue(&request()).await.unwrap();
    assert_eq!((place.account().await.as_str(), grant.exchanges()), ("alice", 2));
}

#[tokio::test]
async fn a_file_that_is_deleted_in_mid_exchange_is_restored_when_the_host_says_so() {
    let place = Place::empty();
    let grant = Rotating::default();
    let login = place.login(&grant);
    login.issue(&request()).await.unwrap();
    let path = place.path().to_owned();
    grant.meanwhile(move || fs::remove_file(path).unwrap());
    assert!(login.issue(&request()).await.unwrap().is_unsaved());
    assert!(!place.path().exists());
    assert_eq!(rule(login.issue(&request()).await), "store-login-gone");
    place.store().lease(TTL).await.expect("whoever signs in again is not held up");
    login.restore().await.unwrap();
    assert!(!login.issue(&request()).await.unwrap().is_unsaved());
    assert_eq!(grant.exchanges(), 3);
}

#[tokio::test]
async fn a_file_that_another_accounts_takes_the_place_of_is_neither_used_nor_written_over() {
    let (place, bobs) = (Place::empty(), Place::empty());
    let grant = Rotating::default();
    let login = place.login(&grant);
    login.issue(&request()).await.unwrap();
    SharedLogin::builder(Rotating::default(), bobs.store()).account("bob").build().issue(&request()).await.unwrap();

    // In mid-exchange, and under the very number that is to be replaced.
    let (from, to) = (bobs.path().to_owned(), place.path().to_owned());
    grant.meanwhile(move || _ = fs::copy(from, to).unwrap());
    assert!(login.issue(&request()).await.unwrap().is_unsaved());
    assert_eq!((place.account().await.as_str(), place.text()), ("bob", bobs.text()));
    assert_eq!(rule(login.issue(&request()).await), "store-foreign-login");

    // And between two exchanges.
    let other = place.login(&grant);
    assert_eq!(rule(other.issue(&request()).await), "store-foreign-login");
    assert_eq!((place.text(), grant.exchanges()), (bobs.text(), 2));
}

#[tokio::test]
async fn an_older_copy_of_the_file_is_not_used() {
    let place = Place::empty();
    let grant = Rotating::default();
    let login = place.login(&grant);
    login.issue(&request()).await.unwrap();
    let older = place.text();
    login.issue(&request()).await.unwrap();
    place.put(older.as_bytes());
    assert_eq!(rule(login.issue(&request()).await), "store-rolled-back");
    assert_eq!(grant.exchanges(), 2);
    login.restore().await.unwrap();
    login.issue(&request()).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_full_disk_or_a_read_only_one_nothing_is_exchanged() {
    let Some(disk) = SmallDisk::mount("size=64k") else { return };
    let place = Place::at(disk.0.path().join("login.json"));
    let grant = Rotating::default();
    let login = place.login(&grant);
    disk.fill();
    assert_eq!(rule(login.issue(&request()).await), "store-unavailable");
    assert_eq!(grant.exchanges(), 0);
    disk.make_room();
    login.issue(&request()).await.unwrap();
    disk.fill();
    assert_eq!(rule(login.issue(&request()).await), "store-unavailable");
    disk.make_room();
    disk.remount("ro");
    assert_eq!(rule(login.issue(&request()).await), "store-unavailable");
    assert_eq!(grant.exchanges(), 1);
    disk.remount("rw");

    // Full only when the exchange is under way: what the lease has put aside is enough.
    let full = disk.filler();
    grant.meanwhile(move || fill(&full));
    assert!(!login.issue(&request()).await.unwrap().is_unsaved());
    assert_eq!(grant.exchanges(), 2);
}

/// A server that rotates, and something that happens while it answers.
#[derive(Clone, Default)]
struct Rotating(Arc<Mutex<(u64, Option<Act>)>>);

type Act = Box<dyn FnOnce() + Send>;

impl Rotating {
    fn meanwhile(&self, act: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().1 = Some(Box::new(act));
    }

    fn exchanges(&self) -> u64 {
        self.0.lock().unwrap().0
    }
}

#[async_trait::async_trait]
impl Grant for Rotating {
    fn issuer(&self) -> String {
        "https://login.example.com/token".to_owned()
    }

    fn client_id(&self) -> String {
        "my-cli".to_owned()
    }

    fn refresh_token(&self) -> Option<SecretString> {
        Some("rt-0".into())
    }

    async fn exchange(&self, refresh_token: Option<&SecretString>, _: &IssueRequest) -> Exchanged {
        let mut state = self.0.lock().unwrap();
        assert_eq!(
            refresh_token.unwrap().expose_secret(),
            format!("rt-{}", state.0),
            "no refresh token is spent twice"
        );
        if let Some(act) = state.1.take() {
            act();
        }
        state.0 += 1;
        let issued = IssuedToken::bearer(format!("at-{}", state.0)).expires_in(Duration::from_secs(3600));
        Exchanged { issued: Ok(issued), refresh_token: Some(format!("rt-{}", state.0).into()) }
    }
}

fn request() -> IssueRequest {
    IssueRequest::new(IssueReason::Ahead)
}

fn rule(outcome: Result<IssuedToken, BoxError>) -> &'static str {
    outcome.unwrap_err().downcast_ref::<IssueError>().unwrap().rule()
}

fn causes(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).unwrap();
    format!("{cause}: {}", cause.source().map(ToString::to_string).unwrap_or_default())
}

fn private(path: &Path) {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Writes until nothing more fits.
#[cfg(target_os = "linux")]
fn fill(filler: &Path) {
    while fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(filler)
        .is_ok_and(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]).is_ok())
    {}
}

/// A file system of a few pages. Takes root.
#[cfg(target_os = "linux")]
struct SmallDisk(TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        assert!(!support::needs("STEADFAST_NEEDS_MOUNT"), "a small file system cannot be mounted");
        support::skipped("mounting takes root, so the full disk is not tested");
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        fill(&self.filler());
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn remount(&self, option: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.0.path()).status();
        assert!(status.unwrap().success());
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A path for a login in a directory of its own.
struct Place {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Place {
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("login.json"), _directory: Some(directory) }
    }

    fn at(path: PathBuf) -> Self {
        Self { path, _directory: None }
    }

    async fn with_a_login() -> Self {
        let place = Self::empty();
        place.commit_next().await.unwrap();
        place
    }

    fn store(&self) -> FileStore {
        FileStore::new(&self.path)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn login(&self, grant: &Rotating) -> SharedLogin {
        SharedLogin::builder(grant.clone(), self.store()).account("alice").build()
    }

    async fn account(&self) -> String {
        self.store().load().await.unwrap().unwrap().identity().account().to_owned()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).unwrap();
    }

    async fn next(&self) -> Record {
        let stored = self.store().load().await.ok().flatten().map(|record| record.revision());
        let identity = Identity::new("alice", "https://login.example.com/token", "my-cli");
        let record = Record::after(stored, Content::Grant(StoredGrant::new(identity, Terms::default(), "rt-secret")));
        assert!(record.to_json().expose_secret().contains("rt-secret"));
        record
    }

    async fn commit_next(&self) -> Result<(), StoreError> {
        let lease = self.store().lease(TTL).await?;
        let record = self.next().await;
        self.store().commit(&lease, &record).await?;
        self.store().release(lease).await
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A store whose leases exclude nobody.
struct Unlocked(MemoryStore);

#[async_trait::async_trait]
impl GrantStore for Unlocked {
    async fn lease(&self, _: Duration) -> Result<steadfast::store::Lease, StoreError> {
        Ok(steadfast::store::Lease::holding(()))
    }

    async fn renew(&self, _: &steadfast::store::Lease, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.0.load().await
    }

    async fn commit(&self, _: &steadfast::store::Lease, record: &Record) -> Result<(), StoreError> {
        let lease = self.0.lease(TTL).await?;
        self.0.commit(&lease, record).await
    }

    async fn release(&self, _: steadfast::store::Lease) -> Result<(), StoreError> {
        Ok(())
    }
}

const TTL: Duration = Duration::from_secs(35);
