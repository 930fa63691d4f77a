//! The real `/proc`.

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use regex::Regex;

use super::super::{Criteria, Selection};

/// A process that waits; killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    /// A `cat` that waits for its standard input to end, and has copied a byte: a process that is still executing its
    /// program has the new name before it has the new arguments.
    fn start(cat: &mut Command) -> Self {
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
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
        // Children of other tests have the socket, too, and this one cannot be seen, until they execute their programs.
        let selection = Selection::new(criteria);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = selection.processes();
            let pids: Vec<u32> =
                found.iter().flat_map(|found| &found.selected).map(|process| process.pid).collect();
            assert!(!pids.contains(&std::process::id()), "{pids:?}");
            if pids.contains(&child.0.id()) {
                break;
            }
            assert!(Instant::now() < deadline, "{found:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_process_of_another_name_than_its_file() {
    let dir = tempfile::tempdir().unwrap();
    // Another run of the tests may have one, too.
    let end = format!("renamed-{}", std::process::id());
    let program = dir.path().join(format!("memtrace-{end}"));
    std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
    let sleeper = Sleeper::start(&mut Command::new(&program));
    let pid = sleeper.0.id();
    // The name in the kernel is cut; the first argument is not.
    let name = Some(Regex::new(&format!("{end}$")).unwrap());
    let criteria = Criteria { name, ..Criteria::default() };
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
