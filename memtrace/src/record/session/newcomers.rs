//! Processes that come, and those that become others.

use std::collections::BTreeSet;

use super::Session;
use crate::{
    record::{Follow, SessionError, observed::Observed},
    target::{Target, TargetError},
};

impl Session {
    /// Whether a child that was recorded because it matched as its creator does, such as by the name that it has from it,
    /// has executed a program by which it does not match.
    pub(super) fn is_another_program(&mut self, pid: u32) -> bool {
        let Follow::Matching(selection) = &self.options.follow else { return false };
        self.processes.get_mut(pid).is_some_and(|process| {
            process.is_child && !process.has_ended() && selection.matches(pid).is_none()
        })
    }

    /// Records a process no more, which has executed another program at `time_ns`.
    pub(super) fn leave(&mut self, pid: u32, time_ns: u64) -> Result<(), SessionError> {
        self.engine.kernel.forget_live(pid, time_ns)?;
        if let Some(out) = &mut self.events_out {
            out.write_exec(pid, time_ns);
        }
        self.newcomers.unwanted += 1;
        Ok(self.processes.end(&mut self.engine, pid)?)
    }

    /// There is a new process, which is recorded if it is one that is meant. `time_ns` (nanoseconds of
    /// `CLOCK_MONOTONIC`) is when it began, and `comm` its name then.
    pub(super) fn newcomer(
        &mut self,
        pid: u32,
        parent: Option<u32>,
        time_ns: u64,
        comm: &str,
    ) -> Result<(), SessionError> {
        // An earlier process of the same number has ended.
        if self.processes.get_mut(pid).is_some_and(|process| process.has_ended()) {
            self.processes.end(&mut self.engine, pid)?;
            if parent.is_some() {
                self.engine.kernel.watch(pid, self.options.follow.watch(false))?;
            }
        }
        if self.processes.has_untaken(pid) {
            self.processes.take_books(&mut self.engine)?;
        }
        // The descendants of a launched command are stopped, as it is.
        let stops = parent.is_some() && !self.options.follow.waits() && self.is_launched();
        let labels = match &self.options.follow {
            Follow::Matching(selection) => selection.matches(pid).map(|selected| selected.labels),
            _ => Some(self.unselected.labels(pid)),
        };
        let Some(labels) = labels else {
            let has_ended =
                matches!(Target::open(pid), Err(TargetError::NotFound(_) | TargetError::Zombie(_)));
            match has_ended && self.is_meant_by_name(comm) {
                true => self.newcomers.missed += 1,
                false => self.newcomers.unseen += u64::from(has_ended),
            }
            if parent.is_some() {
                self.newcomers.unwanted += u64::from(!has_ended);
                self.engine.kernel.unwatch(pid)?;
                self.engine.kernel.take_books(&BTreeSet::from([pid]))?;
            }
            return Ok(());
        };
        if self.processes.get_mut(pid).is_some() {
            return Ok(());
        }
        let opened = Target::open(pid)
            .map_err(SessionError::from)
            .and_then(|target| Observed::open(&self.engine, target, labels, &self.options));
        let mut process = match opened {
            Ok(process) if stops => process.stopping(),
            Ok(process) => process,
            Err(error) => {
                tracing::info!(pid, "a new process cannot be followed: {:#}", anyhow::Error::from(error));
                self.newcomers.missed += 1;
                if parent.is_some() {
                    self.engine.kernel.unwatch(pid)?;
                    // What it has inherited.
                    self.engine.kernel.take_books(&BTreeSet::from([pid]))?;
                }
                if stops {
                    let_go(pid);
                }
                return Ok(());
            }
        };
        process.is_child = parent.is_some();
        self.engine.kernel.watch(pid, self.options.follow.watch(stops))?;
        process.begins(&mut self.engine, self.pauses.is_paused(), time_ns);
        self.add(process);
        Ok(())
    }

    /// Whether a process that was called so is one that is meant. If not, it may still be by another of its names.
    fn is_meant_by_name(&self, comm: &str) -> bool {
        let Follow::Matching(selection) = &self.options.follow else { return false };
        selection.criteria().only_name().is_some_and(|name| name.is_match(comm))
    }

    /// Looks for processes that match and were not noticed.
    pub(super) fn look_for_more(&mut self) {
        let Follow::Matching(selection) = &self.options.follow else { return };
        // Nothing matches any more: that is no error here.
        let Ok(found) = selection.processes() else { return };
        for selected in found.selected {
            if self.processes.get_mut(selected.pid).is_none() {
                let begun = Target::open(selected.pid)
                    .map_err(SessionError::from)
                    .and_then(|target| self.begin(target, selected.labels));
                if let Err(error) = begun {
                    tracing::info!("{:#}", anyhow::Error::from(error));
                    self.newcomers.missed += 1;
                }
            }
        }
    }
}

/// Lets a process go on that was stopped for memtrace's sake, and could not be opened.
pub(super) fn let_go(pid: u32) {
    // SAFETY: takes two numbers. Should the process have ended, and its number be another's by now, that one is told
    // to go on, which it does.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGCONT) };
}
