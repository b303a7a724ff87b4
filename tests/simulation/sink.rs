//! The host's status sink: it listens, sometimes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use steadfast::{AuthStatus, BoxError, StatusEvent, StatusSink};
use tokio::time::sleep;

use crate::{
    SECRET, TRAP,
    nature::{Nature, locked},
    promises,
    weather::Sink,
};

/// What one process's sink was told.
pub(crate) struct Ear {
    nature: Arc<Nature>,
    process: usize,
    heard: Mutex<Heard>,
}

struct Heard {
    talking: usize,
    /// The last event that was taken.
    told: Option<StatusEvent>,
    status: AuthStatus,
    sequence: u64,
}

impl Ear {
    pub(crate) fn new(nature: &Arc<Nature>, process: usize) -> Arc<Self> {
        let heard = Heard { talking: 0, told: None, status: AuthStatus::Pending, sequence: 0 };
        Arc::new(Self { nature: Arc::clone(nature), process, heard: Mutex::new(heard) })
    }

    /// The last news that was taken.
    pub(crate) fn told(&self) -> Option<StatusEvent> {
        locked(&self.heard).told.clone()
    }
}

#[async_trait]
impl StatusSink for Ear {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        let nature = &self.nature;
        nature.note(format_args!("sink {} is offered #{} {event}", self.process, event.sequence));
        nature.check(promises::no_secret_in_any_output("a status event", &format!("{event} {event:?}")));
        let _call = {
            let mut heard = locked(&self.heard);
            heard.talking += 1;
            nature.check(promises::the_sink_is_called_once_at_a_time(heard.talking));
            Call(self)
        };
        match nature.weather().sink {
            Sink::Fair => {}
            Sink::Slow => sleep(nature.secs(0, 12)).await,
            Sink::Failing if nature.chance(80) => return Err(format!("the sink's own {SECRET}").into()),
            Sink::Panicking if nature.chance(80) => panic!("{TRAP}"),
            Sink::Hanging if nature.chance(80) => std::future::pending().await,
            Sink::Failing | Sink::Panicking | Sink::Hanging => sleep(Duration::from_millis(10)).await,
        }
        let mut heard = locked(&self.heard);
        nature.check(promises::news_comes_in_order(heard.sequence, &heard.status, event));
        if event.sequence == heard.sequence + 1 {
            nature.check(promises::a_status_follows_the_table(&heard.status, &event.to));
        }
        if !event.unsaved && heard.told.as_ref().is_some_and(|told| told.unsaved) {
            nature.meets("unsaved no more");
        }
        (heard.sequence, heard.status) = (event.sequence, event.to.clone());
        heard.told = Some(event.clone());
        Ok(())
    }
}

struct Call<'a>(&'a Ear);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        locked(&self.0.heard).talking -= 1;
    }
}
