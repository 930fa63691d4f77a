//! Whether a profile's indices fit together, so that outputs need not doubt each of them.

use std::collections::HashSet;

use super::Profile;

/// What does not fit together in a profile. It is the fault of the source that made the profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// There are samples or a default value, but no such value type.
    #[error("the default value type {index} is not one of the profile's {count} value types")]
    DefaultValue {
        /// The profile's `default_value`.
        index: usize,
        /// How many value types there are.
        count: usize,
    },
    /// Values are found by their kind, so no two may have the same.
    #[error("two value types are called {kind}")]
    SameKind {
        /// The name that occurs twice.
        kind: &'static str,
    },
    /// A sample must have one value per value type.
    #[error("sample {sample} has {values} values for {types} value types")]
    Values {
        /// The sample's index.
        sample: usize,
        /// How many values it has.
        values: usize,
        /// How many it should have.
        types: usize,
    },
    /// An index points past the end of its table.
    #[error("{what} {index} is not in the profile, which has {count}")]
    Index {
        /// `mapping`, `function` or `location`.
        what: &'static str,
        /// The index that was used.
        index: usize,
        /// How many entries the table has.
        count: usize,
    },
}

impl Profile {
    /// Checks that all indices point into their tables and that every sample has its values.
    ///
    /// # Errors
    ///
    /// [`Inconsistent`] names the first thing that does not fit.
    pub fn check(&self) -> Result<(), Inconsistent> {
        let types = self.value_types.len();
        if self.default_value >= types {
            return Err(Inconsistent::DefaultValue { index: self.default_value, count: types });
        }
        let mut kinds = HashSet::new();
        if let Some(twice) = self.value_types.iter().find(|value_type| !kinds.insert(value_type.kind)) {
            return Err(Inconsistent::SameKind { kind: twice.kind });
        }
        if let Some(main) = self.main_mapping {
            within("mapping", main, self.mappings.len())?;
        }
        for location in &self.locations {
            within("mapping", location.mapping, self.mappings.len())?;
            for line in &location.lines {
                within("function", line.function, self.functions.len())?;
            }
        }
        for (sample, entry) in self.samples.iter().enumerate() {
            if entry.values.len() != types {
                return Err(Inconsistent::Values { sample, values: entry.values.len(), types });
            }
            for &location in &entry.stack {
                within("location", location, self.locations.len())?;
            }
        }
        Ok(())
    }
}

fn within(what: &'static str, index: usize, count: usize) -> Result<(), Inconsistent> {
    if index < count { Ok(()) } else { Err(Inconsistent::Index { what, index, count }) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::profile::{Line, Location, Sample};

    fn heap() -> Profile {
        Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::ZERO)
    }

    #[test]
    fn an_empty_heap_profile_is_consistent() {
        assert_eq!(heap().check(), Ok(()));
    }

    #[test]
    fn every_index_is_checked() {
        let mut profile = heap();
        profile.samples.push(Sample {
            stack: vec![0],
            values: vec![0; 4],
            labels: vec![],
            ..Sample::default()
        });
        assert_eq!(profile.check(), Err(Inconsistent::Index { what: "location", index: 0, count: 0 }));

        let mut profile = heap();
        profile.locations.insert(Location { address: 1, mapping: 0, lines: vec![] });
        assert_eq!(profile.check(), Err(Inconsistent::Index { what: "mapping", index: 0, count: 0 }));

        let mut profile = heap();
        let mapping = profile.unknown_mapping();
        profile.locations.insert(Location {
            address: 1,
            mapping,
            lines: vec![Line { function: 7, line: 1 }],
        });
        assert_eq!(profile.check(), Err(Inconsistent::Index { what: "function", index: 7, count: 0 }));

        let mut profile = heap();
        profile.main_mapping = Some(3);
        assert_eq!(profile.check(), Err(Inconsistent::Index { what: "mapping", index: 3, count: 0 }));
    }

    #[test]
    fn values_and_value_types_are_checked() {
        let mut profile = heap();
        profile.samples.push(Sample { stack: vec![], values: vec![1], labels: vec![], ..Sample::default() });
        assert_eq!(profile.check(), Err(Inconsistent::Values { sample: 0, values: 1, types: 4 }));

        let mut profile = heap();
        profile.default_value = 4;
        assert_eq!(profile.check(), Err(Inconsistent::DefaultValue { index: 4, count: 4 }));

        let mut profile = heap();
        profile.value_types[1].kind = "inuse_space";
        assert_eq!(profile.check(), Err(Inconsistent::SameKind { kind: "inuse_space" }));
    }
}
