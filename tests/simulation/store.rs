//! A store that keeps its promises and yet fails in every way that stores do.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use secrecy::ExposeSecret;
use steadfast::store::{Content, GrantStore, Lease, MemoryStore, Record, StoreError};
use tokio::time::sleep;

use crate::{
    nature::{Nature, locked},
    weather::Store as Weather,
};

/// One process's way to the store.
#[derive(Clone)]
pub(crate) struct SimStore {
    nature: Arc<Nature>,
    memory: MemoryStore,
    /// Every refresh token that was ever written down, and what is stored now.
    written: Arc<Mutex<Written>>,
    /// Whose lease it is that counts: for the trace.
    process: usize,
}

#[derive(Default)]
struct Written {
    refresh_tokens: Vec<String>,
    now: Option<Record>,
    tombstones: Vec<String>,
    /// The lease that was given last.
    lease: Weak<()>,
    /// A lease was given while its last holder still took it for his: nobody can promise then who exchanges.
    has_lapsed: bool,
    may_lapse: bool,
    /// The note that a login is dead has not got through, be it for a while: others may find out by themselves.
    hides_a_death: bool,
}

/// What holds a lease, for us to see when it is dropped.
struct Held {
    inner: Lease,
    _alive: Arc<()>,
    released: AtomicBool,
    written: Arc<Mutex<Written>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Given up: a login that nobody uses any more has waited long enough for the store.
        if !self.released.load(Ordering::Relaxed) {
            locked(&self.written).has_lapsed = true;
        }
    }
}

impl SimStore {
    pub(crate) fn new(nature: &Arc<Nature>) -> Self {
        Self { nature: Arc::clone(nature), memory: MemoryStore::new(), written: Arc::default(), process: 0 }
    }

    pub(crate) fn of(&self, process: usize) -> Self {
        Self { process, ..self.clone() }
    }

    /// Whether this refresh token is, or was, in the store.
    pub(crate) fn has_kept(&self, refresh_token: &str) -> bool {
        locked(&self.written).refresh_tokens.iter().any(|kept| kept == refresh_token)
    }

    /// The refresh token in the store.
    pub(crate) fn keeps(&self) -> Option<String> {
        let written = locked(&self.written);
        match written.now.as_ref()?.content() {
            Content::Grant(grant) => Some(grant.refresh_token()?.expose_secret().to_owned()),
            _ => None,
        }
    }

    pub(crate) fn account(&self) -> Option<String> {
        locked(&self.written).now.as_ref().map(|record| record.identity().account().to_owned())
    }

    /// Whether a tombstone with this code was ever written.
    pub(crate) fn buried(&self, code: &str) -> bool {
        locked(&self.written).tombstones.iter().any(|buried| buried == code)
    }

    /// Whether two have held the lease at a time.
    pub(crate) fn has_lapsed(&self) -> bool {
        locked(&self.written).has_lapsed
    }

    pub(crate) fn hides_a_death(&self) -> bool {
        locked(&self.written).hides_a_death
    }

    fn weather(&self) -> Weather {
        match self.nature.weather().store {
            Weather::Fickle => self.nature.pick(Weather::PASSING),
            steady => steady,
        }
    }

    /// What every call goes through.
    async fn call(&self, name: &str) -> Result<Weather, StoreError> {
        let weather = self.weather();
        self.nature.note(format_args!("process {} calls store {name}: {weather:?}", self.process));
        match weather {
            Weather::Slow => sleep(self.nature.millis(0, 3000)).await,
            Weather::Down => {
                sleep(self.nature.millis(0, 1000)).await;
                return Err(StoreError::unavailable("connection refused"));
            }
            Weather::ReadOnly if name == "commit" => return Err(StoreError::unavailable("read-only file system")),
            Weather::Hanging if self.nature.chance(50) => std::future::pending().await,
            _ => {}
        }
        Ok(weather)
    }

    fn ttl(&self, weather: Weather, ttl: Duration) -> Duration {
        if weather != Weather::Hasty {
            return ttl;
        }
        self.may_lapse();
        self.nature.millis(1, 2000)
    }

    /// The present lease may end before its holder is done, and it is not the holder's fault.
    fn may_lapse(&self) {
        locked(&self.written).may_lapse = true;
    }
}

#[async_trait]
impl GrantStore for SimStore {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let weather = self.call("lease").await?;
        if weather == Weather::Busy {
            return Err(StoreError::Busy);
        }
        let inner = self.memory.lease(self.ttl(weather, ttl)).await?;
        let alive = Arc::new(());
        let mut written = locked(&self.written);
        if written.lease.upgrade().is_some() {
            written.has_lapsed |= written.may_lapse;
            self.nature.note(format_args!("the lease has lapsed"));
        }
        (written.lease, written.may_lapse) = (Arc::downgrade(&alive), weather == Weather::Hasty);
        let released = AtomicBool::new(false);
        Ok(Lease::holding(Held { inner, _alive: alive, released, written: Arc::clone(&self.written) }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        let renewed = match self.call("renew").await {
            Ok(weather) => self.memory.renew(inner(lease)?, self.ttl(weather, ttl)).await,
            Err(error) => Err(error),
        };
        if renewed.is_err() {
            self.may_lapse();
        }
        renewed
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        match self.call("load").await? {
            Weather::Corrupt if self.nature.chance(50) => Err(StoreError::Newer),
            Weather::Corrupt => Err(StoreError::Corrupt("no JSON".into())),
            _ => self.memory.load().await,
        }
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        if matches!(record.content(), Content::Tombstone(_)) {
            locked(&self.written).hides_a_death = true;
        }
        let weather = self.call("commit").await?;
        self.memory.commit(inner(lease)?, record).await?;
        let mut written = locked(&self.written);
        match record.content() {
            Content::Grant(grant) => {
                let token = grant.refresh_token().map(|token| token.expose_secret().to_owned());
                self.nature.note(format_args!("process {} has written {token:?}", self.process));
                written.refresh_tokens.extend(token);
            }
            Content::Tombstone(tombstone) => {
                self.nature.note(format_args!("process {} has written a tombstone", self.process));
                written.tombstones.push(tombstone.code().to_owned());
                written.hides_a_death = false;
            }
            _ => {}
        }
        written.now = Some(record.clone());
        if weather == Weather::Torn && self.nature.chance(60) {
            return Err(StoreError::unavailable("the connection broke off"));
        }
        Ok(())
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        if let Some(held) = lease.get::<Held>() {
            held.released.store(true, Ordering::Relaxed);
        }
        self.call("release").await?;
        drop(lease);
        Ok(())
    }
}

fn inner(lease: &Lease) -> Result<&Lease, StoreError> {
    lease.get::<Held>().map(|held| &held.inner).ok_or(StoreError::LeaseLost)
}
