//! Measuring in turns: what is compared runs alternately, so that a noisy machine disturbs both alike.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// What was measured, beside what it is compared with.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// A thing and its floor, each repeated `times` in a round; the target is a bound of their ratio.
    pub(crate) fn compare(
        &mut self,
        what: &str,
        target: f64,
        times: u32,
        mut floor: impl FnMut(u32),
        mut ours: impl FnMut(u32),
    ) {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| (timed(times, &mut floor), timed(times, &mut ours))).collect();
        let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(times);
        let floor = median(rounds.iter().map(|(floor, _)| each(*floor)));
        let ours = median(rounds.iter().map(|(_, ours)| each(*ours)));
        let ratio = median(rounds.iter().map(|(floor, ours)| ours.as_secs_f64() / floor.as_secs_f64()));
        let target = if target.is_nan() { String::new() } else { format!("≤ {target}") };
        self.row(what, &nanoseconds(ours), &nanoseconds(floor), &format!("{ratio:.2}"), &target);
    }

    /// A figure that has a bound of its own.
    pub(crate) fn absolute(&mut self, what: &str, target: &str, times: u32, mut ours: impl FnMut(u32)) {
        let ours = median((0..ROUNDS).map(|_| timed(times, &mut ours).as_secs_f64() * 1e9 / f64::from(times)));
        self.row(what, &nanoseconds(ours), "", "", target);
    }

    pub(crate) fn row(&mut self, what: &str, measured: &str, floor: &str, ratio: &str, target: &str) {
        self.rows.push([what, measured, floor, ratio, target].map(str::to_owned));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | floor | ratio | target |")?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn timed(times: u32, work: &mut impl FnMut(u32)) -> Duration {
    let start = Instant::now();
    work(times);
    start.elapsed()
}

fn nanoseconds(count: f64) -> String {
    format!("{count:.1} ns")
}

const ROUNDS: usize = 41;
