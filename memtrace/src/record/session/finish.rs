//! The end of a recording.

use super::{Session, newcomers::let_go};
use crate::{
    allocator::Custom,
    collect::Event,
    record::{Process, Recording, SessionError, engine::Engine},
    target::Launched,
};

impl Session {
    /// A function that was asked for by name, and that no process has.
    pub(super) fn missing_function(&self) -> Option<Custom> {
        let mut missing = self.processes.all().map(|process| process.discovery.missing().cloned());
        let mut everywhere: Vec<_> = missing.next()?.collect();
        for in_process in missing {
            let in_process: Vec<_> = in_process.collect();
            everywhere.retain(|function| in_process.contains(function));
        }
        everywhere.into_iter().next()
    }

    /// Closes the books and takes all probes off. Returns what was recorded, and the launched process.
    ///
    /// # Errors
    /// When the kernel refuses a read, or nothing was recorded because no process has a known allocator.
    pub fn finish(mut self) -> Result<(Recording, Option<Launched>), SessionError> {
        self.close_books()?;
        // A `realloc` that was under way when the books were closed still takes its old block off at its
        // return, so the tables are read when no probe is left.
        for process in self.processes.living_mut() {
            process.take_probes_off(&self.engine);
        }
        self.engine.remover.finish();
        let stops = self.is_launched();
        let is_wanted = |event: &Option<Event>| match event {
            Some(Event::ImageChanged { tgid, .. } | Event::Newcomer { tgid, .. }) => {
                // It is stopped, and nobody looks at it any more.
                if stops {
                    let_go(*tgid);
                }
                false
            }
            _ => true,
        };
        self.drain(is_wanted)?;
        let counters = self.engine.kernel.counters()?;
        if let Some(launched) = self.launched() {
            launched.executed()?;
        }
        if !self.has_allocator()
            && counters.allocation_calls() == 0
            && let Some(process) = self.processes.all().find(|process| process.target.pid == self.first.pid)
        {
            return Err(process.no_allocator());
        }
        if let Some(missing) = self.missing_function() {
            tracing::warn!("no file {} with a function {} was loaded", missing.library, missing.symbol);
        }
        if self.processes.all().all(|process| process.discovery.misses_python()) {
            tracing::warn!(
                "no PyObject_Malloc was found for --python-objects: no process is a CPython with its symbols"
            );
        }
        let Engine { kernel, unwinder, traced, .. } = self.engine;
        let calls = kernel.calls()?;
        let functions = traced.functions().iter().map(|function| {
            let calls = calls.get(usize::from(function.found.probe.function)).copied();
            (function.clone(), calls.unwrap_or_default())
        });
        let mut books = kernel.books()?;
        let (mut all, without_samples) = self.processes.into_all();
        let launched = all.iter_mut().find_map(|process| process.launched.take());
        let processes = all.into_iter().map(|mut process| {
            let books = process.books.take().or_else(|| books.remove(&process.target.pid));
            Process::new(process, books.unwrap_or_default())
        });
        let recording = Recording {
            time: self.begun.0,
            duration: self.ended.unwrap_or_default(),
            processes: processes.collect(),
            without_samples,
            functions: functions.collect(),
            unseen_growth: self.silence.growth(),
            // In the mode `perf` the kernel runs the programs for all processes that share the memory, such as a
            // child between vfork and exec. What is left are these, and what has no stack of any process.
            without_stack: books.remove(&0).unwrap_or_default().totals,
            newcomers: self.newcomers,
            calls_cut_off: kernel.calls_cut_off(),
            prices: kernel.prices(),
            pauses: self.pauses.sum(),
            last_pause_ns: self.pauses.last_end_ns(),
            counters,
            events: self.events_out,
            unknown_events: self.unknown_events,
            unwind: unwinder.stats(),
        };
        recording.function_lines().iter().for_each(|line| tracing::info!("{line}"));
        Ok((recording, launched))
    }
}
