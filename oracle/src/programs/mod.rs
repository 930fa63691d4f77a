//! The programs: Debian's own, unmodified, each with a load that makes it do what it is for.

mod cc1plus;
mod git;
mod nginx;
mod postgres;
mod python;
mod redis;
mod service;
mod sqlite;

use std::path::Path;

use anyhow::Result;

use service::Service;

/// A program.
pub(crate) struct Program {
    /// Its name, as the command line and the table have it.
    pub(crate) name: &'static str,
    /// Mean number of bytes between two samples, so that there are thousands.
    pub(crate) interval: u64,
    /// Puts it under load, with files in this directory.
    pub(crate) start: fn(&Path) -> Result<Load>,
}

/// A program that is under load, or will be once it is started.
pub(crate) struct Load {
    pub(crate) traced: Traced,
    /// They end when this is dropped: the last one first.
    services: Vec<Service>,
}

/// What is to be recorded.
pub(crate) enum Traced {
    /// This process.
    Running(u32),
    /// This command, from its beginning.
    Command(Vec<String>),
}

impl Load {
    /// A command that is to be recorded from its beginning, with nothing beside it.
    pub(crate) fn command(command: Vec<String>) -> Self {
        Self { traced: Traced::Command(command), services: Vec::new() }
    }

    fn attach(pid: u32, services: Vec<Service>) -> Self {
        Self { traced: Traced::Running(pid), services }
    }

    fn launch(command: &[&str]) -> Self {
        Self::command(command.iter().map(|word| (*word).to_owned()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        while let Some(service) = self.services.pop() {
            drop(service);
        }
    }
}

/// All of them.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { name: "redis-server", interval: 4096, start: redis::start },
    Program { name: "nginx", interval: 8192, start: nginx::start },
    Program { name: "postgres", interval: 64, start: postgres::start },
    Program { name: "python3", interval: 32 << 10, start: python::start },
    Program { name: "sqlite3", interval: 8192, start: sqlite::start },
    Program { name: "cc1plus", interval: 2048, start: cc1plus::start },
    Program { name: "git", interval: 4096, start: git::start },
];
