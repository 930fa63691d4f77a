use std::{
    io::Read,
    sync::mpsc::{Sender, channel},
};

use memtrace_common::{Block, sampling};

use super::*;

fn change(address: u64, freed: bool) -> BlockChange {
    let block = Block {
        stack_id: 0xabc,
        size: 100,
        objects: sampling::OBJECT_UNIT * 3 / 2,
        bytes: 100 * sampling::BYTE_UNIT * 3 / 2,
        time_ns: 5000,
        tid: 8,
        present: 1,
    };
    BlockChange { pid: 7, tid: 9, time_ns: 6500, address, block, freed }
}

fn written(write: impl FnOnce(EventWriter) -> io::Result<()>) -> String {
    let (mut reader, writer) = io::pipe().unwrap();
    write(EventWriter::start(writer, 512).unwrap()).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_line_is_as_documented() {
    let text = written(|mut events| {
        events.write(&change(0x7f00_0000_1234, false));
        events.write(&change(0x7f00_0000_1234, true));
        events.write_exec(7, 7000);
        let frame = |name: &str, place: &str| StackFrame { name: name.to_owned(), place: place.to_owned() };
        let frames = vec![frame("leaf\"\n", "/src/a.c:3"), frame("libc.so.6+0x27249", "")];
        let mut losses = Losses::default();
        losses.add("events_lost", 2, "gone");
        events.finish([(0xabc, frames)].into_iter(), 9000, losses)
    });
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        format!(
            r#"{{"event":"begin","schema":"memtrace-events/1","memtrace":"{version}","sample_interval":512}}"#
        ),
        r#"{"event":"alloc","time_ns":5000,"pid":7,"tid":9,"address":"0x7f0000001234","stack":"0000000000000abc","size":100,"weight":1.5}"#.to_owned(),
        r#"{"event":"free","time_ns":6500,"pid":7,"tid":9,"address":"0x7f0000001234","stack":"0000000000000abc","size":100,"weight":1.5,"age_ns":1500,"allocated_by":8}"#.to_owned(),
        r#"{"event":"exec","time_ns":7000,"pid":7}"#.to_owned(),
        r#"{"event":"stack","stack":"0000000000000abc","frames":["leaf\"\n","libc.so.6+0x27249"],"places":["/src/a.c:3",""]}"#.to_owned(),
        r#"{"event":"end","time_ns":9000,"losses":[{"name":"events_lost","count":2,"meaning":"gone"}]}"#.to_owned(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// Takes nothing until it is told to.
struct Stuck {
    go: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.go.recv();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stuck() -> (Stuck, Sender<()>) {
    let (sender, go) = channel();
    (Stuck { go }, sender)
}

#[test]
fn whoever_reports_events_never_waits_for_the_disk() {
    let (out, go) = stuck();
    let mut events = EventWriter::with_queue(out, 1, 10).unwrap();
    let begun = Instant::now();
    for address in 0..1000 {
        events.write(&change(address, false));
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    // It hangs in the first line, so all but what the queue holds is dropped.
    assert_eq!(events.dropped(), 990);
    drop(go);
    events.finish([].into_iter(), 0, Losses::default()).unwrap();
}

#[test]
fn a_full_disk_is_reported_at_the_end_and_nobody_waits() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut events = EventWriter::with_queue(Full, 1, 10).unwrap();
    while !events.thread.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for address in 0..1000 {
        events.write(&change(address, false));
    }
    assert_eq!(events.dropped(), 0, "what comes after the failure is not counted beside it");
    let stacks = (0..100).map(|id| (id, Vec::new()));
    let error = events.finish(stacks, 0, Losses::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn lines_can_be_read_while_the_recording_goes_on() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut events = EventWriter::start(writer, 1).unwrap();
    events.write(&change(0x10, false));
    let mut text = String::new();
    let mut buffer = [0; 1000];
    while !text.contains("0x10") {
        let count = reader.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    events.finish([].into_iter(), 0, Losses::default()).unwrap();
}
