//! A string table that grows: what refers to it stays valid.

use std::collections::HashMap;

/// The texts of a profile and those that are new.
#[derive(Debug)]
pub(super) struct Strings {
    known: HashMap<String, i64>,
    old: usize,
    new: Vec<String>,
}

impl Strings {
    pub(super) fn of(table: &[String]) -> Self {
        // Of a text that is there twice the first counts.
        let known = table.iter().enumerate().rev().map(|(index, text)| (text.clone(), index as i64));
        Self { known: known.collect(), old: table.len(), new: Vec::new() }
    }

    /// The index of `text`, which is added if it is new.
    pub(super) fn index(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        let index = (self.old + self.new.len()) as i64;
        self.known.insert(text.to_owned(), index);
        self.new.push(text.to_owned());
        index
    }

    /// What has to be added to the table.
    pub(super) fn into_new(self) -> Vec<String> {
        self.new
    }
}
