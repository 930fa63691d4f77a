//! The string table: each text once, the empty one first.

use std::borrow::Cow;

use indexmap::IndexSet;

/// Collects texts and hands out their indices.
pub(super) struct Strings<'a> {
    texts: IndexSet<Cow<'a, str>>,
}

impl<'a> Strings<'a> {
    /// A table that holds the empty text only: the format wants it at index 0.
    pub(super) fn new() -> Self {
        Self { texts: IndexSet::from([Cow::Borrowed("")]) }
    }

    /// The index of `text`, which is added if it is new.
    pub(super) fn index(&mut self, text: impl Into<Cow<'a, str>>) -> i64 {
        // No more texts than bytes of memory, so the index is in range of i64.
        self.texts.insert_full(text.into()).0 as i64
    }

    /// The table, in the order of indices.
    pub(super) fn into_table(self) -> Vec<String> {
        self.texts.into_iter().map(Cow::into_owned).collect()
    }
}
