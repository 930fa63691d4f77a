//! Events go in, and what comes out is known.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::report::SummaryOptions;

const BEGIN: &str =
    r#"{"event":"begin","schema":"memtrace-events/1","memtrace":"0.1.0","sample_interval":1}"#;
const END: &str = r#"{"event":"end","time_ns":9000000000,"losses":[]}"#;

fn line(event: &str, rest: &str, time: u64, tid: u32, address: u64, stack: u64, size: u64) -> String {
    format!(
        r#"{{"event":"{event}","time_ns":{time},"pid":7,"tid":{tid},"address":"{address:#x}","stack":"{stack:016x}","size":{size},"weight":1.0{rest}}}"#
    )
}

fn alloc(time: u64, tid: u32, address: u64, stack: u64, size: u64) -> String {
    line("alloc", "", time, tid, address, stack, size)
}

fn free(time: u64, tid: u32, address: u64, stack: u64, size: u64, age: u64) -> String {
    let rest = format!(r#","age_ns":{age},"allocated_by":1"#);
    line("free", &rest, time, tid, address, stack, size)
}

fn named(stack: u64, frames: &str) -> String {
    format!(r#"{{"event":"stack","stack":"{stack:016x}",{frames}}}"#)
}

fn read_with(lines: &[String], options: &Options) -> Lifetimes {
    let whole = [&[BEGIN.to_owned()], lines, &[END.to_owned(), String::new()]].concat().join("\n");
    read(whole.as_bytes(), options).unwrap()
}

fn read_lines(lines: &[String]) -> Lifetimes {
    read_with(lines, &Options::default())
}

/// Objects allocated, freed, live, gone.
fn books(sums: &Sums) -> [i128; 4] {
    [sums.allocated, sums.freed, sums.live(), sums.gone].map(|amount| amount.objects())
}

/// Objects that were temporary, because short-lived, because freed next.
fn temporary(sums: &Sums) -> [i128; 3] {
    [sums.temporary, sums.short_lived, sums.freed_next].map(|amount| amount.objects())
}

const MS: u64 = 1_000_000;

#[test]
fn what_is_freed_within_the_time_is_temporary() {
    let lines = [
        alloc(10, 1, 0xa, 5, 100),
        alloc(10, 1, 0xb, 5, 100),
        alloc(10, 2, 0xc, 5, 100),
        free(10 + MS, 1, 0xa, 5, 100, MS),
        free(11 + MS, 1, 0xb, 5, 100, MS + 1),
    ];
    let lifetimes = read_lines(&lines);
    assert_eq!(books(&lifetimes.total), [3, 2, 1, 0]);
    assert_eq!(temporary(&lifetimes.total), [1, 1, 0]);
    assert_eq!(lifetimes.total.lifetimes.range(), Some((MS, MS + 1)));
    let longer = Options { temporary_within: Duration::from_millis(2), ..Options::default() };
    assert_eq!(temporary(&read_with(&lines, &longer).total), [2, 2, 0]);
}

#[test]
fn what_its_thread_frees_next_is_temporary_however_long_it_lived() {
    let lifetimes = read_lines(&[
        alloc(10, 1, 0xa, 5, 100),
        // Another thread does not come between.
        alloc(20, 2, 0xb, 5, 100),
        free(10 + 5 * MS, 1, 0xa, 5, 100, 5 * MS),
        // Not the thread that allocated it, although its next event.
        free(20 + 5 * MS, 3, 0xb, 5, 100, 5 * MS),
        alloc(20 * MS, 1, 0xc, 5, 100),
        alloc(21 * MS, 1, 0xd, 5, 100),
        // Not its thread's next event.
        free(30 * MS, 1, 0xc, 5, 100, 10 * MS),
        // The free of the other one has come between.
        free(31 * MS, 1, 0xd, 5, 100, 10 * MS),
    ]);
    assert_eq!(books(&lifetimes.total), [4, 4, 0, 0]);
    assert_eq!(temporary(&lifetimes.total), [1, 0, 1]);
}

#[test]
fn a_sample_counts_with_its_weight() {
    let weighted = |line: String| line.replace("\"weight\":1.0", "\"weight\":2.5");
    let lifetimes = read_lines(&[
        weighted(alloc(10, 1, 0xa, 5, 100)),
        weighted(alloc(10, 1, 0xb, 5, 100)),
        weighted(alloc(10, 1, 0xc, 5, 100)),
        weighted(free(20, 1, 0xa, 5, 100, 10)),
        weighted(free(20, 1, 0xb, 5, 100, 10)),
    ]);
    assert!(lifetimes.is_sampled);
    assert_eq!(lifetimes.total.samples, 3);
    assert_eq!(books(&lifetimes.total), [8, 5, 3, 0]);
    assert_eq!(lifetimes.total.allocated.bytes(), 750);
    assert_eq!(lifetimes.total.temporary.bytes(), 500);
}

#[test]
fn the_oldest_is_as_old_as_the_recording_says() {
    let lifetimes = read_lines(&[
        alloc(MS, 1, 0xa, 5, 100),
        alloc(2 * MS, 1, 0xb, 5, 100),
        alloc(3 * MS, 1, 0xc, 6, 100),
        free(4 * MS, 1, 0xa, 5, 100, 3 * MS),
    ]);
    let age = |index: usize| lifetimes.oldest_age(&lifetimes.stacks[index].sums);
    // The end is at 9 s.
    assert_eq!((age(0), age(1)), (Some(8_998 * MS), Some(8_997 * MS)));
    assert_eq!(lifetimes.oldest_age(&lifetimes.total), age(0));
}

/// `realloc` gives the old block up in the middle, and reports it at its end.
#[test]
fn a_free_may_come_after_its_address_was_handed_out_again() {
    let lifetimes = read_lines(&[
        alloc(10, 1, 0xa, 5, 100),
        alloc(20, 2, 0xa, 6, 30),
        free(30, 1, 0xa, 5, 100, 20),
        free(40, 2, 0xa, 6, 30, 20),
    ]);
    assert_eq!(books(&lifetimes.stacks[0].sums), [1, 1, 0, 0]);
    assert_eq!(books(&lifetimes.stacks[1].sums), [1, 1, 0, 0]);
    let expected = Counts { allocations: 2, frees: 2, ..Counts::default() };
    assert_eq!(lifetimes.counts, expected);
}

#[test]
fn lines_that_were_lost_are_counted_and_the_books_balance() {
    let lifetimes = read_lines(&[
        // Its free was lost.
        alloc(10, 1, 0xa, 5, 100),
        alloc(20, 1, 0xa, 5, 100),
        // Its allocation was lost.
        free(30, 1, 0xb, 6, 100, 5),
    ]);
    assert_eq!(books(&lifetimes.stacks[0].sums), [2, 0, 1, 1]);
    assert_eq!(books(&lifetimes.stacks[1].sums), [1, 1, 0, 0]);
    assert_eq!(lifetimes.stacks[1].sums.samples, 0, "no line of an allocation");
    assert_eq!(lifetimes.counts.allocations_without_free, 1);
    assert_eq!(lifetimes.counts.frees_without_allocation, 1);
}

#[test]
fn nothing_outlives_an_exec() {
    let lifetimes = read_lines(&[
        alloc(10, 1, 0xa, 5, 100),
        r#"{"event":"exec","time_ns":100,"pid":7}"#.to_owned(),
        // From before, but late.
        alloc(99, 1, 0xb, 5, 100),
        alloc(101, 1, 0xa, 5, 100),
    ]);
    assert_eq!(books(&lifetimes.total), [3, 0, 1, 2]);
    assert_eq!(lifetimes.total.oldest_ns, Some(101));
    let counts = &lifetimes.counts;
    assert_eq!((counts.execs, counts.allocations_without_free), (1, 0));
}

#[test]
fn what_does_not_fit_is_counted_and_the_books_balance() {
    let limits = Limits { live: 1, stacks: 1 };
    let lifetimes = read_with(
        &[
            alloc(10, 1, 0xa, 5, 100),
            alloc(20, 1, 0xb, 5, 100),
            alloc(30, 1, 0xc, 5, 100),
            alloc(40, 1, 0xd, 6, 7),
            free(50, 1, 0xb, 5, 100, 30),
            free(60, 1, 0xd, 6, 7, 20),
        ],
        &Options { limits, ..Options::default() },
    );
    assert_eq!(books(&lifetimes.stacks[0].sums), [3, 1, 2, 0]);
    assert_eq!(books(&lifetimes.stacks[1].sums), [1, 1, 0, 0]);
    let frames: Vec<_> = lifetimes.frames(&lifetimes.stacks[1]).collect();
    assert_eq!(frames, [("[further stacks]", "")]);
    let counts = &lifetimes.counts;
    assert_eq!((counts.live_over_limit, counts.stacks_over_limit), (3, 2));
    assert_eq!(counts.frees_without_allocation, 0);
}

#[test]
fn stacks_of_the_same_names_are_one() {
    let lifetimes = read_lines(&[
        alloc(10, 1, 0xa, 5, 100),
        alloc(20, 1, 0xb, 6, 100),
        alloc(30, 1, 0xc, 7, 100),
        alloc(40, 1, 0xd, 8, 100),
        named(5, r#""frames":["f","main"],"places":["/a.c:1","/a.c:9"]"#),
        named(6, r#""frames":["f","main"],"places":["/a.c:1","/a.c:9"]"#),
        named(7, r#""frames":["f","main"],"places":["/a.c:2","/a.c:9"]"#),
        named(99, r#""frames":["never seen"]"#),
    ]);
    let ids: Vec<_> = lifetimes.stacks.iter().map(|stack| stack.ids.clone()).collect();
    assert_eq!(ids, [vec![5, 6], vec![7], vec![8]]);
    assert_eq!(books(&lifetimes.stacks[0].sums), [2, 0, 2, 0]);
    assert_eq!(lifetimes.unnamed(), 1);
}

#[test]
fn ranks_are_by_temporary_allocations_and_by_bytes() {
    let lifetimes = read_lines(&[
        alloc(10, 1, 0xa, 5, 1000),
        alloc(20, 1, 0xb, 6, 1),
        free(30, 1, 0xb, 6, 1, 10),
        alloc(40, 1, 0xc, 7, 30),
        free(50, 1, 0xc, 7, 30, 10),
    ]);
    let ids = |stacks: Vec<&Stack>| stacks.iter().map(|stack| stack.ids[0]).collect::<Vec<_>>();
    assert_eq!(ids(lifetimes.by_temporary()), [7, 6]);
    assert_eq!(ids(lifetimes.by_bytes()), [5, 7, 6]);
}

fn refused(text: &str) -> ReadError {
    read(text.as_bytes(), &Options::default()).unwrap_err()
}

#[test]
fn what_is_no_events_file_is_refused() {
    assert!(matches!(refused(""), ReadError::Empty));
    assert!(matches!(refused("{\"a\":1}\n"), ReadError::NotEvents));
    assert!(matches!(refused("{\"a\":1}"), ReadError::NotEvents));
    assert!(matches!(refused(&format!("nonsense\n{BEGIN}\n")), ReadError::NotEvents));
    assert!(matches!(refused(r#"{"schema":"memtrace-profile/1","stacks":[]}"#), ReadError::JsonProfile));
    let newer = BEGIN.replace("events/1", "events/2");
    let error = refused(&newer);
    assert!(matches!(&error, ReadError::Schema(schema) if schema == "memtrace-events/2"), "{error}");
    assert!(error.to_string().contains("memtrace-events/1"), "{error}");
}

#[test]
fn nonsense_between_events_is_counted() {
    let lines = ["nonsense", "", r#"{"event":"alloc"}"#, r#"{"event":"mmap","size":"big"}"#, "\u{0}\u{0}"];
    let lines = lines.map(str::to_owned);
    let lifetimes = read_lines(&[&lines[..], &[alloc(10, 1, 0xa, 5, 100)]].concat());
    let expected = Counts { allocations: 1, malformed_lines: 4, unknown_events: 1, ..Counts::default() };
    assert_eq!(lifetimes.counts, expected);
}

/// memtrace may be killed at any byte.
#[test]
fn every_beginning_of_a_file_can_be_read() {
    let lines = [
        BEGIN.to_owned(),
        alloc(10, 1, 0xa, 5, 100),
        free(20, 1, 0xa, 5, 100, 10),
        named(5, r#""frames":["größe"],"places":[""]"#),
        END.to_owned(),
    ];
    let whole = lines.join("\n") + "\n";
    for end in 1..=whole.len() {
        let lifetimes = read(&whole.as_bytes()[..end], &Options::default()).unwrap();
        let counts = &lifetimes.counts;
        // A line that is complete but for its end is read.
        let is_cut = !matches!(whole.as_bytes()[end - 1], b'\n' | b'}');
        assert_eq!(counts.cut_lines, u64::from(is_cut), "{end}");
        assert_eq!(counts.malformed_lines, 0);
        let [allocated, freed, live, gone] = books(&lifetimes.total);
        assert_eq!((allocated, gone), (freed + live, 0));
        assert_eq!(lifetimes.losses.is_some(), end >= whole.len() - 1);
    }
}

#[test]
fn the_text_is_compact() {
    let mut lines = Vec::new();
    for round in 0..1000u64 {
        let time = 5 * MS + round * 10_000;
        lines.push(alloc(time, 1, 0xa, 5, 24));
        lines.push(free(time + 700 + round, 1, 0xa, 5, 24, 700 + round));
    }
    for block in 0..20 {
        lines.push(alloc(20 * MS + block, 2, 0x1000 + block, 6, 4096));
    }
    for block in 0..12 {
        lines.push(free(90 * MS + block, 3, 0x1000 + block, 6, 4096, 70 * MS));
    }
    lines.push(named(5, r#""frames":["parse","main"],"places":["/src/parse.c:31","/src/main.c:12"]"#));
    lines.push(named(6, r#""frames":["page_new","cache","main"],"places":["/src/page.c:8","",""]"#));
    let options = SummaryOptions { top: 5, width: 100, color: false };
    let text = read_lines(&lines).text("events.ndjson", &options);
    insta::assert_snapshot!(text, @r"
    events.ndjson: 1,020 allocations, 103 KiB over 9.0 s, every one recorded
      freed      1,012 (99.2%), 71.4 KiB; lived 1.2 µs, 1.6 µs, 69 ms (p50, p90, p99)
      live       8 (0.8%), 32.0 KiB; the oldest for 9.0 s
      temporary  1,000 (98.0%), 23.4 KiB: 1,000 freed within 1.0 ms, 1,000 by their thread's next event

    Top stacks by temporary allocations (lifetimes from 512 ns to 134 ms, a bar per factor of 2):
       temporary allocations     bytes  freed      p50      p90      p99     live live bytes     oldest
           1,000       1,000  23.4 KiB 100.0%   1.2 µs   1.6 µs   1.7 µs        -          -          -
      │▄█                │ parse parse.c:31 <- main main.c:12

    Top stacks by bytes allocated (lifetimes from 512 ns to 134 ms, a bar per factor of 2):
       temporary allocations     bytes  freed      p50      p90      p99     live live bytes     oldest
               0          20  80.0 KiB  60.0%    70 ms    70 ms    70 ms        8   32.0 KiB      9.0 s
      │                 █│ page_new page.c:8 <- cache <- main
           1,000       1,000  23.4 KiB 100.0%   1.2 µs   1.6 µs   1.7 µs        -          -          -
      │▄█                │ parse parse.c:31 <- main main.c:12

    Nothing was lost.
    ");
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}");
}

#[test]
fn the_text_says_what_is_missing() {
    let text = [
        BEGIN.replace("\"sample_interval\":1", "\"sample_interval\":4096"),
        alloc(10, 1, 0xa, 5, 100),
        alloc(20, 1, 0xa, 5, 100),
        free(30, 1, 0xb, 6, 100, 5),
        "{}".to_owned(),
        r#"{"event":"mmap"}"#.to_owned(),
        r#"{"event":"al"#.to_owned(),
    ]
    .join("\n");
    let lifetimes = read(text.as_bytes(), &Options::default()).unwrap();
    insta::assert_snapshot!(lifetimes.text("-", &SummaryOptions::default()), @r#"
    -: 3 allocations, 300 B over 20 ns, one sample per 4.0 KiB on average
      freed      1 (33.3%), 100 B; lived 5 ns, 5 ns, 5 ns (p50, p90, p99)
      live       1 (33.3%), 100 B; the oldest for 10 ns
      gone       1 (33.3%), 100 B; not live, lifetime unknown
      temporary  1 (33.3%), 100 B: 1 freed within 1.0 ms, 0 by their thread's next recorded event

    Top stacks by temporary allocations (lifetimes from 4 ns to 8 ns, a bar per factor of 2):
       temporary allocations     bytes  freed      p50      p90      p99     live live bytes     oldest
               1           1     100 B 100.0%     5 ns     5 ns     5 ns        -          -          -
      │█│ stack 0000000000000006

    Top stacks by bytes allocated (lifetimes from 4 ns to 8 ns, a bar per factor of 2):
       temporary allocations     bytes  freed      p50      p90      p99     live live bytes     oldest
               0           2     200 B   0.0%        -        -        -        1      100 B      10 ns
      │ │ stack 0000000000000005
               1           1     100 B 100.0%     5 ns     5 ns     5 ns        -          -          -
      │█│ stack 0000000000000006

    What is missing:
      cut_lines 1: the last line was cut off
      malformed_lines 1: lines are not events
      unknown_events 1: events are of a kind that this version does not know
      frees_without_allocation 1: frees are in the file but not their allocations, which are counted nevertheless
      allocations_without_free 1: allocations have no free in the file although their address was handed out again
      The file has no end: memtrace was killed, or still writes. The end has the stacks' names and what was lost.

    Sampled: amounts are estimates. What a thread did between two recorded events is not known,
    so "by their thread's next recorded event" takes in some that lived on meanwhile.
    "#);
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let text = [
        alloc(10, 1, 0xa, 5, 100),
        named(5, r#""frames":["a\u001b[2J","b\n"],"places":["/x\u001b:3","y\n:4"]"#),
        r#"{"event":"end","time_ns":90,"losses":[{"name":"n\u001b","count":1,"meaning":"m\u001b\n"}]}"#
            .to_owned(),
    ]
    .join("\n");
    let lifetimes = read(text.as_bytes(), &Options::default()).unwrap();
    let text = lifetimes.text("name\u{1b}", &SummaryOptions::default());
    assert!(!text.contains('\u{1b}') && text.contains(r"m\u{1b}\n"), "{text}");
}

#[test]
fn json_has_it_all() {
    let lifetimes = read_lines(&[
        alloc(10, 1, 0xa, 5, 1000),
        alloc(20, 1, 0xb, 6, 10),
        free(120, 1, 0xb, 6, 10, 100),
        named(6, r#""frames":["f","g"],"places":["/a.c:1",""]"#),
    ]);
    let json = |top| {
        let mut out = Vec::new();
        lifetimes.json(top, &mut out).unwrap();
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()
    };
    let all = json(None);
    assert_eq!(all["schema"], SCHEMA);
    assert_eq!(all["complete"], true);
    assert_eq!(all["losses"], serde_json::json!([]));
    assert_eq!(all["total"]["allocated"], serde_json::json!({ "objects": 2, "bytes": 1010 }));
    assert_eq!(all["counts"]["unnamed_stacks"], 1);
    let expected = serde_json::json!({
        "ids": ["0000000000000006"],
        "frames": [{ "function": "f", "place": "/a.c:1" }, { "function": "g", "place": null }],
        "samples": 1,
        "allocated": { "objects": 1, "bytes": 10 },
        "freed": { "objects": 1, "bytes": 10 },
        "live": { "objects": 0, "bytes": 0 },
        "gone": { "objects": 0, "bytes": 0 },
        "temporary": { "objects": 1, "bytes": 10 },
        "short_lived": { "objects": 1, "bytes": 10 },
        "freed_next": { "objects": 1, "bytes": 10 },
        "oldest_age_ns": null,
        "lifetimes": {
            "min_ns": 100, "p50_ns": 100, "p90_ns": 100, "p99_ns": 100, "max_ns": 100,
            "histogram": [{ "from_ns": 64, "below_ns": 128, "objects": 1 }],
        },
    });
    assert_eq!(all["stacks"][0], expected);
    let ids = |json: &serde_json::Value| {
        let stacks = json["stacks"].as_array().unwrap().iter();
        stacks.map(|stack| stack["ids"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&all), ["0000000000000006", "0000000000000005"]);
    assert_eq!(ids(&json(Some(1))), ids(&all), "the first of each ranking");
    assert_eq!(ids(&json(Some(0))), [""; 0]);
}

/// What a program did, one operation per element: thread, and an address to use or to free.
fn script() -> impl Strategy<Value = Vec<(u32, u64)>> {
    proptest::collection::vec((1..4u32, 0..12u64), 0..200)
}

/// The lines of a script, each with whether it is of an allocation; an address in use is freed.
fn perform(script: &[(u32, u64)]) -> Vec<String> {
    let mut live: HashMap<u64, u64> = HashMap::new();
    let mut lines = Vec::new();
    for (position, &(tid, address)) in script.iter().enumerate() {
        let time = (position as u64 + 1) * 300_000;
        match live.remove(&address) {
            Some(since) => lines.push(free(time, tid, address, address % 5, 10 + address, time - since)),
            None => {
                live.insert(address, time);
                lines.push(alloc(time, tid, address, address % 5, 10 + address));
            }
        }
    }
    lines
}

proptest! {
    #[test]
    fn without_a_loss_all_is_exact(script in script()) {
        let lifetimes = read_lines(&perform(&script));
        let mut expected: HashMap<u64, [i128; 4]> = HashMap::new();
        let (mut live, mut last) = (HashMap::new(), HashMap::new());
        let mut temporary_count = 0;
        for (position, &(tid, address)) in script.iter().enumerate() {
            let books = expected.entry(address % 5).or_default();
            match live.remove(&address) {
                Some(since) => {
                    books[1] += 1;
                    books[2] -= 1;
                    let is_next = last.insert(tid, None) == Some(Some(since));
                    temporary_count += i128::from(is_next || position - since <= 3);
                }
                None => {
                    books[0] += 1;
                    books[2] += 1;
                    live.insert(address, position);
                    last.insert(tid, Some(position));
                }
            }
        }
        for stack in &lifetimes.stacks {
            prop_assert_eq!(books(&stack.sums), expected[&stack.ids[0]]);
        }
        prop_assert_eq!(lifetimes.stacks.len(), expected.len());
        prop_assert_eq!(lifetimes.total.temporary.objects(), temporary_count);
        let counts = &lifetimes.counts;
        prop_assert_eq!((counts.allocations_without_free, counts.frees_without_allocation), (0, 0));
    }

    #[test]
    fn whatever_is_lost_the_books_balance(
        script in script(),
        kept in proptest::collection::vec(any::<bool>(), 200),
        live in 0..8usize,
        stacks in 0..6usize,
    ) {
        let lines = perform(&script);
        let lines: Vec<_> = lines.into_iter().zip(kept).filter(|it| it.1).map(|it| it.0).collect();
        let options = Options { limits: Limits { live, stacks }, ..Options::default() };
        let lifetimes = read_with(&lines, &options);
        for sums in lifetimes.stacks.iter().map(|stack| &stack.sums).chain([&lifetimes.total]) {
            let [allocated, freed, live, gone] = books(sums);
            prop_assert_eq!(allocated, freed + live + gone);
            let [temporary, short, next] = temporary(sums);
            prop_assert!(temporary <= freed && temporary >= short.max(next));
        }
        let counts = &lifetimes.counts;
        prop_assert_eq!(counts.allocations + counts.frees, lines.len() as u64);
        let seen = i128::from(counts.allocations + counts.frees_without_allocation);
        prop_assert_eq!(lifetimes.total.allocated.objects(), seen);
        prop_assert_eq!(lifetimes.total.freed.objects(), i128::from(counts.frees));
    }
}
