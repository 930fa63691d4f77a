//! What the recording of one program has come to.

use std::collections::BTreeMap;
use std::time::Duration;

use memtrace_common::StackEnd;

use crate::verdict::Verdict;

/// The least share of walks that must reach the thread's first function.
const LEAST_COMPLETE: f64 = 0.995;

/// Fewer compared walks than this say nothing.
const LEAST_COMPARED: u64 = 2000;

/// Figures of one program.
pub(crate) struct Figures {
    /// The program's name.
    pub(crate) name: String,
    /// How many walks ended in which way.
    pub(crate) ends: Vec<(StackEnd, u64)>,
    /// How long it was recorded.
    pub(crate) time: Duration,
    /// How many different stacks there were.
    pub(crate) stacks: usize,
    /// Frames of all compared walks, and those of the deepest one.
    pub(crate) frames: u64,
    pub(crate) deepest: u64,
    /// The unwind tables: number, bytes, and how long it took to get them into the kernel.
    pub(crate) tables: (u64, u64, Duration),
    /// Of these, those that were taken from the cache on disk.
    pub(crate) tables_from_cache: u64,
    /// Walks that could not be compared because the ring buffer was full, or the code was gone.
    pub(crate) lost: u64,
    /// What came of the comparisons.
    pub(crate) verdicts: Verdicts,
}

/// Verdicts, counted.
#[derive(Default)]
pub(crate) struct Verdicts {
    pub(crate) equal: u64,
    pub(crate) copy_too_short: u64,
    pub(crate) both_end_early: u64,
    /// Walks that were made again from wrong registers, and how many of them were equal nevertheless.
    pub(crate) controls: u64,
    pub(crate) controls_equal: u64,
    /// By what was different, and where: how often, and an example.
    pub(crate) different: BTreeMap<String, (u64, String)>,
}

impl Verdicts {
    /// Counts one. `example` is asked only for the first one of its kind.
    pub(crate) fn add(&mut self, verdict: Verdict, example: impl FnOnce() -> String) {
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::CopyTooShort => self.copy_too_short += 1,
            Verdict::BothEndEarly => self.both_end_early += 1,
            Verdict::Different(kind) => {
                self.different.entry(kind).or_insert_with(|| (0, example())).0 += 1;
            }
        }
    }

    /// How many walks were compared.
    pub(crate) fn compared(&self) -> u64 {
        self.equal + self.copy_too_short + self.both_end_early + self.disagreements()
    }

    /// How many of these were not the same.
    pub(crate) fn disagreements(&self) -> u64 {
        self.different.values().map(|(count, _)| count).sum()
    }
}

impl Figures {
    /// How many stacks were walked.
    pub(crate) fn samples(&self) -> u64 {
        self.ends.iter().map(|(_, count)| count).sum()
    }

    /// How many walks ended so.
    pub(crate) fn ended(&self, end: StackEnd) -> u64 {
        self.ends.iter().filter(|(known, _)| *known == end).map(|(_, count)| count).sum()
    }

    /// The share of walks that reach the thread's first function.
    pub(crate) fn complete(&self) -> f64 {
        self.ended(StackEnd::Root) as f64 / self.samples().max(1) as f64
    }

    /// What is wrong with them, in words.
    pub(crate) fn fault(&self) -> Option<String> {
        let (name, compared) = (&self.name, self.verdicts.compared());
        if compared < LEAST_COMPARED {
            return Some(format!("{compared} stacks of {name} were compared, fewer than {LEAST_COMPARED}"));
        }
        let different = self.verdicts.disagreements();
        if different > 0 {
            return Some(format!("{different} stacks of {name} are different from framehop's"));
        }
        if self.verdicts.controls_equal > 0 {
            return Some(format!("stacks of {name} are equal to those from wrong registers"));
        }
        let complete = self.complete();
        (complete < LEAST_COMPLETE).then(|| {
            format!(
                "{:.3} % of {name}'s stacks reach their root, fewer than {} %",
                complete * 100.0,
                LEAST_COMPLETE * 100.0
            )
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A program whose walks ended so.
    pub(crate) fn figures(complete: u64, bad_read: u64) -> Figures {
        Figures {
            name: "program".to_owned(),
            ends: vec![(StackEnd::Root, complete), (StackEnd::Unreadable, bad_read)],
            time: Duration::ZERO,
            stacks: 0,
            frames: 0,
            deepest: 0,
            tables: (0, 0, Duration::ZERO),
            tables_from_cache: 0,
            lost: 0,
            verdicts: Verdicts { equal: complete, both_end_early: bad_read, ..Verdicts::default() },
        }
    }

    #[test]
    fn one_incomplete_stack_of_two_hundred_is_the_most() {
        assert_eq!(figures(1990, 10).fault(), None);
        assert!(figures(1989, 11).fault().is_some_and(|fault| fault.contains("99.450 % of program")));
        assert!(figures(1999, 0).fault().is_some_and(|fault| fault.contains("1999 stacks of program")));
    }

    #[test]
    fn different_stacks_and_a_comparison_that_sees_nothing_are_faults() {
        let mut different = figures(2000, 0);
        different.verdicts.add(Verdict::Different("kind".to_owned()), String::new);
        assert!(different.fault().is_some_and(|fault| fault.contains("1 stacks of program are different")));
        let mut blind = figures(2000, 0);
        blind.verdicts.controls_equal = 1;
        assert!(blind.fault().is_some_and(|fault| fault.contains("wrong registers")));
    }

    #[test]
    fn differences_are_counted_by_kind_with_one_example() {
        let mut verdicts = Verdicts::default();
        verdicts.add(Verdict::Equal, || unreachable!());
        for example in ["first", "second"] {
            verdicts.add(Verdict::Different("kind".to_owned()), || example.to_owned());
        }
        assert_eq!((verdicts.compared(), verdicts.disagreements()), (3, 2));
        assert_eq!(verdicts.different["kind"], (2, "first".to_owned()));
    }
}
