//! What a registry does for the sources of a provider that is down: somebody probes it in time, and when it has healed, all
//! are told.

use std::{hash::Hash, sync::Weak, time::Duration};

use tokio::time::{sleep, timeout};

use super::Registry;
use crate::{IdentityProvider, WeakTokenSource, provider::ProviderState};

/// Ends with the registry.
pub(super) async fn keep_reviving<K>(registry: Weak<Registry<K>>, provider: IdentityProvider)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let mut states = provider.subscribe();
    let mut shortest_look = SHORTEST_LOOK;
    // The probers come from all shards in turn, for some may have troubles of their own.
    for round in 0.. {
        let state = *states.borrow_and_update();
        if state == ProviderState::Down {
            let wait = provider.snapshot().next_probe_in.unwrap_or_default().max(shortest_look);
            let is_still_down = timeout(wait, states.changed()).await.is_err();
            // Sources that have failed together come back together, and nobody else would look between.
            if is_still_down && provider.lacks_a_probe() {
                let Some(registry) = registry.upgrade() else { return };
                let prober = (0..).map_while(|nth| registry.kept_waiting_by(&provider, round, nth)).flatten().next();
                let prober = prober.and_then(|prober| prober.upgrade());
                // Where nobody waits for the provider, there is no hurry.
                shortest_look = if prober.is_some() { SHORTEST_LOOK } else { provider.longest_cadence() };
                if let Some(tokens) = prober {
                    tokens.retry_now();
                }
            }
            continue;
        }
        let mut pace = Pace { provider: &provider, left: 0 };
        'all: for nth in 0.. {
            let waiting = match registry.upgrade() {
                Some(registry) => registry.kept_waiting_by(&provider, 0, nth),
                None => return,
            };
            let Some(waiting) = waiting else { break };
            for tokens in waiting {
                if pace.next().await.is_err() {
                    break 'all;
                }
                if let Some(tokens) = tokens.upgrade() {
                    tokens.retry_now();
                }
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Registry<K> {
    /// Those in the nth shard, counted from this one. `None` when there are no more shards.
    fn kept_waiting_by(&self, provider: &IdentityProvider, from: usize, nth: usize) -> Option<Vec<WeakTokenSource>> {
        let shard = self.shards.nth_from(from, nth)?;
        Some(shard.collect(|_, entry| {
            let tokens = entry.live()?;
            tokens.trouble().filter(|trouble| provider.is_behind(trouble)).map(|_| tokens.downgrade())
        }))
    }
}

/// As many at a time as the provider takes.
struct Pace<'a> {
    provider: &'a IdentityProvider,
    left: usize,
}

struct Relapsed;

impl Pace<'_> {
    async fn next(&mut self) -> Result<(), Relapsed> {
        if self.left == 0 {
            // Those that were told last are in the queue by then, and ours is the turn behind them.
            sleep(ON_THEIR_WAY).await;
            self.provider.turn().await;
            self.left = self.provider.snapshot().limit;
        }
        self.left = self.left.saturating_sub(1);
        if self.provider.snapshot().state == ProviderState::Down { Err(Relapsed) } else { Ok(()) }
    }
}

const ON_THEIR_WAY: Duration = Duration::from_millis(10);
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
