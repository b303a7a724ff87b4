//! What arrived, and how much of it at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{script::Answer, wire::Reply};

/// The calls a server has received, and what it did not expect among them.
pub(super) struct Log<C> {
    server: &'static str,
    entries: Mutex<Entries<C>>,
    arrived: watch::Sender<usize>,
}

struct Entries<C> {
    calls: Vec<C>,
    in_flight: usize,
    most_in_flight: usize,
    complaints: Vec<String>,
}

impl<C: Clone + Send + 'static> Log<C> {
    pub(super) fn new(server: &'static str) -> Arc<Self> {
        Arc::new(Self {
            server,
            entries: Mutex::new(Entries { calls: Vec::new(), in_flight: 0, most_in_flight: 0, complaints: Vec::new() }),
            arrived: watch::Sender::new(0),
        })
    }

    /// Notes a call, which is in flight as long as the guard lives.
    pub(super) fn arrive(self: &Arc<Self>, call: C) -> Box<dyn Send> {
        let arrived = {
            let mut entries = self.entries();
            entries.calls.push(call);
            entries.in_flight += 1;
            entries.most_in_flight = entries.most_in_flight.max(entries.in_flight);
            entries.calls.len()
        };
        self.arrived.send_replace(arrived);
        Box::new(InFlight(Arc::clone(self)))
    }

    /// Notes something that no test can have meant, and answers it.
    pub(super) fn complain(&self, complaint: String) -> Reply {
        self.entries().complaints.push(complaint);
        Reply::new(&Answer::status(500).body(UNEXPECTED), None, Box::new(()))
    }

    pub(super) fn calls(&self) -> Vec<C> {
        self.entries().calls.clone()
    }

    pub(super) fn count(&self) -> usize {
        *self.arrived.borrow()
    }

    pub(super) fn most_in_flight(&self) -> usize {
        self.entries().most_in_flight
    }

    pub(super) async fn called(&self, calls: usize) {
        let mut arrived = self.arrived.subscribe();
        // The sender is `self`, so it outlives the wait.
        let _closed = arrived.wait_for(|&arrived| arrived >= calls).await;
    }

    /// # Panics
    ///
    /// If anything arrived that no test can have meant.
    #[track_caller]
    pub(super) fn verify(&self) {
        let complaints = std::mem::take(&mut self.entries().complaints);
        assert!(
            complaints.is_empty(),
            "the {} got what the test had not told it to expect:\n  {}",
            self.server,
            complaints.join("\n  ")
        );
    }

    /// For the end of the server: a test that fails already needs no second panic, which would abort it, but may need to know.
    #[expect(clippy::print_stderr, reason = "what a failing test prints is for whoever reads why it failed")]
    pub(super) fn verify_at_the_end(&self) {
        if !std::thread::panicking() {
            return self.verify();
        }
        for complaint in &self.entries().complaints {
            eprintln!("the {} got what the test had not told it to expect: {complaint}", self.server);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries<C>> {
        lock(&self.entries)
    }
}

/// Nothing in the kit leaves its state half changed, so a panic of the test while it looks does no harm.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct InFlight<C: Clone + Send + 'static>(Arc<Log<C>>);

impl<C: Clone + Send + 'static> Drop for InFlight<C> {
    fn drop(&mut self) {
        self.0.entries().in_flight -= 1;
    }
}

const UNEXPECTED: &str = "the test has not told the server to expect this";
