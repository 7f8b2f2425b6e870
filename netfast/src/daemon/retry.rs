//! When to try again.

use std::time::Duration;

/// Long enough for a device that is being made or removed to be told of.
const FIRST: Duration = Duration::from_millis(200);
/// Short enough for an operator who has just removed the obstacle.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double, until something works.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        wait
    }

    /// It worked: the next wait is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(), FIRST);
    }
}
