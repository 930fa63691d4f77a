//! Stacks with values, from whichever format they were read, and the books kept from them.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

use serde::Deserialize;

/// The four values of a stack, as Go's heap profile has them: counts of objects, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Values {
    /// Objects allocated while recording.
    pub alloc_objects: i64,
    /// Bytes allocated while recording.
    pub alloc_space: i64,
    /// Those objects that are still live.
    pub inuse_objects: i64,
    /// Bytes in them.
    pub inuse_space: i64,
}

/// What stacks without a site are booked to.
const ELSEWHERE: &str = "elsewhere";

/// Values by the name of the allocating function.
pub type Books = BTreeMap<String, Values>;

impl Values {
    /// `objects` objects of `bytes` each, all of them live.
    pub fn live(objects: i64, bytes: i64) -> Self {
        let space = objects * bytes;
        Self { alloc_objects: objects, alloc_space: space, inuse_objects: objects, inuse_space: space }
    }

    /// `objects` objects of `bytes` each, all of them freed again.
    pub fn freed(objects: i64, bytes: i64) -> Self {
        Self { inuse_objects: 0, inuse_space: 0, ..Self::live(objects, bytes) }
    }
}

impl AddAssign for Values {
    fn add_assign(&mut self, other: Self) {
        self.alloc_objects += other.alloc_objects;
        self.alloc_space += other.alloc_space;
        self.inuse_objects += other.inuse_objects;
        self.inuse_space += other.inuse_space;
    }
}

impl Sub for Values {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            alloc_objects: self.alloc_objects - other.alloc_objects,
            alloc_space: self.alloc_space - other.alloc_space,
            inuse_objects: self.inuse_objects - other.inuse_objects,
            inuse_space: self.inuse_space - other.inuse_space,
        }
    }
}

/// A function in a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Its demangled name; empty where none was found.
    pub function: String,
    /// The source file, or empty.
    pub file: String,
    /// The line being executed, or 0.
    pub line: i64,
    /// The instruction's address in the target.
    pub address: u64,
    /// The path of the mapping in which it is.
    pub mapping: String,
    /// Whether it was inlined into the next frame's function.
    pub inlined: bool,
}

impl Frame {
    /// The function's name without its parameters: `ops::by_new_array` of `ops::by_new_array(unsigned long)`.
    pub fn name(&self) -> &str {
        self.function.split('(').next().unwrap_or_default()
    }
}

/// A stack with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The direct caller of the allocator first.
    pub frames: Vec<Frame>,
    /// What was allocated there.
    pub values: Values,
}

impl Stack {
    /// The names of its functions, the leaf first.
    pub fn names(&self) -> Vec<&str> {
        self.frames.iter().map(Frame::name).collect()
    }
}

/// The stacks of one profile.
#[derive(Clone, Debug)]
pub struct Stacks(pub Vec<Stack>);

impl Stacks {
    /// The values by the leaf's function, of those leaves that lie in the file called `program`; what the
    /// libraries allocate for themselves is thus left out.
    pub fn books_of(&self, program: &str) -> Books {
        let mut books = Books::new();
        for stack in &self.0 {
            let leaf = stack.frames.first().unwrap_or_else(|| panic!("a stack has no frames: {stack:?}"));
            if leaf.mapping.rsplit('/').next() == Some(program) {
                *books.entry(leaf.name().to_owned()).or_default() += stack.values;
            }
        }
        books
    }

    /// The values of all stacks whose leaf is `function`.
    pub fn of(&self, function: &str) -> Values {
        let mut sum = Values::default();
        self.with_leaf(function).for_each(|stack| sum += stack.values);
        sum
    }

    /// The stacks whose leaf is `function`.
    pub fn with_leaf(&self, function: &str) -> impl Iterator<Item = &Stack> {
        self.0.iter().filter(move |stack| stack.frames.first().is_some_and(|leaf| leaf.name() == function))
    }

    /// The values of all stacks together.
    pub fn sum(&self) -> Values {
        let mut sum = Values::default();
        self.0.iter().for_each(|stack| sum += stack.values);
        sum
    }

    /// The values by site: the innermost function of a stack that is one of `sites`. What is above the leaf
    /// counts, because libraries may stand between a site and the allocator. Exceptions are objects of the C++
    /// library's own, wherever they are thrown.
    pub fn books_by_site(&self, sites: &Books) -> Books {
        let mut books = Books::new();
        for stack in &self.0 {
            let names = stack.names();
            let is_exception = names.contains(&"__cxa_allocate_exception");
            let site = names.into_iter().find(|name| sites.contains_key(*name) && !is_exception);
            *books.entry(site.unwrap_or(ELSEWHERE).to_owned()).or_default() += stack.values;
        }
        books
    }

    /// Asserts that what was allocated at the sites that `truth` knows is exactly the truth, to the byte.
    #[track_caller]
    pub fn assert_sites(&self, truth: &Books) {
        let mut books = self.books_by_site(truth);
        books.remove(ELSEWHERE);
        let wrong: Vec<_> = truth
            .iter()
            .map(|(site, true_values)| (site, books.remove(site).unwrap_or_default(), *true_values))
            .filter(|(_, values, truth)| values != truth)
            .map(|(site, values, truth)| format!("{site}:\n  profile {values:?}\n  truth   {truth:?}"))
            .collect();
        assert!(wrong.is_empty(), "the profile is not the truth at\n{}", wrong.join("\n"));
    }

    /// Asserts that `program`'s books are exactly `truth`, to the byte. Sites that allocated nothing need not
    /// appear; functions that are no sites must not.
    #[track_caller]
    pub fn assert_books(&self, program: &str, truth: &Books) {
        let mut truth = truth.clone();
        truth.retain(|_, values| *values != Values::default());
        let mut books = self.books_of(program);
        books.retain(|_, values| *values != Values::default());
        assert_eq!(books, truth, "the profile (left) is not the truth (right)");
    }
}

/// The line of JSON in which a fixture tells its truth.
pub fn truth(line: &str) -> Books {
    serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("the fixture's truth is no JSON ({error}): {line}"))
}

/// The truths in the lines `PID {...}` of `text`, in which the processes of a fixture each tell their own.
pub fn truths(text: &str) -> BTreeMap<u32, Books> {
    let line = |line: &str| {
        let (pid, books) = line.split_once(' ')?;
        Some((pid.parse().ok()?, truth(books)))
    };
    text.lines().filter_map(line).collect()
}
