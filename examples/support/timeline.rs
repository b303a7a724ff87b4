//! The timeline: what is printed while an example runs.
#![allow(dead_code, reason = "each example uses its part of it")]

use std::time::{Duration, Instant};

use steadfast::{AuthStatus, StatusEvent};

use crate::{
    terminal::{Ink, Paint, hanging_in},
    words,
};

#[derive(Clone, Copy)]
pub(crate) struct Timeline {
    began: Instant,
    pub(crate) paint: Paint,
}

impl Timeline {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), paint: Paint::of_stdout() }
    }

    /// What happens around the monitor.
    pub(crate) fn scene(self, text: &str) {
        println!("{}", scene(self.paint, self.began.elapsed(), text));
    }

    /// What the monitor says of it.
    pub(crate) fn status(self, event: &StatusEvent) {
        println!("{}", status(self.paint, self.began.elapsed(), event));
    }

    /// Why it says so.
    pub(crate) fn reason(self, event: &StatusEvent) {
        println!("{}", note(self.paint, Ink::Faint, &event.reason));
    }
}

fn scene(paint: Paint, at: Duration, text: &str) -> String {
    hanging_in(&format!("{}  ", clock(at)), text, |line| paint.ink(Ink::Strong, line))
}

fn status(paint: Paint, at: Duration, event: &StatusEvent) -> String {
    let ink = match event.to {
        AuthStatus::Running if event.serving => Ink::Good,
        AuthStatus::Running | AuthStatus::AuthRetrying(_) => Ink::Uneasy,
        AuthStatus::Unauthenticated(_) => Ink::Bad,
        AuthStatus::Pending | AuthStatus::Stopped(_) | _ => Ink::Strong,
    };
    let change = if event.from == event.to {
        format!("still {}", event.to.name())
    } else {
        format!("{} → {}", event.from.name(), event.to.name())
    };
    let serving = if event.serving { "serving" } else { "not serving" };
    // Only the mark is coloured: which colours can be read is up to the terminal.
    let mut lines = format!("{}    {} {change:<34} {serving}", clock(at), paint.ink(ink, "●"));
    if let Some(need) = words::need_after(event) {
        let ink = if need.starts_with("nothing") { Ink::Faint } else { Ink::Strong };
        lines = lines + "\n" + &note(paint, ink, &need);
    }
    lines
}

fn note(paint: Paint, ink: Ink, text: &str) -> String {
    hanging_in(&" ".repeat(UNDER_STATUS), text, |line| paint.ink(ink, line))
}

fn clock(at: Duration) -> String {
    format!("{:>7.2} s", at.as_secs_f64())
}

/// Where the text of a status begins.
const UNDER_STATUS: usize = 15;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use steadfast::{BoxError, IssueError, IssuedToken, MonitoredTokenSource, OAuthCode, testing::TestClock};
    use tokio::{sync::mpsc, time::sleep};

    use super::*;
    use crate::terminal::{columns, too_wide};

    #[tokio::test(start_paused = true)]
    async fn a_life_in_which_everything_happens_is_told_in_80_columns() {
        let life = life().await;
        let told = |paint| life.iter().map(|event| status(paint, DAYS, event) + "\n").collect::<String>();
        assert_eq!(too_wide(&told(Paint::PLAIN)), None);
        assert_eq!(too_wide(&told(Paint::COLOURED)), None);
        for part in [
            "● pending → running                  serving",
            "● running → auth_retrying            not serving\n               nothing to do, next attempt in",
            "● auth_retrying → unauthenticated    not serving\n               to do: sign in again",
            "● unauthenticated → stopped",
        ] {
            assert!(told(Paint::PLAIN).contains(part), "{part:?} in\n{}", told(Paint::PLAIN));
        }
        let reasons: String =
            life.iter().map(|event| note(Paint::COLOURED, Ink::Faint, &event.reason) + "\n").collect();
        assert_eq!(too_wide(&reasons), None);
        assert!(reasons.contains("the token endpoint does not give tokens"));
    }

    #[tokio::test(start_paused = true)]
    async fn colour_moves_no_column() {
        for event in life().await {
            let (plain, coloured) = (status(Paint::PLAIN, DAYS, &event), status(Paint::COLOURED, DAYS, &event));
            assert!(coloured.contains("\x1b[") && !plain.contains('\x1b'));
            assert!(plain.lines().map(columns).eq(coloured.lines().map(columns)), "{plain}\n{coloured}");
        }
    }

    #[test]
    fn a_long_scene_hangs_under_its_beginning() {
        let told = scene(Paint::COLOURED, DAYS, &"word ".repeat(40));
        assert_eq!(too_wide(&told), None);
        assert!(told.lines().skip(1).all(|line| line.starts_with("             \x1b[1mword")), "{told}");
    }

    /// Running, a long outage, a verdict, the end.
    async fn life() -> Vec<StatusEvent> {
        let outcome = Arc::new(Mutex::new("a token"));
        let source = {
            let outcome = Arc::clone(&outcome);
            move || {
                let outcome = *outcome.lock().unwrap();
                async move {
                    match outcome {
                        "a token" => Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(60))),
                        "an outage" => Err(BoxError::from("the vault is sealed; ".repeat(9))),
                        _ => Err(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "signed out").into()),
                    }
                }
            }
        };
        let (sender, mut events) = mpsc::channel(64);
        let clock = TestClock::new();
        let builder = MonitoredTokenSource::builder(source).name("drill").clock(&clock).jitter_seed(1).sink(sender);
        let tokens = builder.spawn().unwrap();
        tokens.token().await.unwrap();
        *outcome.lock().unwrap() = "an outage";
        sleep(Duration::from_secs(3_600)).await;
        *outcome.lock().unwrap() = "a verdict";
        sleep(Duration::from_secs(3_600)).await;
        tokens.shutdown().await;
        drop(tokens);
        let mut life = Vec::new();
        while let Some(event) = events.recv().await {
            life.push(event);
        }
        life
    }

    const DAYS: Duration = Duration::from_secs(100_000);
}
