//! The whole library in a world of its own, for thousands of lives: the real driver, layer, rotation, stores and delivery,
//! with an authorization server, a resource server, a network, a disk, clocks and a host that fail in every way they can.
//!
//! Time is virtual, and everything that happens follows from one number, the seed. After each step every promise in
//! `simulation/promises.rs` is checked.
//!
//! ```text
//! cargo test --test simulation                            # 1,000 seeds
//! STEADFAST_SEEDS=10000 cargo test --test simulation      # as the check does
//! STEADFAST_SEEDS=5000000 STEADFAST_FIRST_SEED=1000000 cargo test --release --test simulation    # a night
//! STEADFAST_SEED=4711 cargo test --test simulation -- --nocapture                               # one, with its story
//! ```
//!
//! A seed that breaks a promise is printed with the end of its story. `simulation/planted` holds bugs that the simulation
//! has to find, and `simulation/plant.sh` shows that it does.

#![allow(clippy::disallowed_methods, reason = "it reads the paused clock, and the real one for its own speed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "of the many kinds of weather, each place minds a few")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper that fails fails the test"
)]

#[path = "simulation/api.rs"]
mod api;
#[path = "simulation/idp.rs"]
mod idp;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/nature.rs"]
mod nature;
#[path = "simulation/people.rs"]
mod people;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/promises.rs"]
mod promises;
#[path = "simulation/sink.rs"]
mod sink;
#[path = "simulation/source.rs"]
mod source;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/weather.rs"]
mod weather;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use self::{nature::Nature, weather::Weather, world::World};

#[test]
fn every_promise_holds_whatever_happens() {
    if let Some(seed) = variable("STEADFAST_SEED") {
        let life = tell(seed);
        println!("{}", life.story.join("\n"));
        assert_eq!(life.broken, None, "seed {seed}");
        return;
    }
    let (first, count) = (variable("STEADFAST_FIRST_SEED").unwrap_or(0), variable("STEADFAST_SEEDS").unwrap_or(1000));
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let worst: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let met: Mutex<BTreeSet<String>> = Mutex::default();
    thread::scope(|threads| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || worst.lock().unwrap().as_ref().is_some_and(|(worst, _)| *worst < seed) {
                        return;
                    }
                    let mut life = simulate(seed);
                    met.lock().unwrap().append(&mut life.met);
                    if variable("STEADFAST_GO_ON").is_some() {
                        if let Some(broken) = life.broken {
                            let short: String = broken.chars().take(200).collect();
                            println!("seed {seed}: {short}");
                        }
                        continue;
                    }
                    let mut worst = worst.lock().unwrap();
                    if let Some(broken) = life.broken.filter(|_| worst.as_ref().is_none_or(|(worst, _)| seed < *worst))
                    {
                        *worst = Some((seed, broken));
                    }
                }
            });
        }
    });
    if let Some((seed, broken)) = worst.into_inner().unwrap() {
        let story = tell(seed).story;
        let end = &story[story.len().saturating_sub(40)..];
        panic!(
            "seed {seed} breaks a promise, the first of {} seeds to do so: {broken}\nreplay it with: STEADFAST_SEED={seed} cargo \
             test --test simulation -- --nocapture\nthe end of its story:\n{}",
            seed - first + 1,
            end.join("\n")
        );
    }
    if count >= 1000 {
        nothing_is_idle(&met.into_inner().unwrap());
    }
    println!("{count} seeds in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..50 {
        let (once, again) = (tell(seed), tell(seed));
        let differs = once.story.iter().zip(&again.story).position(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(hash(&once.story), hash(&again.story), "seed {seed}");
        let untold = simulate(seed);
        assert_eq!((untold.broken, untold.met), (once.broken, once.met), "seed {seed}");
    }
}

/// A world in which nothing goes wrong proves nothing.
fn nothing_is_idle(met: &BTreeSet<String>) {
    let weather = Weather::every_kind();
    let missed: Vec<_> = weather
        .iter()
        .map(String::as_str)
        .chain(CONSEQUENCES.iter().copied())
        .filter(|what| !met.contains(*what))
        .collect();
    assert!(missed.is_empty(), "never came up: {missed:?}");
}

/// What the library says, and how it names its rules, when it is in trouble.
const CONSEQUENCES: &[&str] = &[
    "auth retrying: the resource server refuses fresh tokens",
    "auth retrying: the token endpoint does not give tokens",
    "stopped: shut down",
    "stopped: the last handle was dropped",
    "stopped: the monitor was dropped",
    "unauthenticated: another account's login has taken this one's place in the store",
    "unauthenticated: no token for longer than the ceiling of 30m",
    "unauthenticated: the authorization server rejected the grant (access_denied)",
    "unauthenticated: the authorization server rejected the grant (invalid_client)",
    "unauthenticated: the authorization server rejected the grant (invalid_grant)",
    "unauthenticated: the authorization server rejected the grant (unsupported_token_type)",
    "unauthenticated: the resource server refuses the token",
    "ahead",
    "expired",
    "initial",
    "nudged",
    "probe",
    "rejected",
    "PassThrough",
    "Refreshing",
    "Settling",
    "superseded",
    "attempt-timeout",
    "busy",
    "condemned-before",
    "expired-on-arrival",
    "no-code",
    "no-token",
    "not-sent",
    "outcome-unknown",
    "passing-description",
    "rate-limited",
    "redirect",
    "rejected-code",
    "server-error",
    "source-panicked",
    "store-corrupt",
    "store-foreign-login",
    "store-lease-lost",
    "store-newer",
    "store-unavailable",
    "transient-code",
    "unconfirmed-code",
    "unsupported-token-type",
    "a rejection was passed through: the budget of forced refreshes is spent",
    "an unsaved refresh token was given up: another login counts by now",
    "rejected, but somebody has replaced the login: going on with theirs",
    "the store was written",
    "the status sink did not take an event",
    "took up a token from the store",
    "unsaved no more",
];

struct Life {
    /// Empty if it was not to be told.
    story: Vec<String>,
    broken: Option<String>,
    met: BTreeSet<String>,
}

fn simulate(seed: u64) -> Life {
    live(seed, false)
}

/// The same, with its story: a line for everything that happens costs time, and few lives are worth it.
fn tell(seed: u64) -> Life {
    live(seed, true)
}

fn live(seed: u64, told: bool) -> Life {
    prepare();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::of(seed, told);
            let nature = Nature::present().unwrap();
            world.live().await;
            nature.end();
        });
    }));
    drop(runtime);
    let nature = Nature::present().unwrap();
    let broken = nature.broken().or_else(|| lived.is_err().then(|| "the simulation itself panicked".to_owned()));
    let (story, met) = nature.close();
    Life { story, broken, met }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn hash(story: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    story.hash(&mut hasher);
    hasher.finish()
}

/// Once for all threads: panics that are wanted would fill the output, and the log is listened to.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let words = panic.payload();
            let wanted = words.downcast_ref::<&str>().copied().or(words.downcast_ref::<String>().map(String::as_str));
            if wanted.is_none_or(|words| !words.contains(TRAP)) {
                usual(panic);
            }
        }));
        tracing::subscriber::set_global_default(log::Listener).unwrap();
    });
}

/// In every secret there is, and nowhere else.
const SECRET: &str = "s3cret";
const TRAP: &str = "a panic that the simulation wants";
