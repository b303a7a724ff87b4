//! Runs a scenario, and says which expectation of which step does not hold.

use std::{fmt::Debug, time::Duration};

use steadfast::Rejection;

use crate::{
    format::{Action, Event, Expect, Range, Scenario, Span, Step},
    process::Answered,
    words::{event, in_words, kind},
    world::{Outcome, World},
};

/// Runs the scenario with this seed for what is random.
pub(crate) fn hold(scenario: &Scenario, seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::of(&scenario.given, seed).await?;
        world.settle().await?;
        for (number, step) in scenario.steps.iter().enumerate() {
            take(&mut world, step).await.map_err(|what| format!("step {}: {what}", number + 1))?;
        }
        check_the_end(&world, scenario)
    })
}

async fn take(world: &mut World, step: &Step) -> Result<(), String> {
    let before = world.server.exchanges().len();
    let outcome = match &step.action {
        Some(action) => world.act(&step.process, action).await?,
        None => Outcome::default(),
    };
    check_outcome(&outcome, &step.expect, step.action.as_ref())?;
    if let Some(range) = &step.expect.exchanges_in_step {
        let new = world.server.exchanges().len() - before;
        same("exchanges_in_step", range, new, |range, found| range.holds(&found))?;
    }
    check_state(world, &step.process, &step.expect).await?;
    world.server.defects().pop().map_or(Ok(()), Err)
}

/// What the step itself brought.
fn check_outcome(outcome: &Outcome, expect: &Expect, action: Option<&Action>) -> Result<(), String> {
    let Expect { token, error, retry_after, takes, answer, settles_in, still_served, response, sent_with, .. } = expect;
    if let Some(Answered { takes: took, result }) = &outcome.caller {
        let named = result.as_ref().map_err(kind);
        match (token, error) {
            (Some(token), None) => same("token", token, named, |token, found| found == Ok(token))?,
            (None, Some(error)) => same("error", error, named, |error, found| found == Err(error.as_str()))?,
            _ => return Err("expect either a token or an error of a caller".into()),
        }
        if let (Some(range), Err(error)) = (retry_after, result) {
            span("retry_after", range, error.retry_after())?;
        }
        // Who is answered later than at once is told to be.
        let at_once = Range::Exactly(Span::default());
        span("takes", &Some(takes.unwrap_or(at_once)), Some(*took))?;
    } else if token.is_some() || error.is_some() || retry_after.is_some() || takes.is_some() {
        return Err(format!("nobody was answered in this step: {action:?}"));
    }
    match (&outcome.refusal, answer) {
        (Some((refusal, serving)), Some(answer)) => {
            let (found, wait) = match refusal {
                Rejection::Superseded => ("superseded", None),
                Rejection::Refreshing => ("refreshing", None),
                Rejection::Settling(wait) => ("settling", Some(*wait)),
                Rejection::PassThrough => ("pass through", None),
                Rejection::HandToHost => ("hand to host", None),
                other => return Err(format!("a rejection that scenarios have no word for: {other:?}")),
            };
            same("answer", answer, found, |answer, found| answer == found)?;
            if let Some(range) = settles_in {
                span("settles_in", &Some(*range), wait)?;
            }
            compare("still_served", still_served.as_ref(), serving)?;
        }
        (None, None) => {}
        (refusal, answer) => return Err(format!("expected the refusal to be answered {answer:?}, found {refusal:?}")),
    }
    match &outcome.response {
        Some((status, generations)) => {
            compare("response", response.as_ref(), status)?;
            compare("sent_with", sent_with.as_ref(), generations)
        }
        None if response.is_some() || sent_with.is_some() => Err("no request was sent in this step".into()),
        None => Ok(()),
    }
}

/// How things stand after it.
async fn check_state(world: &mut World, process: &str, expect: &Expect) -> Result<(), String> {
    let exchanges = world.server.exchanges();
    if let Some(range) = &expect.exchanges {
        same("exchanges", range, exchanges.len(), |range, found| range.holds(&found))?;
    }
    if let Some(range) = &expect.last_exchange_at {
        span("last_exchange_at", &Some(*range), exchanges.last().map(|exchange| exchange.at))?;
    }
    let sent: Vec<_> = exchanges.iter().map(|exchange| exchange.refresh_token.clone()).collect();
    compare("refresh_tokens_sent", expect.refresh_tokens_sent.as_ref(), &sent)?;
    let claims = exchanges.last().and_then(|exchange| exchange.claims.clone());
    compare("claims_asked_for", expect.claims_asked_for.as_ref(), &claims)?;
    compare("reuse_detected", expect.reuse_detected.as_ref(), &world.server.reuse_detected())?;
    let stored = world.store.stored().await;
    compare("stored", expect.stored.as_ref(), &stored)?;
    let process = world.process(process)?;
    if let Some(snapshot) = process.tokens.as_ref().map(|tokens| tokens.snapshot()) {
        let serving = snapshot.generation.map(|generation| generation.get());
        compare("serving", expect.serving.as_ref(), &serving)?;
        compare("status", expect.status.as_ref(), &in_words(&snapshot.status))?;
        compare("in_flight", expect.in_flight.as_ref(), &snapshot.attempt_in_flight)?;
        if let Some(range) = &expect.next_attempt {
            span("next_attempt", range, snapshot.next_attempt_in)?;
        }
    } else if expect.serving.is_some() || expect.status.is_some() || expect.in_flight.is_some() {
        return Err("no handle is left to look at".into());
    }
    if let Some(events) = &expect.events {
        let found: Vec<_> = process.take_events().iter().map(event).collect();
        let is_same = events.len() == found.len()
            && events.iter().zip(&found).all(|(expected, found)| {
                // The words of a remedy are the library's own; the scenario has its gist.
                let remedy = match (&expected.remedy, &found.remedy) {
                    (None, None) => true,
                    (Some(gist), Some(remedy)) => remedy.contains(gist),
                    (Some(_), None) | (None, Some(_)) => false,
                };
                remedy && Event { remedy: None, ..expected.clone() } == Event { remedy: None, ..found.clone() }
            });
        if !is_same {
            return Err(format!("events: expected {events:#?}, found {found:#?}"));
        }
    }
    Ok(())
}

/// What holds for every scenario.
fn check_the_end(world: &World, scenario: &Scenario) -> Result<(), String> {
    match world.unused_answers() {
        0 => {}
        unused => return Err(format!("{unused} answers of the token endpoint were not asked for")),
    }
    let is_told = scenario.steps.iter().any(|step| step.expect.reuse_detected == Some(true));
    if world.server.reuse_detected() && !is_told {
        return Err("a used refresh token was presented again".into());
    }
    Ok(())
}

fn compare<T: PartialEq + Debug>(what: &str, expected: Option<&T>, found: &T) -> Result<(), String> {
    expected.map_or(Ok(()), |expected| same(what, expected, found, |expected, found| expected == found))
}

/// In whole milliseconds, which is what timers go by.
fn span(what: &str, expected: &Option<Range<Span>>, found: Option<Duration>) -> Result<(), String> {
    let found = found.map(|found| Span(Duration::from_millis(u64::try_from(found.as_millis()).unwrap_or(u64::MAX))));
    let holds = match (expected, &found) {
        (None, None) => true,
        (Some(range), Some(found)) => range.holds(found),
        (Some(_), None) | (None, Some(_)) => false,
    };
    if holds { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn same<E: Debug + ?Sized, F: Debug + Clone>(
    what: &str,
    expected: &E,
    found: F,
    is_same: impl FnOnce(&E, F) -> bool,
) -> Result<(), String> {
    let told = found.clone();
    if is_same(expected, found) { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {told:?}")) }
}
