//! The real `/proc`.

use std::{
    net::{TcpListener, UdpSocket},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use regex::Regex;

use super::super::{Criteria, Selection};
use crate::target::Target;

/// A process that waits; killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    /// One that waits for its standard input to end.
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pids(criteria: Criteria) -> Vec<u32> {
    let found = Selection::new(criteria).processes().unwrap();
    found.selected.iter().map(|process| process.pid).collect()
}

/// This process listens, but never matches; its child has the socket from it.
#[test]
fn a_child_that_was_given_a_listener() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets = [
        (tcp.local_addr().unwrap().port(), OwnedFd::from(tcp)),
        (udp.local_addr().unwrap().port(), OwnedFd::from(udp)),
    ];
    for (port, socket) in sockets {
        let criteria = Criteria { port: Some(port), ..Criteria::default() };
        let child = Sleeper(Command::new("sleep").arg("1000").stdin(socket).spawn().unwrap());
        // A child of another test has the socket, too, until it executes its program.
        let pids = pids(criteria);
        assert!(pids.contains(&child.0.id()) && !pids.contains(&std::process::id()), "{pids:?}");
    }
}

#[test]
fn a_process_of_another_name_than_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("memtrace-renamed-program");
    std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
    let sleeper = Sleeper::start(&mut Command::new(&program));
    let pid = sleeper.0.id();
    // The name in the kernel is cut; the first argument is not.
    let name = Some(Regex::new("renamed-program$").unwrap());
    let criteria = Criteria { name, ..Criteria::default() };
    // The child may not have executed the program yet.
    while Target::open(pid).unwrap().comm != "memtrace-rename" {
        std::thread::yield_now();
    }
    assert_eq!(pids(criteria.clone()), [pid]);
    let selection = Selection::new(criteria);
    assert_eq!(selection.matches(pid).unwrap().labels.comm, "memtrace-rename");
    drop(sleeper);
    assert_eq!(selection.matches(pid), None);
}

#[test]
fn everything_but_this_process() {
    let sleeper = Sleeper::start(&mut Command::new("cat"));
    let all = pids(Criteria { all: true, ..Criteria::default() });
    assert!(all.contains(&sleeper.0.id()));
    assert!(!all.contains(&std::process::id()));
}

#[test]
fn the_id_of_a_thread_means_its_process() {
    // Tests run in threads of their own: `PID/task/TID`.
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    let thread: u32 = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert_ne!(thread, std::process::id());
    let selection = Selection::new(Criteria { pids: vec![thread], ..Criteria::default() });
    assert_eq!(selection.criteria().pids, [std::process::id()]);
}
