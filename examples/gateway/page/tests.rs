use std::sync::{Arc, Mutex};

use steadfast::{BoxError, IssueError, IssuedToken, OAuthCode, testing::TestClock};
use tokio::time::sleep;

use super::*;

#[tokio::test(start_paused = true)]
async fn each_state_says_on_one_line_what_is_wrong_and_whether_anything_needs_doing() {
    let lines =
        scenes("github").await.into_iter().map(|Scene { name, words, .. }| format!("{name}: {}", timeless(&words)));
    let expected = [
        "pending: github: not serving yet; the first token is on its way; nothing to do, an attempt is under way",
        "pending-failing: github: not serving yet; no attempt to get the first token has succeeded; nothing to do, next \
         attempt in #",
        "running-not-serving: github: not serving; the token has ended, and there is no new one yet; nothing to do, an \
         attempt is under way",
        "running: github: serving; nothing to do, next refresh in #",
        "running-failing: github: serving; the last attempt to renew the token failed; nothing to do, next refresh in #",
        "retrying-serving: github: still serving, for # more; the token endpoint has given no token for over #; nothing to \
         do, next attempt in #",
        "retrying: github: not serving; the token endpoint has given no token for over #; nothing to do, next attempt in #",
        "unauthenticated-serving: github: still serving, for # more; the authorization server rejected the grant \
         (invalid_grant); to do: sign in again",
        "unauthenticated: github: not serving; the authorization server rejected the grant (invalid_grant); to do: sign in \
         again",
        "ceiling: github: not serving; no token for longer than the ceiling of 1day; to do: see to the token endpoint, \
         then restart this process",
        "stopped: github: not serving; the monitor has ended (shut down); to do: start it again, unless somebody meant to \
         stop it",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn each_page_is_well_formed_says_the_line_and_loads_nothing() {
    for Scene { name, words, page, paused } in scenes("github").await {
        keep(name, &page);
        for page in [&page, &paused] {
            assert_well_formed(page);
            let heading =
                between(page, "<h1>", "</h1>").replace("<em>", "").replace("</em>", "").replace('\u{a0}', " ");
            assert_eq!(heading, escaped(&words), "{name}");
            assert!(page.contains(r#"<html lang="en">"#) && page.contains(r#"role="status""#));
            assert!(!between(page, "<title>", "</title>").is_empty());
            for part in ["<script", "http://", "https://", "@import", "url(", "src="] {
                assert!(!page.contains(part), "{part} in {name}");
            }
        }
        assert!(page.contains("http-equiv=\"refresh\"") && !paused.contains("http-equiv"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hostile_name_and_a_hostile_failure_stay_text() {
    let hostile =
        "x".repeat(300) + "</title><script>alert('1')</script>\r\n\u{1b}[31m\u{2028}\u{202e}\"&amp;<img src=x>";
    for Scene { name, words, page, .. } in scenes(&hostile).await {
        keep(&format!("hostile-{name}"), &page);
        assert_well_formed(&page);
        assert!(!page.contains("<script") && !page.contains("<img"), "{name}");
        assert_eq!(words.lines().count(), 1, "{name}");
        assert!(!words.contains(char::is_control) && !words.contains(['\u{2028}', '\u{202e}']), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_title_tells_states_apart_without_colour() {
    let titles = scenes("github").await.into_iter().map(|scene| between(&scene.page, "<title>", "</title>").to_owned());
    let titles: Vec<_> = titles.collect();
    for title in [
        "Pending, not serving",
        "Running, serving",
        "Running, not serving",
        "Retrying, serving",
        "Retrying, not serving",
        "Stopped, not serving",
    ] {
        assert!(titles.contains(&format!("{title} · github")), "{title} in {titles:?}");
    }
}

/// WCAG 2.2 §1.4.3, for each colour of text on each ground that it stands on.
#[test]
fn the_colours_have_contrast_enough_in_both_schemes() {
    let (light, dark) = STYLE.split_once("prefers-color-scheme: dark").unwrap();
    for scheme in [light, dark] {
        let colour = |name: &str| {
            let hex = between(scheme, &format!("--{name}: #"), ";");
            let hex = if hex.len() == 3 { hex.chars().flat_map(|digit| [digit; 2]).collect() } else { hex.to_owned() };
            luminance(u32::from_str_radix(&hex, 16).unwrap())
        };
        for ground in ["ground", "card"] {
            for ink in ["ink", "faint", "good", "uneasy", "bad", "quiet"] {
                let (one, other) = (colour(ink), colour(ground));
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(contrast >= 4.5, "{ink} on {ground}: {contrast:.2}");
            }
        }
    }
}

struct Scene {
    name: &'static str,
    words: String,
    page: String,
    paused: String,
}

/// A gateway's monitor in each state, on a clock of its own.
async fn scenes(name: &str) -> Vec<Scene> {
    let mut scenes = Vec::new();
    let mut stage = Stage::new(name, Outcome::Nothing);
    sleep(secs(5)).await;
    scenes.push(stage.scene("pending"));

    stage = Stage::new(name, Outcome::Outage);
    sleep(secs(15)).await;
    scenes.push(stage.scene("pending-failing"));

    stage = Stage::new(name, Outcome::Token);
    sleep(secs(10)).await;
    stage.turn(Outcome::Nothing);
    stage.clock.suspend(secs(7_200));
    sleep(secs(31)).await;
    scenes.push(stage.scene("running-not-serving"));

    stage = Stage::new(name, Outcome::Token);
    sleep(secs(70)).await;
    scenes.push(stage.scene("running"));
    stage.turn(Outcome::Outage);
    sleep(secs(2_640)).await;
    scenes.push(stage.scene("running-failing"));
    sleep(secs(410)).await;
    scenes.push(stage.scene("retrying-serving"));
    sleep(secs(1_380)).await;
    scenes.push(stage.scene("retrying"));
    sleep(secs(25 * 3_600)).await;
    let ceiling = stage.scene("ceiling");

    stage = Stage::new(name, Outcome::Token);
    sleep(secs(10)).await;
    stage.turn(Outcome::Verdict);
    sleep(secs(3_110)).await;
    scenes.push(stage.scene("unauthenticated-serving"));
    sleep(secs(600)).await;
    scenes.push(stage.scene("unauthenticated"));
    scenes.push(ceiling);
    stage.tokens.shutdown().await;
    sleep(secs(1)).await;
    scenes.push(stage.scene("stopped"));
    scenes
}

struct Stage {
    tokens: MonitoredTokenSource,
    history: History,
    clock: TestClock,
    outcome: Arc<Mutex<Outcome>>,
}

#[derive(Clone, Copy)]
enum Outcome {
    Token,
    Outage,
    Verdict,
    Nothing,
}

impl Stage {
    fn new(name: &str, outcome: Outcome) -> Self {
        let outcome = Arc::new(Mutex::new(outcome));
        let source = {
            let outcome = Arc::clone(&outcome);
            move || {
                let outcome = *outcome.lock().unwrap();
                async move {
                    match outcome {
                        Outcome::Token => Ok(IssuedToken::bearer("s3cret").expires_in(secs(3_600))),
                        Outcome::Outage => Err(BoxError::from("<img src=x> the vault is sealed")),
                        Outcome::Verdict => {
                            let code = OAuthCode::new("invalid_grant").unwrap();
                            Err(IssueError::rejected(code, "<img src=x> signed out").into())
                        }
                        Outcome::Nothing => std::future::pending().await,
                    }
                }
            }
        };
        let (history, clock) = (History::default(), TestClock::new());
        let builder =
            MonitoredTokenSource::builder(source).name(name).sink(history.clone()).clock(&clock).jitter_seed(1);
        Self { tokens: builder.spawn().unwrap(), history, clock, outcome }
    }

    fn turn(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap() = outcome;
    }

    fn scene(&self, name: &'static str) -> Scene {
        let (snapshot, events, now) = (self.tokens.snapshot(), self.history.newest_first(), self.clock.wall());
        let words = InWords::of(&snapshot, &events, now).to_string();
        let page = |paused| document(&snapshot, &events, now, paused);
        Scene { name, words, page: page(false), paused: page(true) }
    }
}

/// For whoever wants to look at the pages: `STEADFAST_PAGES` names a directory.
fn keep(name: &str, page: &str) {
    if let Some(place) = std::env::var_os("STEADFAST_PAGES") {
        std::fs::write(std::path::Path::new(&place).join(format!("{name}.html")), page).unwrap();
    }
}

/// Every element that is opened is closed, in order, and `<`, `>` and `&` stand for nothing else.
fn assert_well_formed(page: &str) {
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, tail) = rest.split_once("</style>").unwrap();
    let text = format!("{head}{tail}");
    let mut open = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, after) = part.split_once('>').unwrap_or_else(|| panic!("a < that opens nothing: {part}"));
        assert!(!after.contains('>'), "a stray > in {after:?}");
        for entity in after.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;", "nbsp;"];
            assert!(known.iter().any(|known| entity.starts_with(known)), "a stray & before {entity:?}");
        }
        let name = tag.split_whitespace().next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "closed at {part:?}"),
            None if ["!DOCTYPE", "meta", "link"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

/// Without the spans, which jitter decides.
fn timeless(words: &str) -> String {
    let units = ["s", "min", "h", "d"];
    let is_number = |word: &str| word.parse::<u32>().is_ok();
    let mut kept: Vec<String> = Vec::new();
    for word in words.split(' ') {
        let bare = word.trim_end_matches(';');
        match kept.last_mut() {
            Some(last) if last == "#" && (units.contains(&bare) || is_number(bare)) => *last += &word[bare.len()..],
            _ if is_number(word) => kept.push("#".to_owned()),
            _ => kept.push(word.to_owned()),
        }
    }
    kept.join(" ")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

fn luminance(rgb: u32) -> f64 {
    let linear = |shift: u32| {
        let share = f64::from(rgb >> shift & 0xff) / 255.0;
        if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(16) + 0.7152 * linear(8) + 0.0722 * linear(0)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
