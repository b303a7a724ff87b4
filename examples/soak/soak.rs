//! The run: rounds of trouble, quiet and rest, and the verdict.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use steadfast::BoxError;
use tokio::time::sleep;

use crate::{
    api,
    arguments::Arguments,
    hosts::Estate,
    idp::Idp,
    people::People,
    reading::Reading,
    table::{self, Row},
    terminal::{Ink, Paint, hanging},
    weather::{Mood, Weather},
};

/// How much the heap may have grown between the first rest and the last, however long the run.
///
/// Nothing keeps anything for each request, handle or exchange. What may still come after the first rest is bounded: the two
/// shared logins each remember the last 64 refresh tokens and states, some 7 KiB, buffers and queues find their size, and
/// threads for files come and go. A byte lost with each request would be 110 KiB after ten minutes.
const HEAP_MAY_GROW: isize = 64 * 1024;

pub(crate) async fn run(arguments: Arguments) -> Result<bool, BoxError> {
    let Arguments { span, seed, leak } = arguments;
    let rounds = (span.as_secs() / SHORTEST_ROUND.as_secs()).clamp(2, 11) as u32;
    let trouble = (span / rounds).saturating_sub(QUIET + REST).max(Duration::from_secs(2));
    let scene = format!(
        "Four hosts, callers at random, tokens of 2 s, and servers that fail (seed {seed}). {rounds} rounds, each with {} s \
         of trouble, {} s of quiet, and a rest.",
        trouble.as_secs(),
        QUIET.as_secs()
    );
    println!("{}", hanging("", &scene));
    println!("Watch: files, tasks and heap at rest do not grow.\n");

    let weather = Arc::new(Weather::new(seed));
    let idp = Idp::start(Arc::clone(&weather)).await?;
    let api = api::start(&idp).await?;
    let directory = tempfile::tempdir()?;
    let estate = Arc::new(Estate::new(idp, api)?);
    let people = People::begin(&estate, estate.hosts(directory.path())?, leak);
    let mut soak = Soak { began: Instant::now(), estate, people, rows: Vec::with_capacity(16), unserved: Vec::new() };

    println!("{}", Paint::of_stdout().ink(Ink::Strong, table::HEAD));
    for _ in 0..rounds {
        soak.round(trouble).await;
    }
    let broken = soak.broken();
    println!("\n{}", hanging("", &soak.story()));
    table::verdict(&broken);
    Ok(broken.is_empty())
}

struct Soak {
    began: Instant,
    estate: Arc<Estate>,
    people: People,
    rows: Vec<Row>,
    unserved: Vec<String>,
}

impl Soak {
    async fn round(&mut self, trouble: Duration) {
        let Idp { weather, ledger, .. } = &self.estate.idp;
        // The tokens of the rest would last: with new keys at the API, they do not.
        ledger.revoke_all();
        let outage = (trouble / 4).min(Duration::from_secs(3));
        for (mood, span) in [(Mood::Stormy, (trouble - outage) / 2), (Mood::Down, outage)] {
            weather.turn(mood);
            sleep(span).await;
        }
        weather.turn(Mood::Stormy);
        sleep((trouble - outage) / 2).await;

        weather.turn(Mood::Calm);
        self.people.hosts.iter().for_each(|host| host.served.store(0, Relaxed));
        sleep(QUIET).await;
        let unserved = self.people.hosts.iter().filter(|host| host.served.load(Relaxed) == 0);
        let round = self.rows.len() + 1;
        self.unserved.extend(unserved.map(|host| format!("{:?} was not served in quiet phase {round}", host.name)));

        let rest = self.people.rest().await;
        let reading = settled(self.rows.first().map(|row| &row.reading)).await;
        let tally = &self.people.tally;
        let row = Row {
            at: self.began.elapsed(),
            upstream: self.estate.idp.calls(),
            served: tally.served.load(Relaxed),
            failed: tally.failed.load(Relaxed),
            without_token: tally.without_token.load(Relaxed),
            hung_up: tally.hung_up.load(Relaxed),
            reading,
        };
        println!("{row}");
        self.rows.push(row);
        drop(rest);
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = self.unserved.clone();
        let ledger = &self.estate.idp.ledger;
        for (times, what) in [
            (ledger.reused(), "a refresh token was sent again outside the grace"),
            (self.estate.at_once.load(Relaxed), "two exchanges of one login were in flight at once"),
            (self.estate.expired.load(Relaxed), "an expired token was sent"),
        ] {
            if times > 0 {
                broken.push(format!("{what} ({times} times)"));
            }
        }
        let (Some(first), Some(last)) = (self.rows.first(), self.rows.last()) else { return broken };
        let (first, last) = (&first.reading, &last.reading);
        if last.tasks > first.tasks {
            broken.push(format!("{} tasks at rest, {} at the first rest", last.tasks, first.tasks));
        }
        if let (Some(now), Some(then)) = (last.files, first.files)
            && now > then
        {
            broken.push(format!("{now} open files at rest, {then} at the first rest"));
        }
        let grown = last.heap - first.heap;
        if grown > HEAP_MAY_GROW {
            broken.push(format!("the heap has grown by {} KiB; {} are allowed", grown / 1024, HEAP_MAY_GROW / 1024));
        }
        broken
    }

    fn story(&self) -> String {
        let tally = &self.people.tally;
        format!(
            "Handles made and dropped: {}. Sign-ins on a living handle: {}. Refresh tokens forgiven after a lost answer: {}.",
            tally.handles.load(Relaxed),
            tally.signed_in_again.load(Relaxed),
            self.estate.idp.ledger.replayed()
        )
    }
}

/// What is held once connections have closed and tasks have ended. The first time that is the least of some seconds, for a
/// sink may be late; later, what is not back by the deadline is reported as it is.
async fn settled(first: Option<&Reading>) -> Reading {
    sleep(REST).await;
    let mut reading = Reading::take();
    for _ in 0..30 {
        if first.is_some_and(|first| reading.is_back_at(first)) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
        let next = Reading::take();
        if first.is_some() || next.is_back_at(&reading) {
            reading = next;
        }
    }
    reading
}

/// Long enough for whatever a storm leaves behind: a time-out, a `Retry-After`, a tick of the long window.
const QUIET: Duration = Duration::from_secs(4);
/// Longer than an idle connection is kept.
const REST: Duration = Duration::from_secs(1);
const SHORTEST_ROUND: Duration = Duration::from_secs(10);
