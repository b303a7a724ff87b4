//! The scene, what was counted on it, and what has to hold.

use std::{ops::Range, time::Duration};

use crate::steadfast_fleet::End;

pub(crate) struct Scene {
    pub(crate) sources: u32,
    pub(crate) seed: u64,
}

impl Scene {
    pub(crate) const SECONDS: usize = 5 * 3600;
    pub(crate) const OUTAGE: Range<usize> = 3600..3 * 3600;
    pub(crate) const LIFETIME: usize = 3600;
    pub(crate) const LATENCY: Duration = Duration::from_millis(50);

    /// Exchanges that the provider serves in a second: 2,000 for 100,000 sources.
    pub(crate) const fn capacity(&self) -> u32 {
        let capacity = self.sources / 50;
        if capacity < 20 { 20 } else { capacity }
    }

    /// The budget given to the provider: about two thirds of its capacity.
    pub(crate) fn max_in_flight(&self) -> u32 {
        (self.capacity() * 2 / 3 * Self::LATENCY.as_millis() as u32 / 1_000).max(1)
    }

    pub(crate) fn budget_per_second(&self) -> u32 {
        self.max_in_flight() * 1_000 / Self::LATENCY.as_millis() as u32
    }
}

/// What was counted in each second.
#[derive(Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) requests: Vec<u32>,
    pub(crate) calls: Vec<u32>,
    pub(crate) failures: Vec<u32>,
    /// By the provider, for there were too many.
    pub(crate) turned_away: u32,
    /// When every source's status was Running again, where there are statuses.
    pub(crate) all_running_at: Option<usize>,
}

impl Record {
    pub(crate) fn of(name: &'static str) -> Self {
        let none = vec![0; Scene::SECONDS];
        Self { name, requests: none.clone(), calls: none.clone(), failures: none, turned_away: 0, all_running_at: None }
    }

    /// How long after the outage the last call failed.
    fn failing_for(&self) -> usize {
        let last = self.failures.iter().rposition(|failures| *failures > 0);
        last.map_or(0, |last| (last + 1).saturating_sub(Scene::OUTAGE.end))
    }
}

pub(crate) fn print(scene: &Scene, records: &[Record]) {
    let Scene { sources, seed } = scene;
    println!("{sources} sources, an outage of 2 h, seed {seed}; the provider serves {}/s\n", scene.capacity());
    println!("                               exchanges/s          requests of callers");
    println!("strategy       phase          mean      peak         total    without a token");
    for record in records {
        for (phase, range) in PHASES {
            let requests = &record.requests[range.clone()];
            let sum = |counts: &[u32]| counts.iter().copied().map(u64::from).sum::<u64>();
            let mean = sum(requests) as f64 / requests.len() as f64;
            let peak = requests.iter().max().copied().unwrap_or_default();
            let (calls, failures) = (sum(&record.calls[range.clone()]), sum(&record.failures[range]));
            let share = 100.0 * failures as f64 / calls.max(1) as f64;
            println!("{:<14} {phase:<9} {mean:>9.2} {peak:>9} {calls:>13} {failures:>11} {share:>5.1} %", record.name);
        }
    }
    println!("\nafter the outage");
    for record in records {
        let Record { name, turned_away, all_running_at, .. } = record;
        let running = all_running_at.map(|at| format!("; all Running after {} s", at - Scene::OUTAGE.end));
        println!(
            "  {name:<14} callers failed for {} s more; {turned_away} exchanges turned away for overload{}",
            record.failing_for(),
            running.unwrap_or_default()
        );
    }
}

pub(crate) fn broken_promises(scene: &Scene, record: &Record, end: &End) -> Vec<String> {
    let mut broken = Vec::new();
    let mut promise = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    // From when the probes have reached their slowest cadence.
    let settled = &record.requests[Scene::OUTAGE.start + 900..Scene::OUTAGE.end];
    let busiest = settled.windows(30).map(|cadence| cadence.iter().sum::<u32>()).max().unwrap_or_default();
    promise(busiest <= 1, format!("{busiest} probes in half a minute of the outage"));
    let probes: u32 = settled.iter().sum();
    promise(probes as usize >= settled.len() / 35, format!("only {probes} probes in {} s", settled.len()));
    let peak = record.requests.iter().max().copied().unwrap_or_default();
    promise(peak <= scene.budget_per_second(), format!("{peak} exchanges in a second, more than the budget"));
    promise(record.turned_away == 0, format!("{} exchanges beyond the provider's capacity", record.turned_away));
    let End { sources, running } = end;
    promise(running == sources, format!("{running} of {sources} sources are Running in the end"));
    broken
}

const PHASES: [(&str, Range<usize>); 3] =
    [("warm-up", 0..Scene::OUTAGE.start), ("outage", Scene::OUTAGE), ("recovery", Scene::OUTAGE.end..Scene::SECONDS)];
