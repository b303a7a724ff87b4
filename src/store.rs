//! Where a login is kept, so that many processes, or many machines, can share it: one [`GrantStore`] holds one login.
//!
//! A refresh token is single-use where the server rotates it (RFC 9700 §4.14). Two processes that both refresh one login
//! spend it twice, the server takes the second use for a theft, and everybody is signed out. So whoever exchanges
//! leases the login first, and writes the new refresh token down before anybody sees the access token; the
//! [`rotation`](crate::rotation) module does both. A store only has to keep a few promises:
//!
//! - one lease at a time, and none is for ever: it ends with its time, or with the process that holds it;
//! - a [`commit`](GrantStore::commit) takes effect whole or not at all, and only on the revision it was made for, and not
//!   once somebody else has leased the login since;
//! - nothing is destroyed that cannot be read: a corrupt entry, or one of a newer version, is an error and stays.
//!
//! | store | shared by | ends a dead holder's lease |
//! |---|---|---|
//! | [`MemoryStore`] | the handles of one process | when it is dropped, or its time is up |
//! | [`FileStore`] | the processes of one machine | the kernel, at once |
//! | `RedisStore` (feature `redis`) | many machines | the server, when its time is up |
//!
//! # A store of your own
//!
//! A store keeps the text that [`Record::to_json`] gives, and compares whole revisions. Here is the system's keyring, which has
//! no locks and no compare-and-swap of its own: a [`FileStore`]'s lock beside it lends it both.
//!
//! ```
//! # struct Keyring(std::sync::Mutex<Option<String>>);
//! # impl Keyring {
//! #     fn password(&self) -> Option<String> { self.0.lock().unwrap().clone() }
//! #     fn set_password(&self, text: &str) { *self.0.lock().unwrap() = Some(text.to_owned()); }
//! # }
//! use std::time::Duration;
//! use steadfast::store::{FileStore, GrantStore, Lease, Record, StoreError};
//!
//! /// A login in the keyring, leased by the lock of a file.
//! struct KeyringStore {
//!     keyring: Keyring, // for instance a `keyring::Entry`; its calls block, so they belong in `spawn_blocking`
//!     lock: FileStore,
//! }
//!
//! #[async_trait::async_trait]
//! impl GrantStore for KeyringStore {
//!     async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
//!         self.lock.lease(ttl).await
//!     }
//!     async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
//!         self.lock.renew(lease, ttl).await
//!     }
//!     async fn load(&self) -> Result<Option<Record>, StoreError> {
//!         self.keyring.password().map(|text| Record::from_json(&text)).transpose()
//!     }
//!     async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
//!         self.lock.renew(lease, Duration::ZERO).await?; // still ours?
//!         let stored = self.load().await?.map(|stored| stored.revision());
//!         if stored != record.replaces() {
//!             return Err(StoreError::Stale);
//!         }
//!         self.keyring.set_password(secrecy::ExposeSecret::expose_secret(&record.to_json()));
//!         Ok(())
//!     }
//!     async fn release(&self, lease: Lease) -> Result<(), StoreError> {
//!         self.lock.release(lease).await
//!     }
//! }
//!
//! # #[cfg(feature = "testing")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use std::sync::{Arc, Mutex};
//! # let directory = std::env::temp_dir().join(format!("steadfast-keyring-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory).unwrap();
//! # let places = Mutex::new(std::collections::HashMap::<String, Arc<KeyringStore>>::new());
//! # let open = async |place: &str| {
//! #     let new = || KeyringStore { keyring: Keyring(Mutex::default()), lock: FileStore::new(directory.join(place)) };
//! #     Arc::clone(places.lock().unwrap().entry(place.to_owned()).or_insert_with(|| Arc::new(new())))
//! # };
//! // In its tests; `open` opens a handle on the named place.
//! steadfast::testing::conformance::check(open).await;
//! # std::fs::remove_dir_all(&directory).unwrap();
//! # }
//! # #[cfg(not(feature = "testing"))] fn main() {}
//! ```

use std::{any::Any, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

mod record;
pub use record::{Content, Fingerprint, Identity, Record, Revision, StoredGrant, StoredToken, Terms, Tombstone};

mod error;
pub use error::StoreError;

mod memory;
pub use memory::MemoryStore;

mod file;
pub use file::FileStore;

#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::RedisStore;

/// Keeps one login for all who share it. See the [module's documentation](self) for what a store promises, and
/// `testing::conformance` for a check of these promises.
///
/// No method waits for a lease, and none may block the thread. Callers bound each call in time and may drop it at any
/// point; what it then leaves behind must be as if it had not been made, or as if it had been finished.
#[async_trait]
pub trait GrantStore: Send + Sync + 'static {
    /// Leases the login for `ttl`. One try; whether the store can be written at all should show here, while nothing
    /// has been spent yet.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while somebody else holds it.
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError>;

    /// Makes the lease last for `ttl` from now on.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] once somebody else has leased the login.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError>;

    /// What is stored. Needs no lease.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Newer`] where something is there that cannot be understood.
    async fn load(&self) -> Result<Option<Record>, StoreError>;

    /// Puts the record in the place of the revision that it [`replaces`](Record::replaces), durably and as a whole. A store
    /// that finds this very record stored already may say that it is done: an earlier answer got lost.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if another revision is stored, [`StoreError::LeaseLost`] once somebody else has leased the
    /// login. Nothing has changed then. After [`StoreError::Unavailable`] nobody knows.
    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError>;

    /// Ends the lease, if it is still ours.
    ///
    /// # Errors
    /// Whatever kept the store from ending it now; it ends by itself later.
    async fn release(&self, lease: Lease) -> Result<(), StoreError>;

    /// Whether what is committed is still there when this value has been dropped, and another is made in its place.
    /// Defaults to `false`: a [`TokenRegistry`](crate::TokenRegistry) then keeps a login in memory that it could load again.
    fn is_durable(&self) -> bool {
        false
    }
}

/// The right to exchange a login's refresh token. Owns what holds it, so dropping it ends it, without waiting.
///
/// ```
/// use steadfast::store::Lease;
///
/// let lease = Lease::holding(String::from("owner-7"));
/// assert_eq!(lease.get::<String>().unwrap(), "owner-7");
/// assert!(lease.get::<u64>().is_none(), "another store's lease");
/// ```
pub struct Lease(Box<dyn Any + Send + Sync>);

impl Lease {
    /// A lease that lasts as long as `guard`, whose `Drop` has to end it.
    pub fn holding(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }

    /// The guard, if it is of this type: a store finds its own there.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// Drawn by nobody else, not even by a copy of this process: what a seed that was copied with it gives would be drawn twice.
fn unique() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::getrandom(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => fastrand::u64(..),
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

#[async_trait]
impl<T: GrantStore + ?Sized> GrantStore for Arc<T> {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        (**self).lease(ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        (**self).renew(lease, ttl).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        (**self).load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        (**self).commit(lease, record).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        (**self).release(lease).await
    }

    fn is_durable(&self) -> bool {
        (**self).is_durable()
    }
}
