//! The real thing: registry, provider and monitors over a source that only sleeps, on a clock that only jumps.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use steadfast::{
    AuthStatus, BoxError, IdentityProvider, IssuedToken, RefreshPolicy, TokenRegistry, provider::ProviderPolicy,
    registry::Builder, sink_fn, testing::TestClock,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    callers::{Callers, REQUESTS_PER_VISIT},
    idp::Idp,
    report::{Record, Scene},
};

pub(crate) struct Fleet {
    pub(crate) record: Record,
    pub(crate) end: End,
}

/// How it stands when the curtain falls.
pub(crate) struct End {
    pub(crate) sources: usize,
    pub(crate) running: usize,
}

pub(crate) fn run(scene: &Scene, help: bool) -> Fleet {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(play(scene, help))
}

async fn play(scene: &Scene, help: bool) -> Fleet {
    let began = Instant::now();
    let second = move || (began.elapsed().as_millis() / 1_000) as usize;
    let idp = Arc::new(Mutex::new(Idp::new(scene, "steadfast")));
    let registry = registry(scene, &idp, second, help).build().expect("a registry");
    let mut callers = Callers::of(scene);

    for now in 0..Scene::SECONDS {
        for key in callers.next_second() {
            let record = |failed: u32| {
                let mut idp = idp.lock().expect("nothing panics");
                idp.record.calls[now] += REQUESTS_PER_VISIT;
                idp.record.failures[now] += failed;
            };
            if let Some(tokens) = registry.get_if_present(&key)
                && (0..REQUESTS_PER_VISIT).all(|_| tokens.try_token().is_ok())
            {
                record(0);
                continue;
            }
            let (registry, idp) = (registry.clone(), Arc::clone(&idp));
            tokio::spawn(async move {
                let tokens = registry.get(&key).await.expect("sources are easily made");
                let got = join_all((0..REQUESTS_PER_VISIT).map(|_| tokens.token())).await;
                let failed = got.iter().filter(|token| token.is_err()).count() as u32;
                let mut idp = idp.lock().expect("nothing panics");
                let now = second().min(Scene::SECONDS - 1);
                idp.record.calls[now] += REQUESTS_PER_VISIT;
                idp.record.failures[now] += failed;
            });
        }
        sleep_until(began + Duration::from_secs(now as u64 + 1)).await;
        if now >= Scene::OUTAGE.end {
            let mut idp = idp.lock().expect("nothing panics");
            if idp.record.all_running_at.is_none() && now % 5 == 0 {
                let all_running = registry.statuses().all(|(_, status)| status == AuthStatus::Running);
                idp.record.all_running_at = all_running.then_some(now + 1);
            }
        }
    }
    let running = registry.statuses().filter(|(_, status)| *status == AuthStatus::Running).count();
    let end = End { sources: registry.len(), running };
    registry.shutdown().await;
    let record = idp.lock().expect("nothing panics").record.clone();
    Fleet { record, end }
}

fn registry(
    scene: &Scene,
    idp: &Arc<Mutex<Idp>>,
    second: impl Fn() -> usize + Copy + Send + Sync + 'static,
    help: bool,
) -> Builder<u32> {
    let limits = ProviderPolicy {
        max_in_flight: scene.max_in_flight() as usize,
        jitter_seed: Some(scene.seed),
        ..ProviderPolicy::default()
    };
    let provider = IdentityProvider::new("login.example.com", limits).expect("a policy that works");
    let guard = provider.clone();
    let idp = Arc::clone(idp);
    let builder = TokenRegistry::builder(move |_: u32| {
        let idp = Arc::clone(&idp);
        let source = guard.guard(move || {
            let idp = Arc::clone(&idp);
            async move {
                let granted = idp.lock().expect("nothing panics").exchange(second());
                sleep(Scene::LATENCY).await;
                let token = || IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(Scene::LIFETIME as u64));
                if granted { Ok(token()) } else { Err(BoxError::from("503 service unavailable")) }
            }
        });
        async { Ok::<_, BoxError>(source) }
    });
    // Nobody puts this machine to sleep: a look at the clocks every 30 s would be most of the work.
    let policy = Arc::new(RefreshPolicy { clock_check: Duration::from_secs(3_600), ..RefreshPolicy::default() });
    let sink = Arc::new(sink_fn(|_| async { Ok(()) }));
    let (clock, seed) = (TestClock::new(), scene.seed);
    let builder = builder.repeatable().idle_after(Duration::MAX).monitor(move |key, builder| {
        let builder = builder.policy(Arc::clone(&policy)).sink(Arc::clone(&sink)).clock(&clock);
        builder.jitter_seed(seed.wrapping_add(u64::from(*key)))
    });
    if help { builder.provider(&provider) } else { builder }
}
