//! What a [`GrantStore`] promises, as a check that any store can run against itself.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    IssuedToken, OAuthCode,
    store::{
        Content, GrantStore, Identity, Lease, Record, Revision, StoreError, StoredGrant, StoredToken, Terms, Tombstone,
    },
};

/// Checks that a store keeps the promises of [`GrantStore`].
///
/// `open` opens a handle on the place of this name, as each of many processes would: two handles on one name share what is
/// kept, and a name that was not used before is an empty place. Takes about a second of real time for a store outside the
/// runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::{collections::HashMap, sync::Mutex};
/// use steadfast::{store::MemoryStore, testing::conformance};
///
/// let places = Mutex::new(HashMap::<String, MemoryStore>::new());
/// let open = async |place: &str| {
///     places.lock().unwrap().entry(place.to_owned()).or_insert_with(MemoryStore::new).clone()
/// };
/// conformance::check(open).await;
/// assert!(places.lock().unwrap().len() > 5);
/// # }
/// ```
///
/// # Panics
/// With the name of the promise that was broken.
pub async fn check<S: GrantStore>(open: impl AsyncFn(&str) -> S) {
    let pair = async |place: &str| (open(place).await, open(place).await);
    what_is_committed_is_read_back_whole(pair("round-trip").await).await;
    one_holds_the_lease_at_a_time(pair("lease").await).await;
    a_dropped_lease_ends(pair("drop").await).await;
    only_the_next_revision_is_committed(pair("revision").await).await;
    a_lease_that_has_run_out_protects_nothing(pair("expiry").await).await;
    an_abandoned_call_holds_nothing_up(pair("abandoned").await).await;
    places_are_apart(open("apart").await, open("elsewhere").await).await;
    no_turn_is_lost(&open).await;
}

async fn what_is_committed_is_read_back_whole<S: GrantStore>((one, other): (S, S)) {
    let promise = "what is committed is read back whole";
    assert!(other.load().await.expect(promise).is_none(), "{promise}: an empty place holds nothing");
    let lease = one.lease(TTL).await.expect(promise);
    let token = IssuedToken::bearer("at-\u{fc}\"\\\n").expires_in(TTL).scopes(["a", "b c"]);
    let token = StoredToken::new(&token, Duration::from_millis(1_735_689_600_123));
    let full = grant("rt-1").renewed(Some("rt-\u{1f511}".into()), Some(token), Terms::new(["b", "a"], ["https://x/"]));
    let tombstone = Tombstone::of(&full, &OAuthCode::new("invalid_grant").expect("a code"));
    let mut replaced = None;
    for content in [Content::Grant(grant("rt-1")), Content::Grant(full), Content::Tombstone(tombstone)] {
        let record = Record::after(replaced, content);
        one.commit(&lease, &record).await.expect(promise);
        let read = other.load().await.expect(promise).expect(promise);
        assert_eq!(read.to_json().expose_secret(), record.to_json().expose_secret(), "{promise}");
        replaced = Some(record.revision());
    }
    one.release(lease).await.expect(promise);
}

async fn one_holds_the_lease_at_a_time<S: GrantStore>((one, other): (S, S)) {
    let promise = "one holds the lease at a time";
    let lease = one.lease(TTL).await.expect(promise);
    for store in [&one, &other] {
        assert!(matches!(store.lease(TTL).await, Err(StoreError::Busy)), "{promise}: the second is told busy");
    }
    one.renew(&lease, TTL).await.expect(promise);
    assert!(matches!(other.lease(TTL).await, Err(StoreError::Busy)), "{promise}: also after a renewal");
    assert!(!format!("{lease:?}").contains("rt-"), "{promise}: and it shows no secret");
    one.release(lease).await.expect(promise);
    other.lease(TTL).await.expect("a released lease can be had at once");
}

async fn a_dropped_lease_ends<S: GrantStore>((one, other): (S, S)) {
    let promise = "a dropped lease ends, before its time if it can";
    drop(one.lease(TTL).await.expect(promise));
    // Dropping cannot wait, so the end may take a moment.
    let lease = timeout(PATIENCE, leased(&other)).await.expect(promise);
    assert!(matches!(one.lease(TTL).await, Err(StoreError::Busy)), "{promise}: and takes no other lease with it");
    other.release(lease).await.expect(promise);
}

async fn only_the_next_revision_is_committed<S: GrantStore>((one, other): (S, S)) {
    let promise = "only the next revision is committed";
    let lease = one.lease(TTL).await.expect(promise);
    let first = Record::after(None, Content::Grant(grant("rt-1")));
    let second = Record::after(Some(first.revision()), Content::Grant(grant("rt-2")));
    let refused = async |record: &Record| matches!(one.commit(&lease, record).await, Err(StoreError::Stale));
    assert!(refused(&second).await, "{promise}: a second one needs a first");
    one.commit(&lease, &first).await.expect(promise);
    let again = Record::after(None, Content::Grant(grant("rt-1")));
    assert!(refused(&again).await, "{promise}: there is one first");
    one.commit(&lease, &second).await.expect(promise);
    let late = Record::after(Some(first.revision()), Content::Grant(grant("rt-2")));
    assert!(refused(&late).await, "{promise}: and one second");
    let mistaken = Record::after(Some(late.revision()), Content::Grant(grant("rt-3")));
    assert!(refused(&mistaken).await, "{promise}: the whole revision counts, not its number alone");
    // After an answer that got lost. A store may know its own, or refuse it.
    let repeated = one.commit(&lease, &second).await;
    assert!(matches!(repeated, Ok(()) | Err(StoreError::Stale)), "{promise}: what is stored is not committed again");
    assert_eq!(revision(&other).await, Some(second.revision()), "{promise}: what was refused has changed nothing");
    one.release(lease).await.expect(promise);
}

/// A store whose leases do not run out, because the system ends them, answers busy; the lease is then as good as ever.
async fn a_lease_that_has_run_out_protects_nothing<S: GrantStore>((one, other): (S, S)) {
    let promise = "a lease that has run out protects nothing";
    let stalled = one.lease(SHORT).await.expect(promise);
    let record = Record::after(None, Content::Grant(grant("rt-1")));
    sleep(SHORT * 2).await;
    let next = match other.lease(TTL).await {
        Ok(next) => next,
        Err(StoreError::Busy) => {
            one.renew(&stalled, TTL).await.expect(promise);
            return one.commit(&stalled, &record).await.expect(promise);
        }
        Err(error) => panic!("{promise}: {error}"),
    };
    assert!(matches!(one.renew(&stalled, TTL).await, Err(StoreError::LeaseLost)), "{promise}: it cannot be renewed");
    let late = one.commit(&stalled, &record).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{promise}: a late commit is refused");
    assert_eq!(revision(&one).await, None, "{promise}: a late commit changes nothing");
    let _ = one.release(stalled).await;
    assert!(matches!(one.lease(TTL).await, Err(StoreError::Busy)), "{promise}: a late release ends nobody's lease");
    other.commit(&next, &record).await.expect(promise);
    other.release(next).await.expect(promise);
}

async fn an_abandoned_call_holds_nothing_up<S: GrantStore>((one, other): (S, S)) {
    let promise = "a call that nobody waits for holds nothing up";
    let _ = timeout(Duration::ZERO, one.lease(TTL)).await;
    let lease = timeout(PATIENCE, leased(&other)).await.expect(promise);
    other.release(lease).await.expect(promise);
}

async fn places_are_apart<S: GrantStore>(one: S, elsewhere: S) {
    let promise = "places are apart";
    let (lease, other) = (one.lease(TTL).await.expect(promise), elsewhere.lease(TTL).await.expect(promise));
    let record = Record::after(None, Content::Grant(grant("rt-1")));
    let foreign = elsewhere.commit(&lease, &record).await;
    assert!(matches!(foreign, Err(StoreError::LeaseLost)), "{promise}: another place's lease is none");
    one.commit(&lease, &record).await.expect(promise);
    assert_eq!(revision(&elsewhere).await, None, "{promise}");
    drop((lease, other));
}

async fn no_turn_is_lost<S: GrantStore>(open: &impl AsyncFn(&str) -> S) {
    let promise = "no turn is lost among many";
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = Arc::new(open("turns").await);
        tasks.spawn(async move {
            for _ in 0..TURNS {
                let lease = leased(&*store).await;
                let record = Record::after(revision(&*store).await, Content::Grant(grant("rt-1")));
                store.commit(&lease, &record).await.expect(promise);
                store.release(lease).await.expect(promise);
            }
        });
    }
    timeout(PATIENCE, tasks.join_all()).await.expect(promise);
    let last = revision(&open("turns").await).await.map(Revision::get);
    assert_eq!(last, Some(TASKS * TURNS), "{promise}");
}

async fn leased<S: GrantStore>(store: &S) -> Lease {
    loop {
        match store.lease(TTL).await {
            Err(StoreError::Busy) => sleep(Duration::from_millis(5)).await,
            outcome => return outcome.expect("the lease comes free"),
        }
    }
}

async fn revision<S: GrantStore>(store: &S) -> Option<Revision> {
    store.load().await.expect("the place can be read").map(|record| record.revision())
}

fn grant(refresh_token: &str) -> StoredGrant {
    StoredGrant::new(
        Identity::new("alice", "https://login.example.com/token", "my-app"),
        Terms::default(),
        refresh_token,
    )
}

const TTL: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(20);
const TASKS: u64 = 4;
const TURNS: u64 = 10;
