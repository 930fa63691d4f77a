//! What was lost while a profile was taken: a name, a count, and what it means for the reader.

/// One way in which data was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A stable name in snake case, the same in the summary, in JSON and in the metrics.
    pub name: &'static str,
    /// How often it happened.
    pub count: u64,
    /// What follows for the reader and what to do about it: one sentence.
    pub meaning: &'static str,
}

/// The losses of one profile. Only those that happened are listed; empty means that nothing was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    entries: Vec<Loss>,
}

impl Losses {
    /// Adds `count` to the loss `name`; a count of 0 leaves no entry.
    pub fn add(&mut self, name: &'static str, count: u64, meaning: &'static str) {
        if count == 0 {
            return;
        }
        match self.entries.iter_mut().find(|loss| loss.name == name) {
            Some(loss) => loss.count += count,
            None => self.entries.push(Loss { name, count, meaning }),
        }
    }

    /// The losses in the order in which they were first added.
    pub fn iter(&self) -> impl Iterator<Item = &Loss> {
        self.entries.iter()
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
