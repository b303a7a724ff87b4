//! A store on Redis, for many machines.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use redis::{
    Client, Cmd, FromRedisValue, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::{runtime::Handle, time::sleep};

use super::{GrantStore, Lease, Record, StoreError, unique};
use crate::schedule::Doubling;

/// Keeps a login on a Redis server (6 or later, or Valkey), for all machines that reach it.
///
/// A lease is a key with an owner's token and a time to live (`SET NX PX`), renewed and deleted only by its owner. The server
/// also remembers whose lease was the latest, and refuses everybody else's commit: an owner that stalled beyond its lease
/// cannot write over what came after it (*fencing*), not even where the server has lost its contents in between. All of
/// that are scripts, which the server runs as one step. The names of the keys hold a hash of the login's name, so they
/// tell nothing.
///
/// Waiters poll: a message on release is lost with a connection, so a waiter would have to poll all the same, and
/// publishing takes rights that a cautious ACL does not give.
///
/// What the server forgets, nobody knows: run it with `appendonly yes`, and with `min-replicas-to-write` where it fails
/// over, or a commit may be lost after it was acknowledged. A login is no cache entry: keep it on an instance that evicts
/// nothing (`maxmemory-policy noeviction`), or on one of the `volatile-` policies, which spare keys without a time to live;
/// of the three keys only the lease has one. Under an `allkeys-` policy the login goes when memory is short, and is
/// [gone](StoreError::Gone). An instance that is full and evicts nothing refuses to write: leases fail, and nothing is
/// exchanged.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
/// use steadfast::store::{GrantStore, RedisStore};
///
/// // For instance redis://worker:s3cret@redis.example.com/0
/// # let Ok(_) = std::env::var("REDIS_URL") else { return Ok(()) }; // `.ci/run` starts a server and sets it
/// let url = std::env::var("REDIS_URL")?;
/// let store = RedisStore::open(&url, "billing/alice")?;
/// assert!(store.load().await?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    connection: Arc<ArcSwap<ConnectionManager>>,
    /// Makes another connection; none where the host has made the first.
    client: Option<Client>,
    keys: Keys,
}

#[derive(Clone)]
struct Keys {
    login: String,
    lease: String,
    /// The owner of the latest lease, kept when the lease has ended.
    latest: String,
}

impl RedisStore {
    /// The login of this name on the server at `url`: `redis://`, `rediss://` (TLS; feature `redis-rustls`) or `unix:`, with
    /// user and password of an ACL where there is one. Connects when it is first used, and again whenever it has to; also
    /// when the server has become a replica, for a failover need not close the connections to the old master.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the URL is none, or needs TLS that is not compiled in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(url: &str, login: &str) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(failed)?;
        let connection = connect(client.clone()).map_err(failed)?;
        Ok(Self { client: Some(client), ..Self::on(connection, login) })
    }

    /// The login of this name, over a connection that the host has made; clones of it share the connection. Where a failover
    /// leaves connections open, the host has to see to it that this one comes to the new master.
    #[must_use]
    pub fn on(connection: ConnectionManager, login: &str) -> Self {
        let hash: String = Sha256::digest(login).iter().map(|byte| format!("{byte:02x}")).collect();
        // In braces, so that a cluster keeps all three in one place.
        let key = |kind| format!("steadfast:{{{hash}}}:{kind}");
        let connection = Arc::new(ArcSwap::from_pointee(connection));
        Self {
            connection,
            client: None,
            keys: Keys { login: key("login"), lease: key("lease"), latest: key("latest") },
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = ConnectionManager::clone(&self.connection.load());
        let answer = command.query_async(&mut connection).await;
        if let (Err(error), Some(client)) = (&answer, &self.client)
            && is_read_only(error)
            && let Ok(anew) = connect(client.clone())
        {
            self.connection.store(Arc::new(anew));
        }
        answer.map_err(failed)
    }

    fn held<'a>(&self, lease: &'a Lease) -> Result<&'a Held, StoreError> {
        let held = lease.get::<Held>().filter(|held| held.store.keys.lease == self.keys.lease);
        held.ok_or(StoreError::LeaseLost)
    }

    async fn delete_lease(&self, owner: &str) -> Result<(), StoreError> {
        self.ask(&script(RELEASE, &[&self.keys.lease], &[owner])).await
    }
}

#[async_trait]
impl GrantStore for RedisStore {
    fn is_durable(&self) -> bool {
        true
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let owner = format!("{:016x}{:016x}", unique(), unique());
        // Made first: if the answer gets lost, or nobody waits for it, dropping this takes the lease back.
        let held = Held { store: self.clone(), owner, ended: AtomicBool::new(false) };
        let keys = [&*self.keys.lease, &*self.keys.latest];
        if self.ask(&script(LEASE, &keys, &[&held.owner, &millis(ttl)])).await? {
            return Ok(Lease::holding(held));
        }
        held.ended.store(true, Ordering::Relaxed);
        Err(StoreError::Busy)
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        let held = self.held(lease)?;
        let keys = [&*self.keys.lease, &*self.keys.latest];
        let ours: bool = self.ask(&script(RENEW, &keys, &[&held.owner, &millis(ttl)])).await?;
        if ours { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        let text: Option<Vec<u8>> = self.ask(Cmd::new().arg("HGET").arg(&self.keys.login).arg(RECORD)).await?;
        let Some(text) = text else { return Ok(None) };
        let text = String::from_utf8(text).map_err(|_| StoreError::Corrupt("not text".into()))?;
        Record::from_json(&text).map(Some)
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        let held = self.held(lease)?;
        let replaces = record.replaces().map(|revision| revision.to_string()).unwrap_or_default();
        let (revision, text) = (record.revision().to_string(), record.to_json());
        let keys = [&*self.keys.login, &*self.keys.latest];
        let outcome: String =
            self.ask(&script(COMMIT, &keys, &[&held.owner, &replaces, &revision, text.expose_secret()])).await?;
        match outcome.as_str() {
            "fenced" => Err(StoreError::LeaseLost),
            "stale" => Err(StoreError::Stale),
            _ => Ok(()),
        }
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        let held = self.held(&lease)?;
        self.delete_lease(&held.owner).await?;
        held.ended.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for RedisStore {
    // Not the connection: its address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("login", &self.keys.login).finish_non_exhaustive()
    }
}

struct Held {
    store: RedisStore,
    owner: String,
    ended: AtomicBool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if *self.ended.get_mut() {
            return;
        }
        // Outside a runtime, as at the process's end, the lease ends with its time.
        if let Ok(runtime) = Handle::try_current() {
            let (store, owner) = (self.store.clone(), std::mem::take(&mut self.owner));
            runtime.spawn(async move {
                // What brought us here may be a connection that has just broken.
                for wait in Doubling::new(FIRST_WAIT, PATIENCE).take(TRIES) {
                    if store.delete_lease(&owner).await.is_ok() {
                        return;
                    }
                    sleep(wait).await;
                }
            });
        }
    }
}

/// Sent whole each time: a few hundred bytes, and no second round when the server has forgotten its scripts.
fn script(text: &str, keys: &[&str], arguments: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg("EVAL").arg(text).arg(keys.len()).arg(keys).arg(arguments);
    command
}

fn connect(client: Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        // The monitor tries again; what hangs here holds up a lease.
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(client, config)
}

/// Redis 6 wraps what goes wrong in a script into an error of its own.
fn is_read_only(error: &RedisError) -> bool {
    error.code() == Some(READ_ONLY) || error.detail().is_some_and(|detail| detail.contains("-READONLY "))
}

fn failed(error: RedisError) -> StoreError {
    StoreError::unavailable(error)
}

fn millis(ttl: Duration) -> String {
    ttl.as_millis().max(1).to_string()
}

const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const TRIES: usize = 8;

const RECORD: &str = "record";
const READ_ONLY: &str = "READONLY";

const LEASE: &str = "
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
return 1";

/// A lease that has run out is as good as new while nobody else came.
const RENEW: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// What is stored already was stored by a commit of ours whose answer got lost.
const COMMIT: &str = "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'fenced' end
local stored = redis.call('HGET', KEYS[1], 'revision') or ''
if stored == ARGV[3] then return 'done' end
if stored ~= ARGV[2] then return 'stale' end
redis.call('HSET', KEYS[1], 'revision', ARGV[3], 'record', ARGV[4])
return 'done'";

const RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return redis.status_reply('OK')";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_known_by_its_words_also_from_within_a_script() {
        for (words, expected) in [
            ("READONLY You can't write against a read only replica.", true),
            ("READONLY You can't write against a read only replica. script: 0a1, on @user_script:1.", true),
            (
                "ERR Error running script (call to f_0a1): @user_script:2: @user_script: 2: -READONLY You can't write",
                true,
            ),
            ("MOVED 3999 127.0.0.1:6381", false),
        ] {
            let answer = redis::parse_redis_value(format!("-{words}\r\n").as_bytes()).unwrap();
            assert_eq!(is_read_only(&answer.extract_error().unwrap_err()), expected, "{words}");
        }
    }
}
