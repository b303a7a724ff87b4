//! Who wants tokens: the same users at the same seconds, whatever the strategy.

use crate::report::Scene;

/// The visits of each second, one after the other.
pub(crate) struct Callers {
    dice: fastrand::Rng,
    sources: u32,
}

impl Callers {
    pub(crate) fn of(scene: &Scene) -> Self {
        Self { dice: fastrand::Rng::with_seed(scene.seed), sources: scene.sources }
    }

    /// Who comes in the next second: about one in three hundred.
    pub(crate) fn next_second(&mut self) -> Vec<u32> {
        let mean = f64::from(self.sources) / SECONDS_BETWEEN_VISITS;
        let visits = self.poisson(mean);
        (0..visits).map(|_| self.dice.u32(0..self.sources)).collect()
    }

    /// Knuth's way, in steps that do not underflow.
    fn poisson(&mut self, mut mean: f64) -> u32 {
        let mut count = 0;
        while mean > 0.0 {
            let step = mean.min(30.0);
            mean -= step;
            let (floor, mut product) = ((-step).exp(), self.dice.f64());
            while product > floor {
                count += 1;
                product *= self.dice.f64();
            }
        }
        count
    }
}

pub(crate) const REQUESTS_PER_VISIT: u32 = 4;
const SECONDS_BETWEEN_VISITS: f64 = 300.0;
