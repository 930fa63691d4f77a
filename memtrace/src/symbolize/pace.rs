//! How often an unknown address may cause the mappings to be read again.

use std::time::{Duration, Instant};

/// In the long run one reading per this time: a stack of garbage must not make memtrace busy.
const INTERVAL: Duration = Duration::from_millis(50);

/// So many may follow each other at once: a program that starts loads one library after the other,
/// and none of them may be missed.
const BURST: u32 = 8;

/// A token bucket of [`BURST`] tokens that gains one per [`INTERVAL`].
#[derive(Debug)]
pub(super) struct Pace {
    tokens: u32,
    /// Up to when tokens have been handed out.
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: BURST, since: now }
    }

    /// Takes a token if there is one.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_millis() / INTERVAL.as_millis();
        let gained = u32::try_from(passed).unwrap_or(u32::MAX);
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(BURST);
            self.since += INTERVAL.saturating_mul(gained);
        }
        let allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_per_interval() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let allowed = |pace: &mut Pace, at: Duration| (0..100).filter(|_| pace.allows(start + at)).count();
        assert_eq!(allowed(&mut pace, Duration::ZERO), 8);
        assert_eq!(allowed(&mut pace, Duration::from_millis(49)), 0);
        assert_eq!(allowed(&mut pace, Duration::from_millis(50)), 1);
        assert_eq!(allowed(&mut pace, Duration::from_millis(199)), 2);
        assert_eq!(allowed(&mut pace, Duration::from_secs(60)), 8);
    }
}
