//! The strategies that have no memory of failures: a token is fetched when it is needed, by who needs it. They are simple
//! enough to be counted rather than run.

use std::collections::VecDeque;

use crate::{
    callers::{Callers, REQUESTS_PER_VISIT},
    idp::Idp,
    report::{Record, Scene},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each request fetches for itself.
    None,
    /// The requests of one source wait for one of them.
    PerSource,
}

/// Somebody without a token, at the token endpoint.
#[derive(Clone, Copy)]
struct Fetch {
    source: u32,
    /// For so many requests.
    requests: u32,
    tries_left: u32,
}

pub(crate) fn run(scene: &Scene, sharing: Sharing) -> Record {
    let mut callers = Callers::of(scene);
    let name = if sharing == Sharing::None { "per caller" } else { "single flight" };
    let mut idp = Idp::new(scene, name);
    let mut good_until = vec![0_usize; scene.sources as usize];
    let mut retries = VecDeque::new();
    for second in 0..Scene::SECONDS {
        let mut fetches: Vec<Fetch> = std::mem::take(&mut retries).into();
        // Those of the same visit come together, so none finds the token that another one has just fetched.
        for source in callers.next_second() {
            let is_good = good_until[source as usize] > second;
            idp.record.calls[second] += REQUESTS_PER_VISIT;
            if !is_good {
                let together = if sharing == Sharing::None { 1 } else { REQUESTS_PER_VISIT };
                let fetch = Fetch { source, requests: together, tries_left: TRIES };
                fetches.extend((0..REQUESTS_PER_VISIT / together).map(|_| fetch));
            }
        }
        for fetch in fetches {
            // A retry finds what somebody else has fetched meanwhile.
            if fetch.tries_left < TRIES && good_until[fetch.source as usize] > second {
                continue;
            }
            if idp.exchange(second) {
                good_until[fetch.source as usize] = second + Scene::LIFETIME - MARGIN;
            } else if fetch.tries_left > 1 {
                retries.push_back(Fetch { tries_left: fetch.tries_left - 1, ..fetch });
            } else {
                idp.record.failures[second] += fetch.requests;
            }
        }
    }
    idp.record
}

const TRIES: u32 = 3;
const MARGIN: usize = 10;
