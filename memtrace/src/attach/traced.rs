//! The functions that have had probes, of all processes.

use procfs::process::Process;

use crate::{
    allocator::{Binding, Bindings, Discovered},
    kernel::{Kernel, LoadError},
    symbolize::AddressSpace,
};

/// A function that has, or has had, a probe.
#[derive(Clone, Debug)]
pub struct TracedFunction {
    /// The function; its probe carries the number under which its calls are counted.
    pub found: Discovered,
    /// Whether it is the one that is called by its name, where somebody wants to know.
    pub binding: Option<Binding>,
}

impl TracedFunction {
    /// Where it is, why it has a probe, where that sits, and how often it was called: one line.
    pub fn text(&self, calls: u64) -> String {
        let because = self.binding.as_ref().map_or(String::new(), |binding| format!(", {}", binding.text()));
        format!("{}{because}; {}; {calls} calls seen", self.found.title(), self.found.site_text())
    }
}

/// All functions that have had probes. A function has one number, however many processes map its file, and keeps it when
/// its probe is taken off and set again.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    functions: Vec<TracedFunction>,
}

impl Traced {
    /// Gives numbers to those functions that have none, for the probes that are about to be set.
    ///
    /// # Errors
    /// When the kernel refuses to be told where a probe has its arguments.
    pub fn number(&mut self, kernel: &mut Kernel, functions: &mut [Discovered]) -> Result<(), LoadError> {
        for found in functions {
            let known = self.functions.iter().find(|known| known.found.place() == found.place());
            if let Some(known) = known {
                found.probe.function = known.found.probe.function;
                found.probe.places = known.found.probe.places;
                continue;
            }
            if let Some(usdt) = &found.usdt {
                found.probe.places = kernel.number_places(&usdt.places)?;
            }
            found.probe.function = kernel.number_function(found.probe.kind.frees());
            self.functions.push(TracedFunction { found: found.clone(), binding: None });
        }
        Ok(())
    }

    /// Finds out which of the functions are the ones that are called by their names. It reads the symbols of all files,
    /// so it is done for those alone who will read it.
    pub fn bind(&mut self, space: &AddressSpace, process: Option<&Process>) {
        let mut unbound = self.functions.iter_mut().filter(|function| function.binding.is_none()).peekable();
        if unbound.peek().is_some() {
            let bindings = Bindings::new(space, process);
            unbound.for_each(|function| function.binding = Some(bindings.of(&function.found)));
        }
    }

    /// The functions.
    pub fn functions(&self) -> &[TracedFunction] {
        &self.functions
    }
}
