//! The timeline: what is printed while the program runs.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use steadfast::{AuthStatus, StatusEvent};

#[derive(Clone, Copy)]
pub(crate) struct Timeline {
    began: Instant,
    coloured: bool,
}

impl Timeline {
    pub(crate) fn begin() -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { began: Instant::now(), coloured }
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.began.elapsed()
    }

    /// What happens around the monitor.
    pub(crate) fn scene(self, text: &str) {
        println!("{}  {}", self.at(), self.painted("1", text));
    }

    /// What the monitor says of it.
    pub(crate) fn status(self, event: &StatusEvent) {
        let colour = match event.to {
            AuthStatus::Running => "32",
            AuthStatus::AuthRetrying(_) => "33",
            AuthStatus::Unauthenticated(_) => "31",
            AuthStatus::Pending | AuthStatus::Stopped(_) | _ => "36",
        };
        let change = if event.from == event.to {
            format!("still {}", event.to.name())
        } else {
            format!("{} → {}", event.from.name(), event.to.name())
        };
        let serving = if event.serving { "serving" } else { "not serving" };
        println!("{}    {} {:<34} {serving}", self.at(), self.painted(colour, "●"), self.painted(colour, &change));
        if let Some(remediation) = &event.remediation {
            println!("{:>9}      advice: {remediation}", "");
        }
    }

    pub(crate) fn painted(self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn at(self) -> String {
        format!("{:>7.2} s", self.elapsed().as_secs_f64())
    }
}
