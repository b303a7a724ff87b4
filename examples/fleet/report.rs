//! The scene, what was counted on it, and what has to hold.

use std::{ops::Range, time::Duration};

use crate::{
    steadfast_fleet::End,
    terminal::{Ink, Paint, hanging, thousands},
};

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

/// What is about to be shown, before a minute of silence.
pub(crate) fn intro(scene: &Scene) -> String {
    let (sources, capacity, seed) = (thousands(scene.sources), thousands(scene.capacity()), scene.seed);
    let text = format!(
        "{sources} users' tokens, three ways to keep them, and an identity provider that serves {capacity} exchanges a second \
         and is down for 2 h of 5 (seed {seed})."
    );
    let watch = "how many exchanges a second the provider gets while it is down, the peak when it is back, and how many it \
                 turns away.";
    hanging("", &text) + "\n" + &hanging("Watch: ", watch) + "\n"
}

pub(crate) fn tables(paint: Paint, records: &[Record]) -> String {
    let mut tables = format!("\n{}\n", paint.ink(Ink::Strong, LOAD));
    for record in records {
        for (phase, range) in PHASES {
            let requests = &record.requests[range.clone()];
            let sum = |counts: &[u32]| counts.iter().copied().map(u64::from).sum::<u64>();
            let mean = sum(requests) as f64 / requests.len() as f64;
            let peak = thousands(requests.iter().max().copied().unwrap_or_default());
            let (calls, failures) = (sum(&record.calls[range.clone()]), sum(&record.failures[range]));
            let share = 100.0 * failures as f64 / calls.max(1) as f64;
            let (name, calls, failures) = (record.name, thousands(calls), thousands(failures));
            tables += &format!("{name:<14} {phase:<9}{mean:>10.2}{peak:>9}{calls:>15}{failures:>13} {share:>6.1} %\n");
        }
    }
    tables += &format!("\n{}\n", paint.ink(Ink::Strong, AFTER));
    for record in records {
        let Record { name, turned_away, all_running_at, .. } = record;
        let failing = format!("{} s more", record.failing_for());
        let running = all_running_at.map_or_else(|| "-".to_owned(), |at| format!("{} s", at - Scene::OUTAGE.end));
        tables += &format!("{name:<14}{failing:>18}{:>27}{running:>20}\n", thousands(*turned_away));
    }
    tables
}

pub(crate) const HELD: &str = "one probe at a time in the outage, no rush after it, all sources running";

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

const LOAD: &str = concat!(
    "                          exchanges a second              requests of callers\n",
    "strategy       phase          mean     peak          total       without a token"
);
const AFTER: &str =
    concat!("After the outage\n", "strategy        callers fail for   turned away for overload   all running after");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::{columns, too_wide};

    #[test]
    fn a_million_sources_fit_80_columns() {
        let scene = Scene { sources: 1_000_000, seed: u64::MAX };
        let many = vec![99_999; Scene::SECONDS];
        let record = |name| Record {
            name,
            requests: many.clone(),
            calls: many.clone(),
            failures: many.clone(),
            turned_away: 99_999_999,
            all_running_at: Some(Scene::SECONDS),
        };
        let tables = tables(Paint::PLAIN, &["single flight", "steadfast"].map(record));
        let printed = [&intro(&scene), &tables, &*Paint::PLAIN.verdict(&[""; 0], HELD)].concat();
        assert_eq!(too_wide(&printed), None, "{printed}");
        for head in [LOAD, AFTER] {
            let (_, rows) = tables.split_once(head).unwrap();
            let width = columns(head.lines().last().unwrap());
            assert!(rows.lines().take(3).all(|row| row.is_empty() || columns(row) == width), "{tables}");
        }
    }
}
