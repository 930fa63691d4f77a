//! Debug information from a server, which may be slow, broken or a liar.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memtrace::symbolize::debuginfod::{Debuginfod, Settings};
use memtrace::symbolize::{Failure, Options, Resolution, Symbolizer};

use crate::debug_files::{build_id, split};
use crate::fixture::{Program, brief, resolve};

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    /// Sends a status and a body, with its length.
    Send(u16, Vec<u8>),
    /// Announces the whole body and sends so many bytes of it.
    Cut(Vec<u8>, usize),
    /// Sends so many bytes without having said how many there are.
    Unannounced(Vec<u8>, usize),
    /// Sends half of the body and then nothing more, without closing.
    Stall(Vec<u8>),
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server that replies to everything in the same way. Its thread ends with the tests.
    fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                seen.lock().unwrap().push(path(&stream));
                // A client that has given up is no error.
                let _ = send(&mut stream, &reply);
                if matches!(reply, Reply::Stall(_)) {
                    kept.push(stream);
                }
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn path(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    lines.find(String::is_empty).unwrap();
    path
}

fn send(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    let (status, body, length, sent) = match reply {
        Reply::Send(status, body) => (*status, body, Some(body.len()), body.len()),
        Reply::Cut(body, sent) => (200, body, Some(body.len()), *sent),
        Reply::Unannounced(body, sent) => (200, body, None, *sent),
        Reply::Stall(body) => (200, body, Some(body.len()), body.len() / 2),
    };
    let length = length.map_or(String::new(), |length| format!("Content-Length: {length}\r\n"));
    write!(stream, "HTTP/1.1 {status} Whatever\r\n{length}Connection: close\r\n\r\n")?;
    stream.write_all(&body[..sent])
}

/// A stripped program that runs, and its debug file.
struct Stripped {
    _directory: tempfile::TempDir,
    program: Program,
    id: String,
    debug: Vec<u8>,
    cache: tempfile::TempDir,
}

impl Stripped {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (program, debug) = split(directory.path(), &[]);
        let bytes = std::fs::read(&debug).unwrap();
        std::fs::remove_file(debug).unwrap();
        Self {
            id: build_id(&program),
            program: Program::start(&mut Command::new(program)),
            debug: bytes,
            cache: tempfile::tempdir().unwrap(),
            _directory: directory,
        }
    }

    fn settings(&self, urls: &[&str]) -> Settings {
        Settings {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            cache: self.cache.path().join("not/there/yet"),
            timeout: Duration::from_secs(300),
            max_time: Duration::from_secs(600),
            max_bytes: 1 << 30,
        }
    }

    fn cached(&self) -> PathBuf {
        self.settings(&[]).cache.join(&self.id).join("debuginfo")
    }

    /// The file names in the cache, at any depth.
    fn files(&self) -> Vec<PathBuf> {
        fn visit(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() { visit(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        visit(self.cache.path(), &mut found);
        found
    }

    /// The name of `hidden`, and the counts of failures and of what is missing.
    fn resolve(&self, settings: Settings) -> (Resolution, u64, u64) {
        let options = Options {
            debug_directories: vec![],
            debuginfod: Some(Arc::new(Debuginfod::new(settings))),
            ..Options::default()
        };
        let symbolizer = Symbolizer::start(options).unwrap();
        let frames = self.program.space().normalize(&[self.program.address("hidden")]);
        let resolution = resolve(&symbolizer, &frames[0]);
        let counts = symbolizer.counts();
        (resolution, counts.debuginfod_failures, counts.debuginfod_missing)
    }

    fn assert_named(&self, (resolution, failures, missing): (Resolution, u64, u64)) {
        let lines = resolution.unwrap();
        assert_eq!(brief(&lines), [("hidden", "split.c", self.program.marks["hidden"].1)]);
        assert_eq!((failures, missing), (0, 0));
        assert_eq!(self.files(), [self.cached()]);
        assert_eq!(std::fs::read(self.cached()).unwrap(), self.debug);
    }

    /// Nothing came of it: one failure, no name, nothing in the cache.
    fn assert_refused(&self, settings: Settings) {
        assert_eq!(self.resolve(settings), (Err(Failure::NoSymbols), 1, 0));
        assert_eq!(self.files(), Vec::<PathBuf>::new());
        assert!(!self.cached().parent().unwrap().exists(), "an empty directory was left");
    }
}

#[test]
fn a_debug_file_is_downloaded_once_and_kept() {
    let stripped = Stripped::start();
    let server = Server::start(Reply::Send(200, stripped.debug.clone()));
    for _ in 0..2 {
        stripped.assert_named(stripped.resolve(stripped.settings(&[&server.url])));
    }
    assert_eq!(server.requests(), [format!("/buildid/{}/debuginfo", stripped.id)]);
}

#[test]
fn servers_are_asked_in_their_order() {
    let stripped = Stripped::start();
    let none = Server::start(Reply::Send(404, b"not found".to_vec()));
    let good = Server::start(Reply::Send(200, stripped.debug.clone()));
    let last = Server::start(Reply::Send(200, stripped.debug.clone()));
    let settings = stripped.settings(&[&none.url, &good.url, &last.url]);
    stripped.assert_named(stripped.resolve(settings));
    let counts = [&none, &good, &last].map(|server| server.requests().len());
    assert_eq!(counts, [1, 1, 0]);
}

#[test]
fn a_server_that_fails_does_not_keep_the_next_from_being_asked() {
    let stripped = Stripped::start();
    let bad = Server::start(Reply::Send(500, vec![]));
    let good = Server::start(Reply::Send(200, stripped.debug.clone()));
    stripped.assert_named(stripped.resolve(stripped.settings(&[&bad.url, &good.url])));
}

#[test]
fn what_no_server_has_is_asked_for_once() {
    let stripped = Stripped::start();
    let server = Server::start(Reply::Send(404, vec![]));
    let servers = Arc::new(Debuginfod::new(stripped.settings(&[&server.url])));
    let options = Options {
        debug_directories: vec![],
        debuginfod: Some(Arc::clone(&servers)),
        // The symbolizer forgets what it knew of the file between the two.
        idle: Duration::from_millis(1),
        ..Options::default()
    };
    let symbolizer = Symbolizer::start(options).unwrap();
    for mark in ["hidden", "exported"] {
        let frames = stripped.program.space().normalize(&[stripped.program.address(mark)]);
        assert_eq!(resolve(&symbolizer, &frames[0]), Err(Failure::NoSymbols));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(server.requests().len(), 1);
    assert_eq!((servers.failures(), servers.missing()), (0, 1));
}

#[test]
fn nobody_is_asked_without_being_told_to() {
    let stripped = Stripped::start();
    let frames = stripped.program.space().normalize(&[stripped.program.address("hidden")]);
    assert!(Options::default().debuginfod.is_none());
    let options = Options { debug_directories: vec![], ..Options::default() };
    let resolution = resolve(&Symbolizer::start(options).unwrap(), &frames[0]);
    assert_eq!(resolution, Err(Failure::NoSymbols));
}

#[test]
fn answers_that_are_cut_off_are_refused() {
    let stripped = Stripped::start();
    let all = stripped.debug.len();
    for sent in [0, 10, all / 2, all - 1] {
        for reply in
            [Reply::Cut(stripped.debug.clone(), sent), Reply::Unannounced(stripped.debug.clone(), sent)]
        {
            stripped.assert_refused(stripped.settings(&[&Server::start(reply).url]));
        }
    }
    // The same, not cut off.
    let whole = Server::start(Reply::Unannounced(stripped.debug.clone(), all));
    stripped.assert_named(stripped.resolve(stripped.settings(&[&whole.url])));
}

#[test]
fn another_programs_debug_file_is_refused() {
    let stripped = Stripped::start();
    let other = tempfile::tempdir().unwrap();
    let (_, debug) = split(other.path(), &["-O2", "-DOTHER"]);
    let wrong = std::fs::read(debug).unwrap();
    for body in [wrong, b"<html>login</html>".to_vec(), vec![]] {
        stripped.assert_refused(stripped.settings(&[&Server::start(Reply::Send(200, body)).url]));
    }
}

#[test]
fn a_server_that_goes_silent_is_not_waited_for() {
    let stripped = Stripped::start();
    let server = Server::start(Reply::Stall(stripped.debug.clone()));
    let begun = Instant::now();
    let settings = Settings { timeout: Duration::from_millis(300), ..stripped.settings(&[&server.url]) };
    stripped.assert_refused(settings);
    let settings = Settings { max_time: Duration::from_millis(300), ..stripped.settings(&[&server.url]) };
    stripped.assert_refused(settings);
    assert!(begun.elapsed() < Duration::from_secs(150), "{:?}", begun.elapsed());
}

#[test]
fn large_files_are_refused() {
    let stripped = Stripped::start();
    let all = stripped.debug.len();
    for reply in [Reply::Send(200, stripped.debug.clone()), Reply::Unannounced(stripped.debug.clone(), all)] {
        let server = Server::start(reply);
        let settings = Settings { max_bytes: all as u64 - 1, ..stripped.settings(&[&server.url]) };
        stripped.assert_refused(settings);
        let settings = Settings { max_bytes: all as u64, ..stripped.settings(&[&server.url]) };
        stripped.assert_named(stripped.resolve(settings));
        std::fs::remove_dir_all(stripped.cached().parent().unwrap()).unwrap();
    }
}

#[test]
fn nobody_there() {
    let stripped = Stripped::start();
    // A port that nobody is given by chance, such as the server of another test.
    stripped.assert_refused(stripped.settings(&["http://127.0.0.1:1"]));
    // What a user has interrupted is not asked for at all.
    let server = Server::start(Reply::Send(200, stripped.debug.clone()));
    let servers = Arc::new(Debuginfod::new(stripped.settings(&[&server.url])));
    servers.cancel();
    let options =
        Options { debug_directories: vec![], debuginfod: Some(Arc::clone(&servers)), ..Options::default() };
    let frames = stripped.program.space().normalize(&[stripped.program.address("hidden")]);
    assert_eq!(resolve(&Symbolizer::start(options).unwrap(), &frames[0]), Err(Failure::NoSymbols));
    assert_eq!((server.requests().len(), servers.failures()), (0, 1));
}

#[test]
fn a_server_that_keeps_failing_is_given_up() {
    let stripped = Stripped::start();
    let directory = tempfile::tempdir().unwrap();
    let programs = [1, 2, 3].map(|number| {
        let place = directory.path().join(number.to_string());
        std::fs::create_dir(&place).unwrap();
        let (program, _) = split(&place, &[&format!("-Wl,--build-id=0x{number:040x}")]);
        Program::start(&mut Command::new(program))
    });
    let server = Server::start(Reply::Send(503, vec![]));
    let servers = Arc::new(Debuginfod::new(stripped.settings(&[&server.url])));
    let options =
        Options { debug_directories: vec![], debuginfod: Some(Arc::clone(&servers)), ..Options::default() };
    let symbolizer = Symbolizer::start(options).unwrap();
    for program in &programs {
        let frames = program.space().normalize(&[program.address("hidden")]);
        let _ = resolve(&symbolizer, &frames[0]);
    }
    assert_eq!((server.requests().len(), servers.failures()), (2, 3));
}

#[test]
fn a_damaged_or_empty_file_in_the_cache_is_replaced() {
    let stripped = Stripped::start();
    let server = Server::start(Reply::Send(200, stripped.debug.clone()));
    std::fs::create_dir_all(stripped.cached().parent().unwrap()).unwrap();
    // elfutils leaves an empty file where no server had one.
    for content in [&[][..], &stripped.debug[..1000]] {
        std::fs::write(stripped.cached(), content).unwrap();
        stripped.assert_named(stripped.resolve(stripped.settings(&[&server.url])));
    }
}
