//! The transaction when trouble strikes at one of its steps, and when troubles come two at a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails the test"
)]
#![allow(clippy::disallowed_methods, reason = "tokens that others have stored were issued just now")]

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use steadfast::{
    BoxError, IssueError, IssueReason, IssueRequest, IssuedToken, TokenSource, Verdict,
    oauth::Exchanged,
    rotation::{Grant, SharedLogin},
    store::{Content, GrantStore, MemoryStore, StoreError},
};
use tokio::time::{sleep, timeout};

#[path = "support/shelf.rs"]
mod shelf;

use shelf::{Shelf, Step, Trouble};

/// What the process knows when trouble strikes, the step at which it does, and for each trouble what its next attempt brings.
///
/// - `token`: a token whose pair is saved; `unsaved`: a token whose pair is not, and which says so; `theirs`: the token that
///   another process has put into the store;
/// - `busy`, `down`, `corrupt`, `gone`, `older`: a failure that may pass, with that cause; `unknown`: the answer did not come;
/// - `replaced`, `rejected`: the end of the run;
/// - `.`: does not go together.
///
/// `nothing` is a process that has just started. `held` has refreshed before. `unsaved` has a pair that it could not save, and
/// holds the lease; `loose` has one, and no lease any more. `refused` is `held`, and the server answers `invalid_grant`.
/// `steady` is `held`, with a server that does not rotate.
const TABLE: &str = "
                   ok       busy     lost     stale    down     hangs    late     foreign  corrupt  gone     flushed  dead     older
nothing  lease     token    busy     token    theirs   down     down     .        replaced corrupt  rejected rejected rejected rejected
nothing  load      token    busy     busy     theirs   down     down     .        replaced corrupt  rejected busy     rejected rejected
nothing  renew     token    busy     busy     busy     down     down     .        unsaved  unsaved  unsaved  busy     token    unsaved
nothing  exchange  token    unsaved  token    theirs   unknown  unknown  .        unsaved  unsaved  unsaved  unsaved  token    unsaved
nothing  commit    token    unsaved  token    theirs   unsaved  unsaved  unsaved  unsaved  unsaved  unsaved  unsaved  token    unsaved
nothing  release   token    token    token    token    token    token    .        token    token    token    token    token    token
held     lease     token    busy     token    theirs   down     down     .        replaced corrupt  gone     gone     rejected older
held     load      token    busy     busy     theirs   down     down     .        replaced corrupt  gone     gone     rejected older
held     renew     token    busy     busy     busy     down     down     .        unsaved  unsaved  unsaved  busy     token    token
held     exchange  token    unsaved  token    theirs   unknown  unknown  .        unsaved  unsaved  unsaved  unsaved  token    token
held     commit    token    unsaved  token    theirs   unsaved  unsaved  unsaved  unsaved  unsaved  unsaved  unsaved  token    token
held     release   token    token    token    token    token    token    .        token    token    token    token    token    token
unsaved  lease     token    token    token    token    token    token    .        token    token    token    token    token    token
unsaved  load      token    busy     busy     theirs   down     down     .        replaced corrupt  gone     gone     rejected older
unsaved  renew     token    busy     token    theirs   down     down     .        replaced corrupt  gone     gone     token    older
unsaved  exchange  token    unsaved  token    theirs   unknown  unknown  .        unsaved  unsaved  unsaved  unsaved  token    token
unsaved  commit    token    busy     token    theirs   unsaved  unsaved  unsaved  replaced corrupt  gone     gone     token    older
unsaved  release   token    token    token    token    token    token    .        token    token    token    token    token    token
loose    lease     token    busy     token    theirs   down     down     .        replaced corrupt  gone     gone     token    older
loose    load      token    busy     token    theirs   down     down     .        replaced corrupt  gone     gone     token    older
loose    renew     token    busy     token    theirs   down     down     .        replaced corrupt  gone     gone     token    older
loose    exchange  token    unsaved  token    theirs   unknown  unknown  .        unsaved  unsaved  unsaved  unsaved  token    token
loose    commit    token    busy     token    theirs   unsaved  unsaved  unsaved  replaced corrupt  gone     gone     token    older
loose    release   token    busy     token    theirs   token    token    .        replaced corrupt  gone     gone     token    older
refused  lease     rejected busy     rejected theirs   down     down     .        replaced corrupt  gone     gone     rejected older
refused  load      rejected busy     busy     theirs   down     down     .        replaced corrupt  gone     gone     rejected older
refused  renew     rejected busy     busy     busy     down     down     .        replaced corrupt  gone     busy     rejected older
refused  exchange  rejected busy     rejected theirs   unknown  unknown  .        replaced corrupt  gone     gone     rejected older
refused  commit    rejected busy     rejected theirs   rejected rejected rejected replaced rejected gone     gone     rejected rejected
refused  release   rejected rejected rejected rejected rejected rejected .        rejected rejected rejected rejected rejected rejected
steady   lease     token    busy     token    theirs   down     down     .        replaced corrupt  gone     gone     rejected token
steady   load      token    busy     busy     theirs   down     down     .        replaced corrupt  gone     gone     rejected token
steady   renew     token    busy     busy     busy     down     down     .        unsaved  unsaved  unsaved  busy     token    token
steady   exchange  token    unsaved  token    theirs   unknown  unknown  .        unsaved  unsaved  unsaved  unsaved  token    token
steady   commit    token    unsaved  token    theirs   unsaved  unsaved  unsaved  unsaved  unsaved  unsaved  unsaved  token    token
steady   release   token    token    token    token    token    token    .        token    token    token    token    token    token
";

#[tokio::test(start_paused = true)]
async fn whatever_strikes_wherever_no_pair_is_lost_nothing_is_overwritten_and_the_truth_is_told() {
    let mut rows = TABLE.trim_matches('\n').lines();
    let troubles: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
    let mut wrong = Vec::new();
    for row in rows {
        let words: Vec<&str> = row.split_whitespace().collect();
        let mut shown = format!("{:<8} {:<9}", words[0], words[1]);
        for (trouble, expected) in troubles.iter().zip(&words[2..]) {
            let cell = format!("{} {} {trouble}", words[0], words[1]);
            let (word, complaints) = if *expected == "." {
                (".", Vec::new())
            } else {
                play(words[0], step(words[1]), self::trouble(trouble)).await
            };
            if word != *expected {
                wrong.push(format!("{cell}: {word} where {expected} was expected"));
            }
            wrong.extend(complaints.into_iter().map(|complaint| format!("{cell}: {complaint}")));
            shown.push_str(&format!(" {word:<8}"));
        }
        println!("{}", shown.trim_end());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One cell: what the attempt brings, and what is wrong with where it leaves the login.
async fn play(held: &str, step: Step, trouble: Option<Trouble>) -> (&'static str, Vec<String>) {
    let shelf = if held == "steady" { Shelf::new().steady() } else { Shelf::new() };
    let login = login(&shelf);
    match held {
        "nothing" => {}
        "held" | "refused" | "steady" => assert_eq!(word(&attempt(&login).await), "token"),
        "unsaved" | "loose" => {
            shelf.strike(Step::Commit, Trouble::Down);
            assert_eq!(word(&attempt(&login).await), "unsaved");
            shelf.mend();
            if held == "loose" {
                shelf.now(Trouble::Lost);
            }
        }
        other => panic!("{other}"),
    }
    if held == "refused" {
        shelf.revoke();
    }
    let newest_before = shelf.newest();
    if let Some(trouble) = trouble {
        shelf.strike(step, trouble);
    }
    let word = word(&attempt(&login).await);

    let mut complaints = Vec::new();
    // The newest pair is stored, or has given way to a login of somebody's, or is said to be unsaved.
    let is_safe = |shelf: &Shelf| {
        let stored = shelf.stored();
        stored == shelf.newest() || shelf.record().is_some_and(|record| is_theirs(&record)) || stored == "dead"
    };
    let was_exchanged = shelf.newest() != newest_before;
    // What strikes at the release finds the pair saved.
    if was_exchanged && word != "unsaved" && step != Step::Release && !is_safe(&shelf) {
        complaints.push(format!("{} is stored, {} is the newest, and nothing is said", shelf.stored(), shelf.newest()));
    }

    // The trouble passes, and the process has time to put things right.
    sleep(Duration::from_secs(10)).await;
    shelf.mend();
    sleep(Duration::from_secs(60)).await;
    let has_received = shelf.newest() != "rt-1";
    if held != "refused" && has_received && shelf.account().as_deref() != Some("bob") && !is_safe(&shelf) {
        // What the store has lost comes back when the host says so, and not before.
        complaints.extend(shelf.sins());
        shelf.pardon(true);
        let restored = login.restore().await;
        shelf.pardon(false);
        if restored.is_err() || shelf.stored() != shelf.newest() {
            complaints.push(format!("{} is lost ({restored:?}, {} is stored)", shelf.newest(), shelf.stored()));
        }
    }
    let later = self::word(&attempt(&login).await);
    let is_foreign = shelf.account().as_deref() == Some("bob");
    let is_good = match later {
        "token" | "theirs" => true,
        "replaced" => is_foreign,
        // Also where the store was emptied before a process that knew nothing looked: its own refresh token is an old one.
        "rejected" => held == "refused" || !has_received || shelf.stored() == "dead",
        "gone" | "older" => held == "refused" || !has_received,
        _ => false,
    };
    if !is_good {
        complaints.push(format!("{later} after all was mended"));
    }
    if is_foreign && later != "replaced" {
        complaints.push(format!("{later}, with another account's login in the store"));
    }
    sleep(Duration::from_secs(60)).await;
    if shelf.is_leased() {
        complaints.push("the lease is kept for nothing".to_owned());
    }
    complaints.extend(shelf.sins());
    (word, complaints)
}

/// What the table cannot show: several troubles in one attempt, one attempt after the other, and a host that says what to do
/// where it is asked.
#[tokio::test(start_paused = true)]
async fn in_any_row_of_troubles_no_pair_is_lost_nothing_is_overwritten_and_no_token_is_sent_again() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("STEADFAST_FIRST_SEED").unwrap_or(0);
    for seed in first..first + number("STEADFAST_SEEDS").unwrap_or(2000) {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_steady = seed % 4 == 0;
        let shelf = if is_steady { Shelf::new().steady() } else { Shelf::new() };
        let login = login(&shelf);
        // Or it could not know what came before.
        assert_eq!(word(&attempt(&login).await), "token");
        let mut story = Vec::new();
        for _ in 0..6 {
            for step in STEPS {
                if random.f32() < 0.2 {
                    let trouble = TROUBLES[random.usize(..TROUBLES.len())];
                    shelf.strike(step, trouble);
                    story.push(format!("{step:?}: {trouble:?}"));
                }
            }
            if is_steady && random.f32() < 0.2 {
                shelf.refuse_once();
                story.push("refused once".to_owned());
            }
            if is_steady && random.f32() < 0.2 {
                shelf.strike(Step::Exchange, Trouble::Renewed);
                story.push("renewed by another".to_owned());
            }
            let word = word(&attempt(&login).await);
            story.push(word.to_owned());
            sleep(Duration::from_millis(random.u64(0..20_000))).await;
            if random.bool() {
                shelf.mend();
                story.push("mended".to_owned());
            }
            if matches!(word, "gone" | "older") && random.bool() {
                shelf.pardon(true);
                story.push(format!("restored: {:?}", login.restore().await));
                shelf.pardon(false);
            }
        }
        shelf.mend();
        sleep(Duration::from_secs(60)).await;
        let mut sins = shelf.sins();
        let is_settled = |shelf: &Shelf| {
            let is_others =
                shelf.account().as_deref() == Some("bob") || shelf.record().is_some_and(|it| is_theirs(&it));
            let is_kept = shelf.stored() == shelf.newest() || is_steady && shelf.is_good();
            is_others || is_kept || shelf.stored() == "dead"
        };
        if !is_settled(&shelf) {
            let restored = login.restore().await;
            // What was condemned once, by another process perhaps, is not restored.
            let was_condemned = shelf.has_died() && restored.is_err();
            if !was_condemned && !is_settled(&shelf) {
                sins.push(format!("{} is lost: {restored:?}, {} is stored", shelf.newest(), shelf.stored()));
            }
        }
        assert!(sins.is_empty(), "seed {seed}: {sins:?}\n{}", story.join("\n"));
    }
}

const STEPS: [Step; 6] = [Step::Lease, Step::Load, Step::Renew, Step::Exchange, Step::Commit, Step::Release];
const TROUBLES: [Trouble; 12] = [
    Trouble::Busy,
    Trouble::Lost,
    Trouble::Stale,
    Trouble::Down,
    Trouble::Hangs,
    Trouble::Late,
    Trouble::Foreign,
    Trouble::Corrupt,
    Trouble::Gone,
    Trouble::Flushed,
    Trouble::Dead,
    Trouble::Older,
];

// Two at a time, in words.

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_fails_leaves_the_unsaved_pair_and_its_lease() {
    let (shelf, login) = unsaved_by(Shelf::anew).await;
    shelf.strike(Step::Load, Trouble::Down);
    assert!(matches!(login.sign_in().await, Err(StoreError::Unavailable(_))));
    shelf.mend();
    shelf.strike(Step::Commit, Trouble::Down);
    assert!(matches!(login.sign_in().await, Err(StoreError::Unavailable(_))));
    assert!(shelf.is_leased());
    let other = SharedLogin::builder(shelf.clone(), shelf.clone()).account("alice").build();
    assert!(issue_error(attempt(&other).await).is_busy(), "nobody spends the old one");
    shelf.mend();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(shelf.stored(), shelf.newest());
    assert!(!shelf.is_leased());
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_nobody_waits_for_leaves_the_unsaved_pair_and_its_lease() {
    for step in [Step::Load, Step::Commit] {
        let (shelf, login) = unsaved_by(Shelf::anew).await;
        shelf.strike(step, Trouble::Hangs);
        assert!(timeout(Duration::from_secs(1), login.sign_in()).await.is_err());
        assert!(shelf.is_leased(), "{step:?}");
        sleep(Duration::from_secs(30)).await;
        assert!(shelf.is_leased() || shelf.stored() == shelf.newest(), "{step:?}");
        shelf.mend();
        sleep(Duration::from_secs(30)).await;
        assert_eq!(shelf.stored(), shelf.newest(), "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_counts_more_than_an_unsaved_pair() {
    let (shelf, login) = unsaved_by(Shelf::anew).await;
    login.sign_in().await.unwrap();
    assert_eq!(shelf.stored(), "rt-anew");
    assert!(!shelf.is_leased());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shelf.stored(), "rt-anew", "the pair of before does not come back");
    assert_eq!(word(&attempt(&login).await), "token");
    assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_with_a_used_up_token_is_refused_and_nothing_is_sent_again() {
    for trouble in [None, Some(Trouble::Gone), Some(Trouble::Older)] {
        let shelf = Shelf::empty();
        let login = login(&shelf);
        for _ in 0..2 {
            assert_eq!(word(&attempt(&login).await), "token");
        }
        if let Some(trouble) = trouble {
            shelf.now(trouble);
        }
        let refused = login.sign_in().await.unwrap_err();
        assert!(refused.to_string().contains("used up"), "{refused}");
        let _ = attempt(&login).await;
        let _ = login.restore().await;
        assert_eq!(word(&attempt(&login).await), "token", "{trouble:?}");
        assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_just_started_sees_in_the_store_that_its_token_is_used_up() {
    let shelf = Shelf::new();
    let stored = shelf.stored();
    let refused = login(&shelf).sign_in().await.unwrap_err();
    assert!(refused.to_string().contains("used up"), "{refused}");
    assert_eq!(shelf.stored(), stored);
    SharedLogin::builder(shelf.anew(), shelf.clone()).account("alice").build().sign_in().await.unwrap();
    assert_eq!(shelf.stored(), "rt-anew");
}

#[tokio::test(start_paused = true)]
async fn a_used_up_token_is_not_sent_though_the_login_that_came_after_it_is_dead() {
    let shelf = Shelf::empty();
    let login = login(&shelf);
    shelf.strike(Step::Commit, Trouble::Hangs);
    assert!(timeout(Duration::from_secs(1), attempt(&login)).await.is_err(), "nobody has seen a token");
    shelf.mend();
    sleep(Duration::from_secs(60)).await;
    shelf.now(Trouble::Stale);
    shelf.now(Trouble::Dead);
    assert_eq!(word(&attempt(&login).await), "rejected");
    assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_login_is_not_restored_and_the_words_say_so() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.revoke();
    shelf.strike(Step::Commit, Trouble::Down);
    assert_eq!(word(&attempt(&login).await), "rejected");
    let refused = login.restore().await.unwrap_err();
    assert!(refused.to_string().contains("rejected"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn restoring_saves_an_unsaved_pair() {
    let (shelf, login) = unsaved().await;
    login.restore().await.unwrap();
    assert_eq!(shelf.stored(), shelf.newest());
    assert!(!shelf.is_leased());
    assert_eq!(word(&attempt(&login).await), "token");
    assert!(shelf.sins().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_login_removed_in_mid_exchange_is_kept_in_memory_until_the_host_says_what_it_meant() {
    for trouble in [Trouble::Gone, Trouble::Flushed] {
        let shelf = Shelf::new();
        let login = login(&shelf);
        shelf.strike(Step::Exchange, trouble);
        let token = attempt(&login).await.unwrap();
        assert!(token.is_unsaved(), "served, and told of");
        assert!(!shelf.is_leased(), "whoever signs in again is not held up");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(shelf.stored(), "nothing", "it may have been a sign-out");
        let error = issue_error(attempt(&login).await);
        assert_eq!((error.rule(), error.verdict()), ("store-login-gone", &Verdict::Transient));
        assert_eq!(shelf.sent().len(), 1);
        login.restore().await.unwrap();
        assert_eq!(shelf.stored(), shelf.newest());
        assert_eq!(word(&attempt(&login).await), "token");
        assert!(shelf.sins().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_comes_back_as_it_was_is_replaced_by_the_pair_in_memory() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    let before = shelf.record().unwrap();
    shelf.strike(Step::Exchange, Trouble::Gone);
    assert_eq!(word(&attempt(&login).await), "unsaved");
    // A file system that was not mounted for a moment.
    shelf.put_back(before);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shelf.stored(), shelf.newest());
    assert_eq!(word(&attempt(&login).await), "token");
    assert!(shelf.sins().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_comes_back_from_before_what_the_process_has_seen_is_left_to_the_host() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    shelf.strike(Step::Exchange, Trouble::Gone);
    assert_eq!(word(&attempt(&login).await), "unsaved");
    shelf.now(Trouble::Older);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shelf.stored(), "rt-first");
    assert_eq!(word(&attempt(&login).await), "older");
    login.restore().await.unwrap();
    assert_eq!(shelf.stored(), shelf.newest());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_after_the_lease_was_lost_is_no_verdict() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.revoke();
    // Another process has the lease, has rotated, and is about to commit.
    shelf.strike(Step::Exchange, Trouble::Busy);
    let error = issue_error(attempt(&login).await);
    assert!(error.is_busy(), "{error:?}");
    shelf.mend();
    shelf.now(Trouble::Stale);
    assert_eq!(word(&attempt(&login).await), "theirs");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_no_verdict_either_if_the_store_then_fails_while_another_has_the_lease() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.revoke();
    shelf.strike(Step::Exchange, Trouble::Busy);
    shelf.strike(Step::Commit, Trouble::Down);
    assert_eq!(word(&attempt(&login).await), "down");
    shelf.mend();
    shelf.now(Trouble::Stale);
    assert_eq!(word(&attempt(&login).await), "theirs");
}

#[tokio::test(start_paused = true)]
async fn an_unsaved_tombstone_gives_way_to_a_later_success_with_the_same_token() {
    let shelf = Shelf::new().steady();
    let (one, other) = (login(&shelf), login(&shelf));
    for login in [&other, &one] {
        assert_eq!(word(&attempt(login).await), "token");
    }
    shelf.refuse_once();
    shelf.strike(Step::Commit, Trouble::Down);
    assert_eq!(word(&attempt(&one).await), "rejected");
    shelf.mend();
    assert_eq!(word(&attempt(&other).await), "token");
    sleep(Duration::from_secs(60)).await;
    for login in [&one, &other] {
        assert_eq!(word(&attempt(login).await), "token");
    }
    assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_no_verdict_on_the_same_token_after_another_has_had_success_with_it() {
    let shelf = Shelf::new().steady();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.refuse_once();
    shelf.strike(Step::Exchange, Trouble::Renewed);
    assert_eq!(word(&attempt(&login).await), "busy", "another process is at work");
    assert_eq!(word(&attempt(&login).await), "token");
    assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_login_is_signed_in_again_with_its_own_token_where_the_server_thinks_better_of_it() {
    let shelf = Shelf::empty().steady();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.refuse_once();
    assert_eq!(word(&attempt(&login).await), "rejected");
    assert_eq!(shelf.stored(), "dead");
    login.sign_in().await.unwrap();
    assert_eq!(word(&attempt(&login).await), "token");
    assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_down_also_while_the_background_asks_it() {
    let (shelf, login) = unsaved().await;
    for step in STEPS {
        if step != Step::Exchange {
            shelf.strike(step, Trouble::Hangs);
        }
    }
    for _ in 0..20 {
        sleep(Duration::from_millis(1500)).await;
        assert_eq!(word(&attempt(&login).await), "down");
    }
    shelf.mend();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shelf.stored(), shelf.newest());
    assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_that_comes_too_late_gives_way_to_what_was_saved_meanwhile() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.revoke();
    shelf.strike(Step::Commit, Trouble::Stale);
    assert_eq!(word(&attempt(&login).await), "theirs");
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_our_own_that_lands_late_is_known_again() {
    for exchanges in [1, 2, 3] {
        let shelf = Shelf::new();
        let login = login(&shelf);
        shelf.strike(Step::Commit, Trouble::Late);
        assert_eq!(word(&attempt(&login).await), "unsaved");
        shelf.mend();
        shelf.strike(Step::Commit, Trouble::Down);
        for _ in 1..exchanges {
            assert_eq!(word(&attempt(&login).await), "unsaved");
        }
        sleep(Duration::from_secs(10)).await;
        assert_eq!(shelf.stored(), "rt-2", "it has landed");
        shelf.mend();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(shelf.stored(), shelf.newest(), "after {exchanges} exchanges");
        assert_eq!(word(&attempt(&login).await), "token");
        assert!(shelf.sins().is_empty(), "{:?}", shelf.sins());
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_state_of_the_login_is_not_sent_but_told_of_and_restored() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.now(Trouble::Older);
    for _ in 0..3 {
        let error = issue_error(attempt(&login).await);
        assert_eq!((error.rule(), error.verdict()), ("store-rolled-back", &Verdict::Transient));
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("older"));
    }
    assert_eq!(shelf.sent().len(), 1);
    login.restore().await.unwrap();
    assert_eq!(word(&attempt(&login).await), "token");
    assert!(shelf.sins().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_state_from_before_the_last_sign_in_is_no_newer_sign_in() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    assert_eq!(word(&attempt(&login).await), "token");
    let before = shelf.record().unwrap();
    shelf.now(Trouble::Stale);
    assert_eq!(word(&attempt(&login).await), "theirs");
    shelf.put_back(before);
    assert_eq!(word(&attempt(&login).await), "older");
    assert_eq!(shelf.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_once_found_to_be_older_stays_so_after_a_new_sign_in() {
    let shelf = Shelf::new();
    let (login, newer) = (login(&shelf), shelf.record().unwrap());
    shelf.now(Trouble::Older);
    let older = shelf.record().unwrap();
    shelf.put_back(newer);
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.put_back(older.clone());
    assert_eq!(word(&attempt(&login).await), "older");
    shelf.now(Trouble::Stale);
    assert_eq!(word(&attempt(&login).await), "theirs");
    shelf.put_back(older);
    assert_eq!(word(&attempt(&login).await), "older");
    assert_eq!(shelf.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_was_given_up_is_no_newer_sign_in_when_it_turns_up() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    shelf.strike(Step::Commit, Trouble::Late);
    assert_eq!(word(&attempt(&login).await), "unsaved");
    // It lands while the store cannot be reached, and the user signs in anew.
    shelf.mend();
    shelf.strike(Step::Renew, Trouble::Hangs);
    sleep(Duration::from_secs(3)).await;
    let landed = loop {
        sleep(Duration::from_millis(100)).await;
        if shelf.stored() == "rt-2" {
            break shelf.record().unwrap();
        }
    };
    shelf.now(Trouble::Stale);
    shelf.mend();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(word(&attempt(&login).await), "theirs");
    shelf.put_back(landed);
    assert_eq!(word(&attempt(&login).await), "older");
}

#[tokio::test(start_paused = true)]
async fn a_used_up_token_is_not_sent_though_another_process_signs_in_with_it() {
    let shelf = Shelf::empty();
    let (login, mistaken) = (login(&shelf), login(&shelf));
    assert_eq!(word(&attempt(&login).await), "token");
    shelf.now(Trouble::Stale);
    assert_eq!(word(&attempt(&login).await), "theirs");
    // Started with a refresh token of long ago.
    mistaken.sign_in().await.unwrap();
    assert_eq!(shelf.stored(), "rt-first");
    assert_eq!(word(&attempt(&login).await), "older");
    assert_eq!(shelf.sent(), ["rt-first"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_unsaved_login_is_read_again_first_and_condemned_for_all() {
    let (shelf, login) = unsaved().await;
    shelf.strike(Step::Commit, Trouble::Down);
    shelf.revoke();
    assert_eq!(word(&attempt(&login).await), "rejected");
    assert_eq!(word(&attempt(&login).await), "rejected");
    let sent = shelf.sent().len();
    shelf.mend();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shelf.stored(), "dead", "the tombstone is written as soon as the store takes it");
    let other = self::login(&shelf);
    assert_eq!(word(&attempt(&other).await), "rejected");
    assert_eq!(shelf.sent().len(), sent, "whoever reads it asks nobody");
    assert!(shelf.sins().is_empty());

    let (shelf, login) = unsaved().await;
    shelf.strike(Step::Commit, Trouble::Down);
    shelf.strike(Step::Exchange, Trouble::Stale);
    shelf.revoke();
    assert_eq!(word(&attempt(&login).await), "theirs", "somebody has signed in meanwhile");
}

#[tokio::test(start_paused = true)]
async fn another_accounts_login_is_not_written_over_by_an_unsaved_pair() {
    let (shelf, login) = unsaved().await;
    // Under the very number that the pair was to replace.
    shelf.now(Trouble::Foreign);
    let error = issue_error(attempt(&login).await);
    assert_eq!(error.verdict(), &Verdict::Replaced);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shelf.account().as_deref(), Some("bob"));
    assert!(!shelf.is_leased());
}

#[tokio::test(start_paused = true)]
async fn another_accounts_login_is_not_written_over_in_mid_exchange() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    shelf.strike(Step::Exchange, Trouble::Foreign);
    assert!(attempt(&login).await.unwrap().is_unsaved());
    assert_eq!(shelf.account().as_deref(), Some("bob"));
    assert_eq!(issue_error(attempt(&login).await).verdict(), &Verdict::Replaced);
    assert_eq!(shelf.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_of_the_spent_token_gives_way_to_its_successor() {
    for step in [Step::Exchange, Step::Commit] {
        let shelf = Shelf::new();
        let login = login(&shelf);
        shelf.strike(step, Trouble::Dead);
        assert_eq!(word(&attempt(&login).await), "token", "{step:?}");
        assert_eq!(shelf.stored(), shelf.newest());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_login_is_told_though_the_store_cannot_be_written() {
    for (trouble, told) in [
        (Trouble::Foreign, "replaced"),
        (Trouble::Corrupt, "corrupt"),
        (Trouble::Dead, "rejected"),
        (Trouble::Gone, "down"),
    ] {
        let shelf = Shelf::new();
        let login = login(&shelf);
        assert_eq!(word(&attempt(&login).await), "token");
        shelf.strike(Step::Lease, Trouble::Down);
        shelf.now(trouble);
        assert_eq!(word(&attempt(&login).await), told, "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_exchange_keeps_no_lease() {
    struct Panics;

    #[async_trait::async_trait]
    impl Grant for Panics {
        fn issuer(&self) -> String {
            String::new()
        }

        fn client_id(&self) -> String {
            String::new()
        }

        fn refresh_token(&self) -> Option<SecretString> {
            Some("rt-1".into())
        }

        async fn exchange(&self, _: Option<&SecretString>, _: &IssueRequest) -> Exchanged {
            panic!("on purpose");
        }
    }

    let store = MemoryStore::new();
    let login = SharedLogin::builder(Panics, store.clone()).build();
    let attempting = login.clone();
    assert!(tokio::spawn(async move { attempt(&attempting).await.is_ok() }).await.unwrap_err().is_panic());
    store.lease(Duration::from_secs(35)).await.unwrap();
}

#[test]
fn a_runtime_that_ends_in_mid_exchange_keeps_no_lease() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    shelf.strike(Step::Exchange, Trouble::Hangs);
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(async { timeout(Duration::from_secs(1), attempt(&login)).await.is_ok() });
        assert!(!outcome && shelf.is_leased());
        drop(runtime);
        assert!(!shelf.is_leased());
    }
}

#[test]
fn an_unsaved_pair_outlives_the_runtime_in_which_it_was_received() {
    let shelf = Shelf::new();
    let login = login(&shelf);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    shelf.strike(Step::Commit, Trouble::Down);
    runtime().block_on(async {
        assert_eq!(word(&attempt(&login).await), "unsaved");
    });
    runtime().block_on(async {
        assert_eq!(word(&attempt(&login).await), "unsaved");
        shelf.mend();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(shelf.stored(), shelf.newest(), "tried again in the background of the runtime that is there");
    });
}

/// A server that gives the same refresh token with each answer, and a user who has signed in once more with it.
#[tokio::test(start_paused = true)]
async fn where_refresh_tokens_are_not_rotated_an_earlier_state_is_as_good() {
    struct Steady;

    #[async_trait::async_trait]
    impl Grant for Steady {
        fn issuer(&self) -> String {
            String::new()
        }

        fn client_id(&self) -> String {
            String::new()
        }

        fn refresh_token(&self) -> Option<SecretString> {
            Some("rt-1".into())
        }

        async fn exchange(&self, _: Option<&SecretString>, _: &IssueRequest) -> Exchanged {
            Exchanged { issued: Ok(IssuedToken::bearer("at")), refresh_token: None }
        }
    }

    let store = MemoryStore::new();
    let [one, other] = [(); 2].map(|()| SharedLogin::builder(Steady, store.clone()).build());
    for _ in 0..3 {
        assert_eq!(word(&attempt(&one).await), "token");
    }
    other.sign_in().await.unwrap();
    assert_eq!(word(&attempt(&one).await), "token");
}

#[tokio::test(start_paused = true)]
async fn many_handles_and_a_late_commit_spend_each_token_once() {
    let shelf = Shelf::empty();
    let logins: Vec<_> = (0..8).map(|_| login(&shelf)).collect();
    shelf.strike(Step::Commit, Trouble::Late);
    let began = join_all(logins.iter().map(attempt)).await;
    assert_eq!(began.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    shelf.mend();
    sleep(Duration::from_secs(60)).await;
    for outcome in join_all(logins.iter().map(attempt)).await {
        assert!(outcome.is_ok());
    }
    assert!(shelf.sins().is_empty());
    assert_eq!(shelf.stored(), shelf.newest());
}

/// A process with a pair that it could not save; the store takes everything by now.
async fn unsaved() -> (Shelf, SharedLogin) {
    unsaved_by(Shelf::clone).await
}

async fn unsaved_by<G: Grant>(grant: impl Fn(&Shelf) -> G) -> (Shelf, SharedLogin) {
    let shelf = Shelf::new();
    let login = SharedLogin::builder(grant(&shelf), shelf.clone()).account("alice").build();
    shelf.strike(Step::Commit, Trouble::Down);
    assert_eq!(word(&attempt(&login).await), "unsaved");
    shelf.mend();
    (shelf, login)
}

/// The login, as one more process has it.
fn login(shelf: &Shelf) -> SharedLogin {
    SharedLogin::builder(shelf.clone(), shelf.clone()).account("alice").build()
}

async fn attempt(login: &SharedLogin) -> Result<IssuedToken, BoxError> {
    login.issue(&IssueRequest::new(IssueReason::Ahead)).await
}

fn word(outcome: &Result<IssuedToken, BoxError>) -> &'static str {
    let error = match outcome {
        Ok(token) if token.expose_secret() == "at-theirs" => return "theirs",
        Ok(token) if token.is_unsaved() => return "unsaved",
        Ok(_) => return "token",
        Err(error) => error.downcast_ref::<IssueError>().unwrap(),
    };
    match (error.verdict(), error.rule()) {
        (Verdict::Rejected(_), _) => "rejected",
        (Verdict::Replaced, _) => "replaced",
        (_, "busy") => "busy",
        (_, "store-unavailable") => "down",
        (_, "store-corrupt") => "corrupt",
        (_, "store-login-gone") => "gone",
        (_, "store-rolled-back") => "older",
        (_, "attempt-timeout" | "source") => "unknown",
        (_, other) => panic!("{other}"),
    }
}

fn issue_error(outcome: Result<IssuedToken, BoxError>) -> IssueError {
    *outcome.unwrap_err().downcast().unwrap()
}

fn is_theirs(record: &steadfast::store::Record) -> bool {
    matches!(record.content(), Content::Grant(grant) if grant.access_token().is_some_and(|token| {
        token.at(Duration::ZERO).expose_secret() == "at-theirs"
    }))
}

fn step(name: &str) -> Step {
    match name {
        "lease" => Step::Lease,
        "load" => Step::Load,
        "renew" => Step::Renew,
        "exchange" => Step::Exchange,
        "commit" => Step::Commit,
        "release" => Step::Release,
        other => panic!("{other}"),
    }
}

fn trouble(name: &str) -> Option<Trouble> {
    Some(match name {
        "ok" => return None,
        "busy" => Trouble::Busy,
        "lost" => Trouble::Lost,
        "stale" => Trouble::Stale,
        "down" => Trouble::Down,
        "hangs" => Trouble::Hangs,
        "late" => Trouble::Late,
        "foreign" => Trouble::Foreign,
        "corrupt" => Trouble::Corrupt,
        "gone" => Trouble::Gone,
        "flushed" => Trouble::Flushed,
        "dead" => Trouble::Dead,
        "older" => Trouble::Older,
        other => panic!("{other}"),
    })
}
