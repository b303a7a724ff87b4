use super::*;

#[test]
fn it_opens_when_so_many_distinct_sources_have_failed_in_a_row() {
    let mut breaker = breaker();
    for source in 1..5 {
        assert_eq!(breaker.failed(SourceId(source), None, secs(0)), Change::None);
    }
    assert_eq!(breaker.admit(SourceId(9), secs(0)), Admission::Through);
    assert_eq!(breaker.failed(SourceId(5), None, secs(0)), Change::Opened);
    assert_eq!(breaker.admit(SourceId(9), secs(1)), refused(4, 5));
}

#[test]
fn one_source_alone_never_opens_it_nor_fills_its_memory() {
    let mut breaker = breaker();
    for second in 0..10_000 {
        assert_eq!(breaker.failed(SourceId(1), Some(secs(60)), secs(second)), Change::None);
        assert_eq!(breaker.admit(SourceId(1), secs(second)), Admission::Through);
    }
    assert_eq!(breaker.failing.len(), 1);
}

#[test]
fn an_answer_to_anybody_begins_the_count_anew() {
    let mut breaker = breaker();
    for round in 0..10 {
        for source in 1..5 {
            assert_eq!(breaker.failed(SourceId(source), None, secs(round)), Change::None);
        }
        assert_eq!(breaker.answered(secs(round)), Change::None);
    }
}

#[test]
fn probes_go_one_at_a_time_at_a_cadence_that_doubles_up_to_its_cap() {
    let mut breaker = opened();
    let mut now = Duration::ZERO;
    for (nth, cadence) in (0_u64..).zip([5, 10, 20, 30, 30, 30]) {
        let prober = SourceId(100 + nth);
        assert_eq!(breaker.admit(prober, now + secs(cadence) - MILLISECOND), refused_for(MILLISECOND, secs(cadence)));
        now += secs(cadence);
        assert_eq!(breaker.admit(prober, now), Admission::Probe);
        // However many come while it is in flight.
        assert_eq!(breaker.admit(SourceId(999), now + secs(1)), refused(cadence, cadence));
        now += secs(20);
        assert_eq!(breaker.failed(prober, None, now), Change::None);
    }
}

#[test]
fn what_was_in_flight_when_it_opened_does_not_put_off_the_probe() {
    let mut breaker = opened();
    for source in 1..100 {
        assert_eq!(breaker.failed(SourceId(source), Some(secs(600)), secs(4)), Change::None);
    }
    assert_eq!(breaker.admit(SourceId(1), secs(5)), Admission::Probe);
}

#[test]
fn what_the_provider_asks_for_puts_off_the_probe() {
    let mut breaker = breaker();
    fail_five(&mut breaker, Some(secs(90)));
    assert_eq!(breaker.admit(SourceId(1), secs(89)), refused(1, 5));
    assert_eq!(breaker.admit(SourceId(1), secs(90)), Admission::Probe);
    assert_eq!(breaker.failed(SourceId(1), Some(secs(300)), secs(91)), Change::None);
    assert_eq!(breaker.next_probe(secs(91)), Some(secs(300)));
}

#[test]
fn who_has_probed_in_vain_lets_others_go_first() {
    let mut breaker = opened();
    assert_eq!(breaker.admit(SourceId(1), secs(5)), Admission::Probe);
    assert_eq!(breaker.failed(SourceId(1), None, secs(5)), Change::None);
    assert_eq!(breaker.admit(SourceId(1), secs(15)), refused(10, 10));
    assert_eq!(breaker.admit(SourceId(2), secs(15)), Admission::Probe);
    assert_eq!(breaker.failed(SourceId(2), None, secs(15)), Change::None);
    // But when nobody else comes, it goes again.
    assert_eq!(breaker.admit(SourceId(2), secs(15 + 20 + 20)), Admission::Probe);
}

#[test]
fn a_probe_that_says_nothing_is_followed_by_the_next_at_the_same_cadence() {
    let mut breaker = opened();
    assert_eq!(breaker.admit(SourceId(1), secs(5)), Admission::Probe);
    breaker.abandoned(SourceId(2), secs(6));
    assert_eq!(breaker.admit(SourceId(3), secs(6)), refused(5, 5));
    breaker.abandoned(SourceId(1), secs(6));
    assert_eq!(breaker.admit(SourceId(3), secs(11)), Admission::Probe);
}

#[test]
fn a_recovery_doubles_what_it_admits_once_as_many_have_succeeded_and_a_step_has_passed() {
    let mut breaker = opened();
    assert_eq!(breaker.answered(secs(0)), Change::Recovers);
    let mut limits = vec![breaker.limit()];
    for second in 1.. {
        // More answers than it takes, and still one step at a time.
        let mut change = Change::None;
        for _ in 0..1_000 {
            let next = breaker.answered(secs(second));
            if next != Change::None {
                change = next;
            }
        }
        limits.push(breaker.limit());
        if change == Change::Closed {
            break;
        }
    }
    assert_eq!(limits, [1, 2, 4, 8, 16, 32, 64]);
}

#[test]
fn a_recovery_that_nobody_uses_admits_no_more() {
    let mut breaker = opened();
    assert_eq!(breaker.answered(secs(0)), Change::Recovers);
    assert_eq!(breaker.answered(secs(1)), Change::None);
    assert_eq!(breaker.answered(secs(50)), Change::None);
    assert_eq!((breaker.limit(), breaker.answered(secs(50))), (2, Change::None));
    assert_eq!(breaker.limit(), 4);
}

#[test]
fn a_recovery_without_a_setback_is_over_after_sixty_steps_however_few_have_come() {
    let mut breaker = opened();
    assert_eq!(breaker.answered(secs(0)), Change::Recovers);
    assert_eq!(breaker.failed(SourceId(1), None, secs(30)), Change::None);
    assert_eq!(breaker.answered(secs(89)), Change::None);
    assert_eq!(breaker.answered(secs(90)), Change::Closed);
    assert_eq!(breaker.limit(), 64);
}

#[test]
fn a_relapse_opens_it_again_with_the_longer_cadence_and_a_full_recovery_forgets_it() {
    let mut breaker = opened();
    assert_eq!(breaker.answered(secs(0)), Change::Recovers);
    assert_eq!(breaker.failed(SourceId(1), None, secs(0)), Change::None, "its trouble may be its own");
    assert_eq!(breaker.failed(SourceId(1), None, secs(0)), Change::None);
    assert_eq!(breaker.failed(SourceId(2), None, secs(0)), Change::Opened);
    assert_eq!(breaker.next_probe(secs(0)), Some(secs(10)));

    assert_eq!(breaker.answered(secs(0)), Change::Recovers);
    let mut second = 0;
    while breaker.limit() < 64 {
        second += 1;
        for _ in 0..64 {
            let _ = breaker.answered(secs(second));
        }
    }
    fail_five(&mut breaker, None);
    assert_eq!(breaker.next_probe(secs(0)), Some(secs(5)));
}

#[test]
fn a_failure_halves_what_a_recovery_admits() {
    let mut breaker = opened();
    let _ = breaker.answered(secs(0));
    for second in 1..5 {
        for _ in 0..64 {
            let _ = breaker.answered(secs(second));
        }
    }
    assert_eq!(breaker.limit(), 16);
    assert_eq!(breaker.failed(SourceId(1), None, secs(5)), Change::None);
    assert_eq!(breaker.limit(), 8);
}

#[test]
fn an_answer_that_comes_late_ends_an_outage_too() {
    let mut breaker = opened();
    assert_eq!(breaker.answered(secs(1)), Change::Recovers);
    assert_eq!(breaker.admit(SourceId(1), secs(1)), Admission::Through);
}

fn breaker() -> Breaker {
    Breaker::new(ProviderPolicy::DEFAULT)
}

/// Opened at instant zero.
fn opened() -> Breaker {
    let mut breaker = breaker();
    fail_five(&mut breaker, None);
    breaker
}

fn fail_five(breaker: &mut Breaker, retry_after: Option<Duration>) {
    for source in 1..5 {
        assert_eq!(breaker.failed(SourceId(source), retry_after, secs(0)), Change::None);
    }
    assert_eq!(breaker.failed(SourceId(5), retry_after, secs(0)), Change::Opened);
}

fn refused(wait: u64, spread: u64) -> Admission {
    refused_for(secs(wait), secs(spread))
}

fn refused_for(wait: Duration, spread: Duration) -> Admission {
    Admission::Refused { wait, spread }
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const MILLISECOND: Duration = Duration::from_millis(1);
