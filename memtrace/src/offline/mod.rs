//! Names for a pprof profile that was recorded without, from files and debug files.
//!
//! Only what has no name is looked up, or has one but no line: everything else of the profile stays as it
//! is. Neither is an address named from a file that is not the one that was mapped, by its build-id.

mod strings;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::output::pprof::proto::{Function, Line, Mapping, Profile};
use crate::output::pprof::{loss_comment, system_name};
use crate::profile::Losses;
use crate::symbolize::{Failure, Files, Module, Modules, NamedLine, Query, Symbolizer};
use strings::Strings;

/// What was done to a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many addresses had no name, or no line, and lie in a file.
    pub asked: usize,
    /// How many of them have got one.
    pub named: usize,
    /// The files that were read, by their paths in the profile.
    pub files: Vec<String>,
    /// Those of them of which only the path says that they are the right ones: the profile has no build-id.
    pub unchecked: Vec<String>,
    /// What could not be found.
    pub losses: Losses,
}

/// The addresses of one mapping that are to be looked up.
struct Work {
    module: Arc<Module>,
    mapping: u64,
    /// Indices of locations, and the offsets in the file.
    places: Vec<(usize, u64)>,
}

/// Puts names into `profile`, which must be sound ([`decode`](crate::output::pprof::decode) checks that).
///
/// It takes as long as reading the files, and asking servers where that is wanted. Panics in an async context.
pub fn symbolize(profile: &mut Profile, files: &Files, symbolizer: &Symbolizer) -> Outcome {
    let mut outcome = Outcome::default();
    let modules = Modules::new();
    let work = plan(profile, files, &modules, &mut outcome);
    let query = |work: &Work| -> Query {
        (Arc::clone(&work.module), work.places.iter().map(|(_, offset)| *offset).collect())
    };
    let answers = symbolizer.resolve_blocking(work.iter().map(query).collect());
    let mut writer = Writer::new(profile);
    for (work, answers) in work.iter().zip(answers) {
        for ((index, _), answer) in work.places.iter().zip(answers) {
            match answer {
                Ok(lines) => outcome.named += usize::from(writer.set(*index, work.mapping, &lines)),
                // A name without a line is not lost because there is no line to be found.
                Err(_) if !writer.profile.location[*index].line.is_empty() => {}
                Err(failure) => failure.count(&mut outcome.losses, 1),
            }
        }
    }
    symbolizer.counts().add_to(&mut outcome.losses);
    writer.finish(&outcome.losses);
    outcome
}

/// Finds the files of all mappings that have something to be looked up.
fn plan(profile: &Profile, files: &Files, modules: &Modules, outcome: &mut Outcome) -> Vec<Work> {
    let mut incomplete = incomplete(profile);
    let mut work = Vec::new();
    for mapping in &profile.mapping {
        let path = profile.text(mapping.filename);
        let Some(locations) = incomplete.remove(&mapping.id) else { continue };
        if path.is_empty() || path.starts_with('[') {
            continue;
        }
        outcome.asked += locations.len();
        let place = |&index: &usize| Some((index, offset(mapping, profile.location[index].address)?));
        let places: Vec<_> = locations.iter().filter_map(place).collect();
        let nameless = |index: &&usize| profile.location[**index].line.is_empty();
        let nameless = locations.iter().filter(nameless).count() as u64;
        let build_id = profile.text(mapping.build_id);
        match files.find(Path::new(path), build_id, modules) {
            Ok(module) => {
                if !outcome.files.iter().any(|known| known == path) {
                    outcome.files.push(path.to_owned());
                    if build_id.is_empty() {
                        outcome.unchecked.push(path.to_owned());
                    }
                }
                // An address outside of its mapping is in no file.
                Failure::NoSymbols.count(&mut outcome.losses, (locations.len() - places.len()) as u64);
                work.push(Work { module, mapping: mapping.id, places });
            }
            Err(failure) => failure.count(&mut outcome.losses, nameless),
        }
    }
    work
}

/// The locations of which something can be found out, by their mapping: they have no name, or neither file
/// nor line.
fn incomplete(profile: &Profile) -> HashMap<u64, Vec<usize>> {
    let with_file = profile.function.iter().filter(|function| !profile.text(function.filename).is_empty());
    let with_file: HashSet<u64> = with_file.map(|function| function.id).collect();
    let mut found: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, location) in profile.location.iter().enumerate() {
        if location.line.iter().all(|line| line.line == 0 && !with_file.contains(&line.function_id)) {
            found.entry(location.mapping_id).or_default().push(index);
        }
    }
    found
}

/// The offset in the mapped file of an address.
fn offset(mapping: &Mapping, address: u64) -> Option<u64> {
    let within = (mapping.memory_start..mapping.memory_limit).contains(&address);
    within.then(|| mapping.file_offset.checked_add(address - mapping.memory_start))?
}

/// Adds functions and lines to a profile.
struct Writer<'a> {
    profile: &'a mut Profile,
    strings: Strings,
    functions: HashMap<(i64, i64, i64, i64), u64>,
    next_function: u64,
}

impl<'a> Writer<'a> {
    fn new(profile: &'a mut Profile) -> Self {
        let strings = Strings::of(&profile.string_table);
        let functions = profile.function.iter().map(|it| (key(it), it.id)).collect();
        // Readers may take an id for a position, so new ones go on behind the largest.
        let next_function = profile.function.iter().map(|it| it.id).max().unwrap_or(0).saturating_add(1);
        Self { profile, strings, functions, next_function }
    }

    /// Gives `lines` to a location, unless it has a name and they say no more. Returns whether it did.
    fn set(&mut self, location: usize, mapping: u64, lines: &[NamedLine]) -> bool {
        let has_lines = lines.iter().any(|line| line.line != 0 || !line.file.is_empty());
        if !self.profile.location[location].line.is_empty() && !has_lines {
            return false;
        }
        let named = lines.iter().map(|line| self.line(line)).collect();
        self.profile.location[location].line = named;
        if let Some(mapping) = self.profile.mapping.iter_mut().find(|it| it.id == mapping) {
            mapping.has_functions = true;
            mapping.has_filenames |= lines.iter().any(|line| !line.file.is_empty());
            mapping.has_line_numbers |= lines.iter().any(|line| line.line != 0);
            mapping.has_inline_frames |= lines.len() > 1;
        }
        true
    }

    fn line(&mut self, line: &NamedLine) -> Line {
        let mut function = Function {
            id: self.next_function,
            name: self.strings.index(&line.name),
            system_name: self.strings.index(system_name(&line.name, &line.system_name)),
            filename: self.strings.index(&line.file),
            start_line: line.start_line.into(),
        };
        function.id = *self.functions.entry(key(&function)).or_insert(function.id);
        if function.id == self.next_function {
            self.profile.function.push(function);
            self.next_function += 1;
        }
        Line { function_id: function.id, line: line.line.into(), column: 0 }
    }

    /// Writes the texts back, and the losses in place of those of an earlier attempt.
    fn finish(mut self, losses: &Losses) {
        let attempted: Vec<String> =
            Failure::OF_FILES.iter().map(|failure| format!("loss: {} ", failure.loss().0)).collect();
        let table = &self.profile.string_table;
        let is_old = |comment: &i64| {
            let text = usize::try_from(*comment).ok().and_then(|index| table.get(index));
            text.is_some_and(|text| attempted.iter().any(|loss| text.starts_with(loss)))
        };
        let mut comments: Vec<i64> =
            self.profile.comment.iter().copied().filter(|comment| !is_old(comment)).collect();
        comments.extend(losses.iter().map(|loss| self.strings.index(&loss_comment(loss))));
        self.profile.comment = comments;
        self.profile.string_table.extend(self.strings.into_new());
    }
}

fn key(function: &Function) -> (i64, i64, i64, i64) {
    (function.name, function.system_name, function.filename, function.start_line)
}

#[cfg(test)]
mod tests;
