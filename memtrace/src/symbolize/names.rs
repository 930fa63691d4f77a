//! Names of frames, each found once, and profiles made of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::address_space::AddressSpace;
use super::failure::Failure;
use super::frame::{Frame, Region};
use super::generated::{Generated, Refusal};
use super::module::ModuleId;
use super::worker::{NamedLine, Query, Resolution, Symbolizer};
use crate::profile::{Function, Line, Location, Losses, Mapping, Profile, Sample};
use crate::python::PythonPlace;

/// The made-up mapping of [`Frame::Pseudo`].
pub const PSEUDO_MAPPING: &str = "[memtrace]";

/// The made-up mapping of [`Frame::Python`].
pub const PYTHON_MAPPING: &str = "[python]";

/// The made-up mapping of addresses that are in none.
pub const UNKNOWN_MAPPING: &str = "[unknown]";

/// What is known of frames, by module and offset: it grows with the number of distinct code addresses,
/// not with stacks, samples or processes.
#[derive(Debug)]
pub struct Names {
    symbolizer: Option<Symbolizer>,
    known: HashMap<(ModuleId, u64), Resolution>,
    /// The generated code in which frames were, each process's once.
    generated: Vec<Arc<Generated>>,
}

impl Names {
    /// Names that come from `symbolizer`.
    pub fn new(symbolizer: Symbolizer) -> Self {
        Self { symbolizer: Some(symbolizer), known: HashMap::new(), generated: Vec::new() }
    }

    /// No names: profiles get addresses, mappings and build-ids, to be symbolized later.
    pub fn off() -> Self {
        Self { symbolizer: None, known: HashMap::new(), generated: Vec::new() }
    }

    /// Finds the names of those frames that were not seen before.
    ///
    /// Best called with a new stack as soon as it is known: then the work is spread over the recording.
    pub async fn resolve<'a>(&mut self, frames: impl IntoIterator<Item = &'a Frame>) {
        let (queries, Some(symbolizer)) = (self.unknown(frames), &self.symbolizer) else { return };
        if !queries.is_empty() {
            let answers = symbolizer.resolve(queries.clone()).await;
            self.learn(queries, answers);
        }
    }

    /// The same for callers that are not async.
    pub fn resolve_blocking<'a>(&mut self, frames: impl IntoIterator<Item = &'a Frame>) {
        let (queries, Some(symbolizer)) = (self.unknown(frames), &self.symbolizer) else { return };
        if !queries.is_empty() {
            let answers = symbolizer.resolve_blocking(queries.clone());
            self.learn(queries, answers);
        }
    }

    /// Starts to put stacks into `profile`.
    pub fn interner<'a>(&'a self, profile: &'a mut Profile) -> Interner<'a> {
        Interner { names: self, profile, seen: HashMap::new() }
    }

    /// Adds what was lost beside single frames, which [`Interner`] counts.
    pub fn add_losses(&self, losses: &mut Losses) {
        self.symbolizer.as_ref().map(Symbolizer::counts).unwrap_or_default().add_to(losses);
        let maps = || self.generated.iter().map(|generated| generated.unusable());
        let refused = |refusal| maps().filter(|map| map.refusal == Some(refusal)).count() as u64;
        losses.add(
            "perf_map_untrusted",
            refused(Refusal::Untrusted),
            "files /tmp/perf-PID.map belong neither to the process's user nor to root, or are no regular files, so the names of generated code in them are not used",
        );
        losses.add(
            "perf_map_too_large",
            refused(Refusal::TooLarge),
            "files /tmp/perf-PID.map are larger than memtrace reads (64 MiB); names of generated code may be missing",
        );
        losses.add(
            "perf_map_lines_invalid",
            maps().map(|map| map.bad_lines + map.dropped).sum(),
            "lines of a file /tmp/perf-PID.map are not valid or too many; names of generated code may be missing",
        );
    }

    /// What has to be asked for, by module.
    fn unknown<'a>(&mut self, frames: impl IntoIterator<Item = &'a Frame>) -> Vec<Query> {
        let mut queries: IndexMap<ModuleId, Query> = IndexMap::new();
        let mut asked = HashSet::new();
        for frame in frames {
            if let Frame::Code { region: Some(region), .. } = frame
                && let Some(generated) = region.generated()
                && !self.generated.iter().any(|known| Arc::ptr_eq(known, generated))
            {
                self.generated.push(Arc::clone(generated));
            }
            let Some((module, offset)) = frame.place() else { continue };
            let key = (module.id(), offset);
            if !self.known.contains_key(&key) && asked.insert(key) {
                queries.entry(module.id()).or_insert_with(|| (module.clone(), Vec::new())).1.push(offset);
            }
        }
        queries.into_values().collect()
    }

    fn learn(&mut self, queries: Vec<Query>, answers: Vec<Vec<Resolution>>) {
        for ((module, offsets), answers) in queries.into_iter().zip(answers) {
            for (offset, answer) in offsets.into_iter().zip(answers) {
                self.known.insert((module.id(), offset), answer);
            }
        }
    }
}

/// Puts stacks into one profile. What has no name is counted in the profile's losses, each distinct
/// address once.
#[derive(Debug)]
pub struct Interner<'a> {
    names: &'a Names,
    profile: &'a mut Profile,
    /// Locations by region and address; 0 stands for no region, see [`Frame`].
    seen: HashMap<(Option<u64>, u64), usize>,
}

impl<'a> Interner<'a> {
    /// Puts the mapping of the process's executable into the profile. pprof takes the first mapping
    /// for the program, so this comes before any stack; later it has no effect on the order.
    pub fn add_main(&mut self, space: &AddressSpace) {
        if let Some(region) = space.main() {
            self.profile.mappings.insert(region.to_mapping());
        }
    }

    /// The locations of a stack, for [`Sample::stack`]. Frames that were never given to
    /// [`Names::resolve`] get an address and no name.
    pub fn intern(&mut self, frames: &[Frame]) -> Vec<usize> {
        frames.iter().map(|frame| self.location(frame)).collect()
    }

    /// Adds a sample of this stack.
    pub fn add_sample(&mut self, frames: &[Frame], values: Vec<i64>, labels: Vec<(String, String)>) {
        let stack = self.intern(frames);
        self.profile.samples.push(Sample { stack, values, labels, ..Sample::default() });
    }

    /// Adds a sample of this stack whose other parts are given.
    pub fn add(&mut self, frames: &[Frame], mut sample: Sample) {
        sample.stack = self.intern(frames);
        self.profile.samples.push(sample);
    }

    fn location(&mut self, frame: &Frame) -> usize {
        let (address, region) = match frame {
            Frame::Code { address, region } => (*address, region.as_deref()),
            Frame::Python(place) => return self.python(place),
            Frame::Pseudo(name) => return self.pseudo(name),
        };
        let key = (region.map(Region::id), address);
        if let Some(&location) = self.seen.get(&key) {
            return location;
        }
        let mapping = region.map_or_else(|| named_mapping(UNKNOWN_MAPPING), Region::to_mapping);
        let name = mapping.path.clone();
        let mapping = self.profile.mappings.insert_full(mapping).0;
        // Generated code is named also where names are not asked for: nobody could find them later.
        let generated = region.and_then(|region| region.generated_name(address));
        let lines = match (self.resolution(frame), generated) {
            (Some(Ok(lines)), _) => lines.iter().map(|line| self.line(line)).collect(),
            (_, Some(name)) => vec![self.remark(&name)],
            (Some(Err(_)), None) if is_kernel_page(&name) => vec![self.remark(&name)],
            (Some(Err(failure)), None) => {
                failure.count(&mut self.profile.losses, 1);
                Vec::new()
            }
            (None, None) => Vec::new(),
        };
        let location = self.profile.locations.insert_full(Location { address, mapping, lines }).0;
        self.seen.insert(key, location);
        location
    }

    /// What is known of a frame; `None` if nobody asked.
    fn resolution(&self, frame: &Frame) -> Option<&'a Resolution> {
        match frame.key() {
            Ok(key) => self.names.known.get(&key),
            Err(_) => Some(const { &Err(Failure::Unmapped) }),
        }
    }

    /// A place in Python code has no address of its own: what it is, its file and its line tell.
    fn python(&mut self, place: &PythonPlace) -> usize {
        let mapping = self.profile.mappings.insert_full(named_mapping(PYTHON_MAPPING)).0;
        let function = Function {
            name: place.function.name.clone(),
            system_name: place.function.name.clone(),
            file: place.function.file.clone(),
            start_line: place.function.first_line,
        };
        let function = self.profile.functions.insert_full(function).0;
        let lines = vec![Line { function, line: place.line }];
        self.profile.locations.insert_full(Location { address: 0, mapping, lines }).0
    }

    fn pseudo(&mut self, name: &str) -> usize {
        let mapping = self.profile.mappings.insert_full(named_mapping(PSEUDO_MAPPING)).0;
        let lines = vec![self.remark(name)];
        self.profile.locations.insert_full(Location { address: 0, mapping, lines }).0
    }

    fn line(&mut self, line: &NamedLine) -> Line {
        let function = Function {
            name: line.name.clone(),
            system_name: line.system_name.clone(),
            file: line.file.clone(),
            start_line: line.start_line,
        };
        Line { function: self.profile.functions.insert_full(function).0, line: line.line }
    }

    /// A function that is only a name.
    fn remark(&mut self, name: &str) -> Line {
        let function =
            Function { name: name.to_owned(), system_name: name.to_owned(), ..Function::default() };
        Line { function: self.profile.functions.insert_full(function).0, line: 0 }
    }
}

fn named_mapping(name: &str) -> Mapping {
    Mapping { path: name.to_owned(), ..Mapping::default() }
}

/// Code that the kernel maps into every process: its name is as good as a function's.
fn is_kernel_page(name: &str) -> bool {
    matches!(name, "[vdso]" | "[vsyscall]" | "[uprobes]")
}
