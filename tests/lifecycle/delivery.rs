//! What the sink hears: in order, one event at a time, the newest wins, and nothing it does reaches a token.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use steadfast::{
    AuthStatus, BoxError, Challenge, IssueError, IssuedToken, MonitoredTokenSource, OAuthCode, RefreshPolicy,
    Rejection, StaticToken, StatusEvent, StopReason, UnauthenticatedReason, sink_fn,
};
use tokio::{sync::mpsc, time::sleep};

use crate::world::{
    Answer, DAYS, HOUR, Reaction, Upstream, World, assert_in_order, forever, hour, impatient, secs, settled,
};

#[tokio::test(start_paused = true)]
async fn the_first_event_is_the_first_success() {
    let world = World::of(|_| hour().late(secs(3)));
    sleep(secs(2)).await;
    assert_eq!(world.sink.offered().len(), 0, "pending is no news");
    sleep(secs(2)).await;
    let event = world.sink.last();
    assert_eq!((event.sequence, event.name.as_str()), (1, "workload"));
    assert_eq!((&event.from, &event.to, event.serving), (&AuthStatus::Pending, &AuthStatus::Running, true));
    assert_eq!((event.restart_helps, event.remediation), (false, None));
    assert_eq!(event.at, world.clock.wall() - secs(1));
    // An hour from when the request was sent, less the window of 15 minutes, less a tenth of it at most.
    let (began, due) = (world.clock.wall() - secs(4), event.next_attempt.unwrap());
    assert!((began + secs(4500 - 1890)..=began + secs(2700)).contains(&due), "{due:?}");
    assert_eq!(Some(due), world.tokens.snapshot().next_attempt_in.map(|wait| world.clock.wall() + wait));
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_published_again() {
    let world = World::of(|call| if call % 3 == 2 { Answer::Broken } else { hour() });
    sleep(24 * HOUR).await;
    assert!(world.upstream.calls() > 24);
    assert_eq!(world.sink.told(), [("pending", "running", true)]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_status_is_published_and_so_is_the_end_of_the_held_token() {
    let world = World::built(
        |call| if (2..10).contains(&call) { Answer::Broken } else { hour() },
        |_, _| Reaction::Take,
        |builder| builder.policy(impatient()),
    );
    sleep(3 * HOUR).await;
    assert_eq!(
        world.sink.told(),
        [
            ("pending", "running", true),
            ("running", "auth_retrying", true),
            ("auth_retrying", "auth_retrying", false),
            ("auth_retrying", "running", true),
        ]
    );
    let taken = world.sink.taken();
    assert_eq!(taken.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let retrying = &taken[1];
    let wait = retrying.next_attempt.unwrap().duration_since(retrying.at).unwrap();
    assert!((secs(540)..=secs(660)).contains(&wait), "the tick, give or take a tenth: {wait:?}");
    assert!(taken.iter().all(|event| event.remediation.is_none() && !event.restart_helps));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_withdrawn_is_news_and_so_is_the_next() {
    let world = World::of(|call| if call == 1 { hour() } else { hour().late(secs(4)) });
    sleep(secs(60)).await;
    let challenge: Challenge = r#"Bearer error="invalid_token""#.parse().unwrap();
    let generation = world.tokens.try_token().unwrap().generation();
    assert_eq!(world.tokens.reject(generation, Some(&challenge)), Rejection::Refreshing);
    sleep(secs(60)).await;
    assert_eq!(
        world.sink.told(),
        [("pending", "running", true), ("running", "running", false), ("running", "running", true)]
    );
    assert_eq!(world.sink.calls(), [secs(0), secs(60), secs(64)]);
}

#[tokio::test(start_paused = true)]
async fn the_newest_event_wins_while_the_sink_is_slow() {
    let world = World::with(|_| hour(), |call, _| if call == 1 { Reaction::Slow(secs(9)) } else { Reaction::Take });
    sleep(secs(1)).await;
    world.tokens.reauthenticate(Upstream::answering(|_| Answer::Rejected("invalid_grant"))).unwrap();
    sleep(secs(1)).await;
    assert_eq!(world.sink.calls(), [secs(0)], "one at a time");
    sleep(secs(10)).await;
    assert_eq!(world.sink.calls(), [secs(0), secs(9)]);
    assert_eq!(world.sink.told(), [("pending", "running", true), ("running", "unauthenticated", false)]);
    let sequence: Vec<_> = world.sink.taken().iter().map(|event| event.sequence).collect();
    assert_eq!(sequence, [1, 3], "the gap is the pending that nobody heard of");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_for_hours_delays_no_token() {
    let world = World::with(|_| hour(), |_, _| Reaction::Hang);
    settled().await;
    for _ in 0..24 * 60 {
        assert!(world.tokens.try_token().is_ok());
        sleep(secs(60)).await;
    }
    assert!((24..=36).contains(&world.upstream.calls()));
    // A call may take 10 s; then 1, 2, 4, … 60 s pass before the next.
    let calls = world.sink.calls();
    assert_eq!(calls[..9], [0, 11, 23, 37, 55, 81, 123, 193, 263].map(secs));
    assert_eq!(calls.windows(2).filter(|pair| pair[1] - pair[0] == secs(70)).count(), calls.len() - 7);
    assert_eq!(calls.len(), 7 + (24 * 3600 - 123) / 70);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_sink_refuses_is_offered_again_until_newer_news_comes() {
    let world = World::with(|_| forever(), |call, _| if call < 10 { Reaction::Refuse("no") } else { Reaction::Take });
    sleep(secs(200)).await;
    assert_eq!(world.sink.calls(), [0, 1, 3, 7, 15, 31, 63, 123, 183].map(secs));
    assert!(world.sink.offered().iter().all(|event| event.sequence == 1));
    world.tokens.reauthenticate(Upstream::answering(|_| Answer::Never)).unwrap();
    sleep(secs(60)).await;
    assert_eq!(world.sink.calls()[9..], [secs(200)], "at once, and then never again");
    let event = world.sink.last();
    assert_eq!((event.sequence, event.from, event.to), (2, AuthStatus::Pending, AuthStatus::Pending));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_makes_the_sink_panic_is_offered_again() {
    let world = World::with(|_| forever(), |call, _| if call < 3 { Reaction::Panic } else { Reaction::Take });
    sleep(DAYS).await;
    assert_eq!(world.sink.calls(), [0, 1, 3].map(secs));
    assert_eq!(world.sink.told(), [("pending", "running", true)]);
    assert_eq!(world.tokens.status(), AuthStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_sink_call_ends_before_the_next_begins_even_if_it_was_cut_off() {
    let world = World::with(|_| hour(), |call, _| if call == 1 { Reaction::Hang } else { Reaction::Take });
    sleep(secs(1)).await;
    world.tokens.reauthenticate(Upstream::answering(|_| hour())).unwrap();
    sleep(HOUR).await;
    assert_eq!(world.sink.calls(), [secs(0), secs(10)], "superseded: no waiting");
    assert_eq!(world.sink.told(), [("pending", "running", true)]);
    assert_eq!(world.sink.last().sequence, 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_event_is_offered_three_times_and_then_given_up() {
    for reaction in [Reaction::Refuse("no"), Reaction::Panic] {
        let world = World::with(
            |_| hour(),
            move |_, event| if event.to == AuthStatus::Running { Reaction::Take } else { reaction.clone() },
        );
        settled().await;
        world.tokens.shutdown().await;
        assert_eq!(world.age(), secs(3));
        sleep(DAYS).await;
        assert_eq!(world.sink.calls(), [0, 0, 1, 3].map(secs));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_waiting_for_an_event_that_is_refused_over_and_over() {
    let world = World::with(
        |_| hour(),
        |_, event| if event.to == AuthStatus::Running { Reaction::Refuse("no") } else { Reaction::Take },
    );
    sleep(secs(40)).await;
    world.tokens.shutdown().await;
    assert_eq!(world.age(), secs(40), "at once");
    assert_eq!(world.sink.told(), [("pending", "stopped", false)]);
    let (last, before) = (world.sink.last(), world.sink.offered()[0].sequence);
    assert_eq!((before, last.sequence), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_recovers_hears_the_last_status_and_the_order_holds() {
    // Down for the first hours; a busy life goes on meanwhile.
    let world = World::built(
        |call| if (call / 4) % 2 == 0 { hour() } else { Answer::Broken },
        |call, _| match call % 5 {
            0 => Reaction::Panic,
            1 => Reaction::Hang,
            2 => Reaction::Refuse("no"),
            3 => Reaction::Slow(secs(9)),
            _ => Reaction::Take,
        },
        |builder| builder.policy(impatient()),
    );
    for _ in 0..48 {
        sleep(HOUR).await;
        assert_in_order(&world.sink.taken());
    }
    world.tokens.reauthenticate(Upstream::answering(|_| forever())).unwrap();
    sleep(HOUR).await;
    assert_eq!((world.sink.last().to, world.sink.last().serving), (AuthStatus::Running, true));
    assert!(world.sink.taken().len() > 10);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_verdict_comes_with_advice() {
    for (code, words) in [
        ("invalid_grant", "sign in again"),
        ("refresh_token_reused", "sign in again"),
        ("invalid_client", "delete it and register again (RFC 7591)"),
        ("unauthorized_client", "delete it and register again (RFC 7591)"),
    ] {
        let world = World::of(move |_| Answer::Rejected(code));
        settled().await;
        let event = world.sink.last();
        let reason = UnauthenticatedReason::Rejected(OAuthCode::new(code).unwrap());
        assert_eq!(event.to, AuthStatus::Unauthenticated(reason));
        assert!(event.remediation.as_deref().unwrap().contains(words), "{event:?}");
        assert!(event.reason.contains(code), "{event:?}");
        assert!(!event.restart_helps && event.next_attempt.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn advice_about_a_registration_names_client_and_issuer_and_no_foreign_text() {
    for code in ["invalid_client", "unauthorized_client"] {
        let hostile = format!("id\u{1b}[31m\r\n\u{202e}{}", "x".repeat(10_000));
        let source = move || {
            let error = IssueError::rejected(OAuthCode::new(code).unwrap(), "\u{7}the server says s3cret")
                .with_client(&hostile, "https://idp.example");
            async { Err::<IssuedToken, BoxError>(error.into()) }
        };
        let (sender, mut events) = mpsc::channel(8);
        let tokens = MonitoredTokenSource::builder(source).sink(sender).spawn().unwrap();
        let event = events.recv().await.unwrap();
        let advice = event.remediation.unwrap();
        assert!(advice.contains("client id") && advice.contains("at https://idp.example"), "{advice}");
        for text in [advice, event.reason] {
            assert!(text.chars().count() < 512, "bounded");
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}') && !text.contains("s3cret"), "{text}");
        }
        drop(tokens);
    }
}

#[tokio::test(start_paused = true)]
async fn advice_is_given_once_in_a_run_and_again_in_the_next() {
    let world =
        World::of(|call| if call == 1 { Answer::Token(Some(secs(100))) } else { Answer::Rejected("invalid_grant") });
    sleep(HOUR).await;
    assert_eq!(
        world.sink.told(),
        [
            ("pending", "running", true),
            ("running", "unauthenticated", true),
            ("unauthenticated", "unauthenticated", false),
        ]
    );
    let advised =
        |world: &World| world.sink.taken().iter().map(|event| event.remediation.is_some()).collect::<Vec<_>>();
    assert_eq!(advised(&world), [false, true, false]);
    world.tokens.retry_now();
    sleep(HOUR).await;
    assert_eq!(advised(&world)[3..], [false, true], "pending, and the same verdict in a new run");
}

#[tokio::test(start_paused = true)]
async fn the_ceiling_is_no_permanent_verdict_but_one_may_follow() {
    let nudged = Arc::new(Mutex::new(false));
    let (seen, told) = (Arc::clone(&nudged), Arc::clone(&nudged));
    let world = World::built(
        move |_| if *seen.lock().unwrap() { Answer::Rejected("invalid_grant") } else { Answer::Broken },
        |_, _| Reaction::Take,
        |builder| builder.policy(impatient()),
    );
    sleep(25 * HOUR).await;
    let event = world.sink.last();
    assert!(matches!(event.to, AuthStatus::Unauthenticated(UnauthenticatedReason::CeilingExceeded(_))));
    assert_eq!(event.remediation, None);
    assert!(event.reason.contains("1day"), "{}", event.reason);
    *told.lock().unwrap() = true;
    world.tokens.retry_now();
    sleep(HOUR).await;
    let event = world.sink.last();
    assert!(matches!(event.to, AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(_))));
    assert_eq!(event.remediation.as_deref(), Some("sign in again"));
}

#[tokio::test(start_paused = true)]
async fn advice_that_nobody_has_heard_goes_along_with_the_event_that_takes_its_place() {
    // The token's refresh is rejected after 2 s, and its end is news of its own at 3.6 s.
    let answer = |call| if call == 1 { Answer::Token(Some(secs(4))) } else { Answer::Rejected("invalid_grant") };
    let waiting = |call, _: &StatusEvent| if call == 1 { Reaction::Slow(secs(9)) } else { Reaction::Take };
    let refusing = |call, _: &StatusEvent| if call == 2 { Reaction::Slow(secs(9)) } else { Reaction::Take };
    let failing = |call, event: &StatusEvent| match (call, event.serving) {
        (1, _) | (_, false) => Reaction::Take,
        (_, true) => Reaction::Refuse("no"),
    };
    let queued = World::with(answer, waiting);
    let taken = World::with(answer, refusing);
    let in_hand = World::with(answer, failing);
    sleep(HOUR).await;
    let advised = |world: &World| {
        let taken = world.sink.taken();
        taken.iter().map(|event| (event.sequence, event.serving, event.remediation.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(advised(&queued), [(1, true, false), (3, false, true)]);
    assert_eq!(advised(&taken), [(1, true, false), (2, true, true), (3, false, false)], "it was heard");
    assert_eq!(advised(&in_hand), [(1, true, false), (3, false, true)]);
}

#[tokio::test(start_paused = true)]
async fn next_attempt_is_told_by_the_wall_clock_wherever_one_is_scheduled() {
    let world = World::built(
        |call| match call {
            1 => forever(),
            2 => Answer::Broken,
            _ => Answer::Rejected("invalid_grant"),
        },
        |_, _| Reaction::Take,
        |builder| builder.policy(impatient()),
    );
    sleep(secs(5)).await;
    world.clock.step_forward(24 * HOUR);
    sleep(secs(60)).await;
    assert_eq!(world.sink.last().next_attempt, None, "a token without an end needs no refresh");
    world.tokens.retry_now();
    sleep(secs(1)).await;
    let event = world.sink.last();
    assert_eq!(event.to.name(), "auth_retrying");
    let next = event.next_attempt.unwrap();
    assert_eq!(next, world.clock.wall() + world.tokens.snapshot().next_attempt_in.unwrap());
    let next = next.duration_since(event.at).unwrap();
    assert!((secs(540)..=secs(660)).contains(&next), "{next:?}");
    sleep(secs(700)).await;
    assert_eq!((world.sink.last().to.name(), world.sink.last().next_attempt), ("unauthenticated", None));
}

#[tokio::test(start_paused = true)]
async fn closures_functions_and_channels_are_sinks() {
    type Heard = Arc<Mutex<Vec<AuthStatus>>>;
    let (heard, also): (Heard, Heard) = Default::default();
    let (inside, also_inside) = (Arc::clone(&heard), Arc::clone(&also));
    let source = || async { Ok(IssuedToken::bearer("s3cret")) };
    let closure = MonitoredTokenSource::builder(source)
        .sink(move |event: StatusEvent| {
            inside.lock().unwrap().push(event.to);
            async { Ok(()) }
        })
        .spawn()
        .unwrap();
    let function = MonitoredTokenSource::builder(source)
        .sink(sink_fn(move |event| {
            also_inside.lock().unwrap().push(event.to);
            async { Ok(()) }
        }))
        .spawn()
        .unwrap();
    let (sender, mut events) = mpsc::channel(8);
    let channel = MonitoredTokenSource::builder(source).sink(sender).spawn().unwrap();
    for tokens in [&closure, &function, &channel] {
        tokens.token().await.unwrap();
        settled().await;
        tokens.shutdown().await;
    }
    let whole = [AuthStatus::Running, AuthStatus::Stopped(StopReason::ShutDown)];
    assert_eq!((&heard.lock().unwrap()[..], &also.lock().unwrap()[..]), (&whole[..], &whole[..]));
    drop((closure, function, channel));
    for status in whole {
        assert_eq!(events.recv().await.unwrap().to, status);
    }
    assert!(events.recv().await.is_none(), "the sender is dropped with the monitor");
}

#[tokio::test(start_paused = true)]
async fn of_a_pair_of_sinks_both_are_told_and_what_either_refuses_is_offered_to_both_again() {
    let (left, mut heard_left) = mpsc::channel(8);
    let (right, mut heard_right) = mpsc::channel(8);
    let refused = Arc::new(Mutex::new(false));
    let left = sink_fn(move |event: StatusEvent| {
        let (left, first) = (left.clone(), !std::mem::replace(&mut *refused.lock().unwrap(), true));
        async move {
            left.send(event).await?;
            if first { Err("once".into()) } else { Ok(()) }
        }
    });
    let boxed: Box<dyn steadfast::StatusSink> = Box::new(left);
    let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).sink((boxed, right)).spawn().unwrap();
    tokens.token().await.unwrap();
    sleep(secs(2)).await;
    for heard in [&mut heard_left, &mut heard_right] {
        assert_eq!(heard.recv().await, heard.recv().await, "the same event twice");
        assert!(heard.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_reads_hurts_nobody() {
    let (full, mut events) = mpsc::channel(1);
    let (gone, receiver) = mpsc::channel(1);
    drop(receiver);
    for (sender, longest) in [(full, secs(25)), (gone, Duration::ZERO)] {
        let tokens = MonitoredTokenSource::builder(Upstream::answering(|_| hour())).sink(sender).spawn().unwrap();
        tokens.token().await.unwrap();
        for _ in 0..3 {
            sleep(HOUR).await;
            tokens.reauthenticate(Upstream::answering(|_| hour())).unwrap();
            tokens.token().await.unwrap();
        }
        let before = instant();
        tokens.shutdown().await;
        assert_eq!(instant() - before, longest);
    }
    assert_eq!(events.recv().await.unwrap().sequence, 1);

    fn instant() -> tokio::time::Instant {
        #[expect(clippy::disallowed_methods, reason = "tokio's clock, which is paused here")]
        tokio::time::Instant::now()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_tells_the_time_at_which_it_happened() {
    let world = World::with(|_| hour(), |call, _| if call < 4 { Reaction::Refuse("no") } else { Reaction::Take });
    sleep(secs(30)).await;
    let (event, calls) = (world.sink.last(), world.sink.calls());
    assert_eq!(calls, [0, 1, 3, 7].map(secs));
    assert_eq!(event.at, world.clock.wall() - secs(30), "not the time at which it was heard");
    assert!(event.at > SystemTime::UNIX_EPOCH);
    let policy = RefreshPolicy::DEFAULT;
    assert!(event.next_attempt.unwrap() > event.at + policy.clock_check);
}
