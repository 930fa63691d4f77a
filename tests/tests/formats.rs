//! The output formats, chosen by file name or by `--format`, all of one truth.

use memtrace_tests::fixture::{LEAK, LEAK_FRAME_POINTERS};
use memtrace_tests::json;
use memtrace_tests::record::{Recorded, Recorder};
use memtrace_tests::stacks::Values;

/// Records the same program with this recorder.
fn record(recorder: Recorder) -> Recorded {
    let operations = ["run", "leak_a", "10", "100", "churn", "5", "7", "chain", "3", "50"];
    recorder.launch(&LEAK_FRAME_POINTERS.path(), &operations).expect_success()
}

fn text(recorded: &Recorded) -> String {
    std::fs::read_to_string(recorded.output()).unwrap()
}

/// The stacks by their in-use bytes, the root first: "main;perform;leak_a 1000".
#[track_caller]
fn assert_folded(text: &str) {
    let mut leaks = 0;
    for line in text.lines() {
        let (stack, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("`{line}` has no value"));
        let value: i64 = value.parse().unwrap_or_else(|_| panic!("`{line}` does not end in a number"));
        assert!(value > 0, "`{line}` says nothing");
        assert!(!stack.ends_with("churn"), "nothing of it is in use: {line}");
        leaks += if stack.ends_with("leak_a") { value } else { 0 };
    }
    assert_eq!(leaks, 1000, "{text}");
    let chain = ";perform;chain_outer;chain_inner;chain_leaf 150";
    assert!(text.lines().any(|line| line.ends_with(chain)), "no `...{chain}` in\n{text}");
}

#[track_caller]
fn assert_svg(text: &str) {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options).expect("the flame graph is XML");
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let titles: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name("title") || node.tag_name().name() == "title")
        .collect();
    let named = titles.iter().filter_map(|node| node.text()).find(|title| title.starts_with("leak_a"));
    let named = named.unwrap_or_else(|| panic!("no frame is titled leak_a: {titles:?}"));
    assert!(named.replace(',', "").contains("1000"), "{named}");
    assert!(named.contains("bytes"), "the unit is said: {named}");
}

fn assert_json(profile: &json::Profile) {
    let stacks = profile.stacks();
    assert_eq!(stacks.of("leak_a"), Values::live(10, 100));
    assert_eq!(stacks.of("churn"), Values::freed(5, 7));
    assert_eq!((profile.interval.value, profile.interval.unit.as_str()), (1, "bytes"));
    assert_eq!(profile.default_value, "inuse_space");
    assert!(profile.duration_seconds > 0.0 && profile.time.starts_with("20"), "{profile:?}");
    let leaf = &stacks.with_leaf("leak_a").next().unwrap().frames[0];
    assert_eq!(
        (leaf.file.as_str(), leaf.line as u64),
        (LEAK.source().to_str().unwrap(), LEAK.line("leak_a"))
    );
}

#[test]
fn the_file_name_chooses() {
    assert_eq!(record(Recorder::exact().output("a.pb.gz")).stacks().of("leak_a"), Values::live(10, 100));
    assert_folded(&text(&record(Recorder::exact().output("a.folded"))));
    assert_svg(&text(&record(Recorder::exact().output("a.svg"))));
    assert_json(&record(Recorder::exact().output("a.json")).json());
}

#[test]
fn the_option_overrules_the_name() {
    let as_format =
        |name: &str, format: &str| record(Recorder::exact().output(name).option("--format").option(format));
    assert_eq!(as_format("a.json", "pprof").stacks().of("leak_a"), Values::live(10, 100));
    assert_folded(&text(&as_format("a.pb.gz", "folded")));
    assert_svg(&text(&as_format("a", "svg")));
    assert_json(&as_format("a.svg", "json").json());
}

#[test]
fn an_unknown_format_is_refused() {
    let recorded = Recorder::new().option("--format").option("flame").run(&["--", "true"]);
    assert_eq!(recorded.outcome.code(), 2);
    recorded.outcome.assert_says(&["flame", "pprof", "folded", "json", "svg"]);
}

#[test]
fn an_empty_profile_is_a_profile_in_every_format() {
    // At this interval no sample is taken (with a probability of e^-1e-9 or so).
    for format in ["pprof", "folded", "json", "svg"] {
        let recorder = Recorder::new().interval("1TiB").output("out").option("--format").option(format);
        let recorded = recorder.run(&["--", "/bin/true"]).expect_success();
        match format {
            "pprof" => assert_eq!(recorded.stacks().0, []),
            "folded" => assert_eq!(text(&recorded), ""),
            "json" => assert_eq!(recorded.json().stacks().0, []),
            _ => drop(
                roxmltree::Document::parse_with_options(
                    &text(&recorded),
                    roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
                )
                .expect("XML"),
            ),
        }
    }
}
