//! Places in a row: which are in use.

use std::collections::BTreeMap;

/// Gives out runs of consecutive places. What was given back is given out again as late as possible, because
/// the kernel program may still be reading it.
#[derive(Debug)]
pub(super) struct Runs {
    size: u32,
    /// Runs in use, by their first place: their lengths.
    used: BTreeMap<u32, u32>,
    /// Where the last run that was given out ends.
    next: u32,
}

impl Runs {
    /// So many places, all free.
    pub(super) fn new(size: u32) -> Self {
        Self { size, used: BTreeMap::new(), next: 0 }
    }

    /// The first of `len` places, of which there is at least one; `None` if there are not so many in a row.
    pub(super) fn take(&mut self, len: u32) -> Option<u32> {
        let first = self.free(self.next, self.size, len).or_else(|| self.free(0, self.size, len))?;
        self.used.insert(first, len);
        self.next = first + len;
        Some(first)
    }

    /// Gives back what began at `first`.
    pub(super) fn give_back(&mut self, first: u32) {
        self.used.remove(&first);
    }

    /// The first run of free places between two places.
    fn free(&self, from: u32, to: u32, len: u32) -> Option<u32> {
        let before = self.used.range(..=from).next_back().map_or(0, |(first, len)| first + len);
        let mut candidate = from.max(before);
        for (&first, &used) in self.used.range(from..to) {
            if first >= candidate && first - candidate >= len {
                break;
            }
            candidate = candidate.max(first + used);
        }
        (candidate.checked_add(len)? <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_given_back_is_used_last() {
        let mut runs = Runs::new(10);
        assert_eq!((runs.take(4), runs.take(2)), (Some(0), Some(4)));
        runs.give_back(0);
        assert_eq!(runs.take(3), Some(6));
        assert_eq!(runs.take(2), Some(0));
        assert_eq!(runs.take(2), Some(2));
        assert_eq!(runs.take(2), None);
        assert_eq!(runs.take(1), Some(9));
        assert_eq!(runs.take(1), None);
    }

    proptest! {
        #[test]
        fn runs_never_overlap(steps in proptest::collection::vec((1..6_u32, any::<bool>()), 1..60)) {
            let mut runs = Runs::new(24);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (len, give_back) in steps {
                if give_back && !taken.is_empty() {
                    let (first, _) = taken.remove(len as usize % taken.len());
                    runs.give_back(first);
                }
                let fits = (0..=24 - len).any(|at| taken.iter().all(|(first, used)| at + len <= *first || first + used <= at));
                let first = runs.take(len);
                prop_assert_eq!(first.is_some(), fits);
                if let Some(first) = first {
                    prop_assert!(first + len <= 24);
                    prop_assert!(taken.iter().all(|(other, used)| first + len <= *other || other + used <= first));
                    taken.push((first, len));
                }
            }
        }
    }
}
