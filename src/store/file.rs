//! A store in a file, for the processes of one machine.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::ExposeSecret;

use self::private::{Identity, is_plain, options, read_back, sync_directory};
use super::{GrantStore, Lease, Record, StoreError};

#[cfg_attr(not(unix), path = "file/elsewhere.rs")]
mod private;

/// Keeps a login in a file of its own, for all processes of one machine that know the path.
///
/// Three files in one directory, which has to exist: the login itself; `<name>.lock`, which is locked and never replaced or
/// removed; and, during a lease, `<name>.new`. The kernel ends a lease with the process that holds it, however it
/// ends, so the lease's time does not matter here: a holder that is merely *stopped* keeps it. On a network file system
/// locks are as good as its server's.
///
/// A new login is written to `<name>.new`, flushed, and moved over the old one: whoever reads sees the one or the other,
/// also after a power failure. `<name>.new` is made when the lease is taken, and bigger than what will stand in it, so
/// that a full disk or a read-only directory is found while the old refresh token is still good.
///
/// On Unix the files have the mode 0600. A file that others can read, a symbolic link, or anything else that is no
/// plain file is refused ([`StoreError::NotPrivate`]). Elsewhere the directory's permissions are what protects the login.
///
/// All file work is done on tokio's blocking threads, because flushing takes as long as the disk is busy; one call at a time
/// for a store and its clones. None waits for the lock of another process. A file system that *hangs* (a network's) keeps one
/// such thread until it answers, and with it the runtime's end (`Runtime::shutdown_timeout` bounds that); later calls wait
/// without a thread, and for as long as their caller does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use steadfast::store::{FileStore, GrantStore};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("login.json");
/// let store = FileStore::new(&path);
/// assert!(store.load().await.unwrap().is_none());
///
/// let lease = store.lease(Duration::from_secs(35)).await.unwrap();
/// let another_process = FileStore::new(&path);
/// assert!(another_process.lease(Duration::from_secs(35)).await.unwrap_err().is_busy());
/// # drop(lease);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FileStore {
    paths: Arc<Paths>,
    /// Held by the call that is under way, whether or not anybody waits for it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl FileStore {
    /// The login at this path; nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { paths: Arc::new(Paths::of(path.into())), turn: Arc::default() }
    }
}

#[async_trait]
impl GrantStore for FileStore {
    fn is_durable(&self) -> bool {
        true
    }

    async fn lease(&self, _: Duration) -> Result<Lease, StoreError> {
        let paths = Arc::clone(&self.paths);
        self.blocking(move || paths.lease(&Disk::REAL)).await.map(|held| Lease::holding(Arc::new(held)))
    }

    async fn renew(&self, lease: &Lease, _: Duration) -> Result<(), StoreError> {
        let held = self.held(lease)?;
        self.blocking(move || held.still()).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        let paths = Arc::clone(&self.paths);
        self.blocking(move || paths.load()).await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        // Holds the lock to the end, also when nobody waits for it any more.
        let (held, record) = (self.held(lease)?, record.clone());
        self.blocking(move || held.commit(&record, &Disk::REAL)).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        // Given up, it goes on all the same: ending a lease takes file calls, and they may hang.
        let store = self.clone();
        let releasing = tokio::spawn(async move {
            let end = move || {
                drop(lease);
                Ok(())
            };
            store.blocking(end).await
        });
        releasing.await.unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

impl FileStore {
    fn held(&self, lease: &Lease) -> Result<Arc<Held>, StoreError> {
        let held = lease.get::<Arc<Held>>().filter(|held| held.paths.lock == self.paths.lock);
        held.map(Arc::clone).ok_or(StoreError::LeaseLost)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        working.await.unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

#[derive(Debug)]
struct Paths {
    login: PathBuf,
    lock: PathBuf,
    new: PathBuf,
}

impl Paths {
    fn of(login: PathBuf) -> Self {
        let beside = |ending: &str| {
            let mut name = login.file_name().unwrap_or_default().to_os_string();
            name.push(ending);
            login.with_file_name(name)
        };
        Self { lock: beside(".lock"), new: beside(".new"), login }
    }

    fn lease(self: Arc<Self>, disk: &Disk) -> Result<Held, StoreError> {
        if is_plain(&self.lock).map_err(failed(&self.lock))? == Some(false) {
            return Err(StoreError::NotPrivate);
        }
        let mut opening = options();
        opening.read(true).write(true).create(true).truncate(false);
        let lock = opening.open(&self.lock).map_err(failed(&self.lock))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy),
            Err(TryLockError::Error(error)) => return Err(failed(&self.lock)(error)),
        }
        let held = Held { paths: self, new: Mutex::new(None), lock };
        // Somebody may have removed the file between its opening and its locking; the lock then excludes nobody.
        held.still()?;
        let new = held.paths.prepare(disk)?;
        *held.new.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
        Ok(held)
    }

    /// Makes the file for the next login, with room for it.
    fn prepare(&self, disk: &Disk) -> Result<File, StoreError> {
        // What a holder that was killed has left.
        match fs::remove_file(&self.new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&self.new)(error)),
            Ok(()) | Err(_) => {}
        }
        let room = fs::metadata(&self.login).map_or(0, |login| login.len()).saturating_mul(2).clamp(ROOM, MOST);
        let mut new = options().write(true).create_new(true).open(&self.new).map_err(failed(&self.new))?;
        let blank = io::copy(&mut io::repeat(b' ').take(room), &mut new);
        // Where directories cannot be flushed, that is found while the old refresh token is good still.
        if let Err(error) = blank.and_then(|_| (disk.sync)(&self.new)) {
            drop(new);
            let _ = fs::remove_file(&self.new);
            return Err(failed(&self.new)(error));
        }
        Ok(new)
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        let Some(file) = read_back(&self.login)? else { return Ok(None) };
        let mut text = String::new();
        match file.take(MOST).read_to_string(&mut text) {
            Ok(_) => Record::from_json(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StoreError::Corrupt("not text".into())),
            Err(error) => Err(failed(&self.login)(error)),
        }
    }
}

/// A lease. What it leaves behind is removed first: the lock goes last.
#[derive(Debug)]
struct Held {
    paths: Arc<Paths>,
    new: Mutex<Option<File>>,
    lock: File,
}

impl Held {
    /// Whether the locked file is still the one that others would lock.
    fn still(&self) -> Result<(), StoreError> {
        match is_at(&self.paths.lock, &self.lock) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::LeaseLost),
            Err(error) => Err(failed(&self.paths.lock)(error)),
        }
    }

    fn commit(&self, record: &Record, disk: &Disk) -> Result<(), StoreError> {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let text = record.to_json();
        if text.expose_secret().len() as u64 > MOST {
            let long = io::Error::new(io::ErrorKind::FileTooLarge, "a login of more than 1 MiB");
            return Err(failed(&self.paths.login)(long));
        }
        self.still()?;
        match self.paths.load()?.as_ref().map(Record::revision) {
            // An earlier try got as far as moving it.
            stored if stored == Some(record.revision()) => {
                return (disk.sync)(&self.paths.login).map_err(failed(&self.paths.login));
            }
            stored if stored == record.replaces() => {}
            Some(_) | None => return Err(StoreError::Stale),
        }
        let mut file = match new.take() {
            Some(file) => file,
            None => self.paths.prepare(disk)?,
        };
        let written = write_whole(&mut file, text.expose_secret().as_bytes(), disk);
        if let Err(error) = written {
            *new = Some(file);
            return Err(failed(&self.paths.new)(error));
        }
        // That may have taken long. Whoever has taken the lease over since has put a file of their own there, without a login.
        self.still()?;
        if !is_at(&self.paths.new, &file).map_err(failed(&self.paths.new))? {
            return Err(failed(&self.paths.new)(io::ErrorKind::NotFound.into()));
        }
        // Closed before it is moved, as some systems want it.
        drop(file);
        if let Err(error) = (disk.rename)(&self.paths.new, &self.paths.login) {
            // It holds the room for the next try, and is removed with the lease.
            *new = options().write(true).open(&self.paths.new).ok();
            return Err(failed(&self.paths.login)(error));
        }
        (disk.sync)(&self.paths.login).map_err(failed(&self.paths.login))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let new = self.new.get_mut().unwrap_or_else(PoisonError::into_inner);
        if new.take().is_some() && self.still().is_ok() {
            let _ = fs::remove_file(&self.paths.new);
        }
        // Closing is not enough: a child process that somebody is just starting has the lock as well, until it execs.
        let _ = self.lock.unlock();
    }
}

/// The calls that take time, or can fail when everything is written; a test lets them.
struct Disk {
    flush: fn(&File) -> io::Result<()>,
    rename: fn(&Path, &Path) -> io::Result<()>,
    sync: fn(&Path) -> io::Result<()>,
}

impl Disk {
    const REAL: Self = Self { flush: File::sync_all, rename: |from, to| fs::rename(from, to), sync: sync_directory };
}

/// Whether the path still leads to this file.
fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let ours = Identity::of(&file.metadata()?);
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(Identity::of(&there) == ours),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_whole(file: &mut File, text: &[u8], disk: &Disk) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    (disk.flush)(file)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::unavailable(Failed { path: path.to_owned(), source })
}

/// Which file it is about.
#[derive(Debug, thiserror::Error)]
#[error("the file {} cannot be used", path.display())]
struct Failed {
    path: PathBuf,
    source: io::Error,
}

/// Twice this is more than an access token that fits into a header.
const ROOM: u64 = 16 * 1024;
const MOST: u64 = 1024 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::store::{Content, Identity, StoredGrant, Terms};

    #[test]
    fn a_commit_whose_flush_failed_is_flushed_by_the_next_try() {
        let (_directory, held) = held();
        let record = record();
        let broken = Disk { sync: |_| Err(io::Error::other("i/o error")), ..Disk::REAL };
        for _ in 0..2 {
            assert!(matches!(held.commit(&record, &broken), Err(StoreError::Unavailable(_))));
        }
        held.commit(&record, &Disk::REAL).unwrap();
        assert_eq!(held.paths.load().unwrap().unwrap().revision(), record.revision());
        let other = self::record();
        assert!(
            matches!(held.commit(&other, &Disk::REAL), Err(StoreError::Stale)),
            "another commit of the same number"
        );
    }

    // Elsewhere what is open cannot be removed.
    #[cfg(unix)]
    #[test]
    fn a_lease_that_is_taken_over_in_mid_commit_is_lost_and_the_login_stays() {
        let (directory, held) = held();
        let (login, first) = (directory.path().join("login.json"), record());
        held.commit(&first, &Disk::REAL).unwrap();
        TAKEN_OVER.set(Some(login.clone()));
        let taken_over = Disk {
            // While the disk is busy, somebody tidies up, and another process leases the login.
            flush: |_| {
                let login = TAKEN_OVER.take().unwrap();
                fs::remove_file(Paths::of(login.clone()).lock).unwrap();
                std::mem::forget(Arc::new(Paths::of(login)).lease(&Disk::REAL).unwrap());
                Ok(())
            },
            ..Disk::REAL
        };
        let second = Record::after(Some(first.revision()), content());
        assert!(matches!(held.commit(&second, &taken_over), Err(StoreError::LeaseLost)));
        drop(held);
        assert_eq!(Paths::of(login.clone()).load().unwrap().unwrap().revision(), first.revision());
        assert!(Paths::of(login).new.exists(), "the successor's room is its own");
    }

    #[cfg(unix)]
    thread_local! {
        static TAKEN_OVER: std::cell::Cell<Option<PathBuf>> = const { std::cell::Cell::new(None) };
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_put_in_the_place_of_ours_is_not_moved_over_the_login() {
        let (directory, held) = held();
        fs::remove_file(&held.paths.new).unwrap();
        fs::write(directory.path().join("login.json.new"), "blank").unwrap();
        assert!(matches!(held.commit(&record(), &Disk::REAL), Err(StoreError::Unavailable(_))));
        assert!(held.paths.load().unwrap().is_none());
        held.commit(&record(), &Disk::REAL).unwrap();
        assert!(held.paths.load().unwrap().is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_flushed_is_found_before_anything_is_spent() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Arc::new(Paths::of(directory.path().join("login.json")));
        let broken = Disk { sync: |_| Err(io::Error::other("not supported")), ..Disk::REAL };
        assert!(matches!(Arc::clone(&paths).lease(&broken), Err(StoreError::Unavailable(_))));
        assert!(!paths.new.exists());
    }

    #[test]
    fn a_file_system_that_hangs_keeps_one_thread() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(2).build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path().join("login.json"));
        let hanging = Mutex::new(());
        let hanging: &'static Mutex<()> = Box::leak(Box::new(hanging));
        let hung = hanging.lock().unwrap();
        runtime.block_on(async {
            let lease = store.lease(Duration::MAX).await.unwrap();
            for _ in 0..3 {
                let call = store.blocking(|| {
                    drop(hanging.lock());
                    Ok(())
                });
                assert!(call.now_or_never().is_none(), "given up");
            }
            let other = tokio::task::spawn_blocking(|| ());
            tokio::time::timeout(Duration::from_secs(60), other).await.expect("a thread is left").unwrap();
            assert!(store.release(lease).now_or_never().is_none(), "given up as well");
            let same = FileStore::new(&store.paths.login);
            assert!(same.lease(Duration::MAX).await.unwrap_err().is_busy(), "it takes file calls to end a lease");
            drop(hung);
            assert!(store.load().await.unwrap().is_none(), "it answers again");
            while same.lease(Duration::MAX).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_move_that_failed_keeps_its_room_for_the_next_try_and_leaves_nothing_behind() {
        let broken = Disk { rename: |_, _| Err(io::Error::other("i/o error")), ..Disk::REAL };
        let (directory, held) = held();
        assert!(matches!(held.commit(&record(), &broken), Err(StoreError::Unavailable(_))));
        assert!(held.new.lock().unwrap().is_some());
        held.commit(&record(), &Disk::REAL).unwrap();
        drop(held);

        let held = Arc::new(Paths::of(directory.path().join("login.json"))).lease(&Disk::REAL).unwrap();
        let second = Record::after(held.paths.load().unwrap().map(|stored| stored.revision()), content());
        assert!(matches!(held.commit(&second, &broken), Err(StoreError::Unavailable(_))));
        drop(held);
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.filter(|name| name.to_string_lossy().ends_with(".new")).count(), 0);
    }

    fn held() -> (tempfile::TempDir, Held) {
        let directory = tempfile::tempdir().unwrap();
        let held = Arc::new(Paths::of(directory.path().join("login.json"))).lease(&Disk::REAL).unwrap();
        (directory, held)
    }

    fn record() -> Record {
        Record::after(None, content())
    }

    fn content() -> Content {
        Content::Grant(StoredGrant::new(Identity::new("alice", "https://x/", "app"), Terms::default(), "rt-1"))
    }
}
