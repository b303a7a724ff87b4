//! The identity provider: down for two hours, and with a capacity.

use crate::report::{Record, Scene};

/// What it does with the exchanges of one second after the other.
pub(crate) struct Idp {
    capacity: u32,
    pub(crate) record: Record,
}

impl Idp {
    pub(crate) fn new(scene: &Scene, name: &'static str) -> Self {
        Self { capacity: scene.capacity(), record: Record::of(name) }
    }

    /// Whether an exchange that comes in this second gets a token.
    pub(crate) fn exchange(&mut self, second: usize) -> bool {
        let Some(requests) = self.record.requests.get_mut(second) else { return false };
        *requests += 1;
        let overloaded = *requests > self.capacity;
        self.record.turned_away += u32::from(overloaded);
        !overloaded && !Scene::OUTAGE.contains(&second)
    }
}
