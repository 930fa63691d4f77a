//! The text as it is seen.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::options::{BOLD, YELLOW};
use super::*;
use crate::output::sample;
use crate::profile::{Function, Line, Location, Mapping, arbitrary};

fn named(stack: &[&str]) -> Profile {
    let mut profile = Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::from_secs(1));
    let mapping = profile.unknown_mapping();
    let mut sample =
        Sample { stack: vec![], values: vec![1, 100, 1, 100], labels: vec![], ..Sample::default() };
    for (address, name) in stack.iter().enumerate() {
        let function =
            Function { name: (*name).to_owned(), file: "/a/b.c".to_owned(), ..Function::default() };
        let function = profile.functions.insert_full(function).0;
        let lines = vec![Line { function, line: 7 }];
        let address = address as u64;
        sample.stack.push(profile.locations.insert_full(Location { address, mapping, lines }).0);
    }
    profile.samples.push(sample);
    profile
}

#[test]
fn totals_top_stacks_and_losses() {
    let options = SummaryOptions { top: 3, width: 120, color: false };
    insta::assert_snapshot!(summary(&sample::profile(), &options), @r"
    cached: recorded for 12.5 s, one sample per 512 KiB on average
      in use      10.6 MiB in 2,211 objects
      allocated    5.8 GiB in 5,094,606 objects

    Top stacks by bytes in use:
        8.0 MiB  75.5%  2,048 objects  buffer_new buffer.h:14 <- cache_insert cache.c:31 <- main main.c:57 <- …
        1.5 MiB  14.2%    150 objects  operator new(unsigned long) <- std::map<std::string, st…::string&&) index.cpp:80 <- …
        1.0 MiB   9.4%     10 objects  0x7f11deadb000 <- main main.c:57 <- libc.so.6+0x27249
       96.0 KiB   0.9%  in 1 more stack

    What was lost:
      ring_full 12: Allocations were not recorded because the ring buffer was full; in-use values are too low.
    ");
}

#[test]
fn a_narrow_terminal_sees_the_leaf() {
    let options = SummaryOptions { top: 2, width: 10, color: false };
    insta::assert_snapshot!(summary(&sample::profile(), &options), @r"
    cached: recorded for 12.5 s, one sample per 512 KiB on average
      in use      10.6 MiB in 2,211 objects
      allocated    5.8 GiB in 5,094,606 objects

    Top stacks by bytes in use:
        8.0 MiB  75.5%  2,048 objects  buffer_new buffer.h:14 <- …
        1.5 MiB  14.2%    150 objects  operator new(unsigned long) <- …
        1.1 MiB  10.3%  in 2 more stacks

    What was lost:
      ring_full 12: Allocations were not recorded because the ring buffer was full; in-use values are too low.
    ");
}

#[test]
fn nothing_in_use_and_nothing_lost() {
    let profile = Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::from_secs(75));
    insta::assert_snapshot!(summary(&profile, &SummaryOptions::default()), @r"
    recorded for 1 min 15 s, every allocation recorded
      in use           0 B in 0 objects
      allocated        0 B in 0 objects

    No stack has anything in use.

    Nothing was lost.
    ");
}

#[test]
fn names_of_the_target_cannot_steer_the_terminal() {
    let mut profile = named(&["\x1b[2Jf\n  Nothing was lost.", "main\r"]);
    let path = "/bin/\x1b]0;owned\x07".to_owned();
    profile.mappings.insert(Mapping { path, ..Mapping::default() });
    insta::assert_snapshot!(summary(&profile, &SummaryOptions::default()), @r"
    \u{1b}]0;owned\u{7}: recorded for 1.0 s, every allocation recorded
      in use         100 B in 1 object
      allocated      100 B in 1 object

    Top stacks by bytes in use:
          100 B 100.0%  1 object  \u{1b}[2Jf\n  Nothing was lost. b.c:7 <- main\r b.c:7

    Nothing was lost.
    ");
}

#[test]
fn addresses_within_a_line_and_labels_do_not_split_a_stack() {
    let mut profile = named(&["f", "main"]);
    let elsewhere = Location { address: 4096, ..profile.locations[0].clone() };
    let elsewhere = profile.locations.insert_full(elsewhere).0;
    profile.samples.push(Sample { stack: vec![elsewhere, 1], ..profile.samples[0].clone() });
    let labels = vec![("thread".to_owned(), "x".to_owned())];
    profile.samples.push(Sample { labels, ..profile.samples[0].clone() });
    let text = summary(&profile, &SummaryOptions::default());
    assert!(text.contains("300 B 100.0%  3 objects  f b.c:7 <- main b.c:7\n"), "{text}");
}

#[test]
fn color_is_only_there_when_asked_for() {
    let options = SummaryOptions { color: true, ..SummaryOptions::default() };
    let colored = summary(&sample::profile(), &options);
    assert!(colored.contains("\x1b[1;33mWhat was lost:\x1b[0m"), "{colored}");
    let plain = colored.replace(BOLD, "").replace(YELLOW, "").replace("\x1b[0m", "");
    assert_eq!(plain, summary(&sample::profile(), &SummaryOptions::default()));
}

#[test]
fn a_broken_profile_is_a_sentence() {
    let mut profile = sample::profile();
    profile.default_value = 9;
    let text = summary(&profile, &SummaryOptions::default());
    assert!(text.contains("default value type 9 is not one of the profile's 4"), "{text}");
}

proptest! {
    #[test]
    fn any_profile_has_a_summary_of_plain_lines(
        profile in arbitrary::profile(),
        top in 0_usize..5,
        width in 0_usize..200,
    ) {
        let text = summary(&profile, &SummaryOptions { top, width, color: false });
        prop_assert!(text.ends_with('\n'));
        prop_assert!(text.lines().all(|line| printable(line) == line), "{text:?}");
    }

    #[test]
    fn a_stack_keeps_to_its_room(profile in arbitrary::profile(), room in LEAST_ROOM..200) {
        for sample in &profile.samples {
            let text = stack(&profile, sample, room);
            prop_assert!(!text.is_empty() && length(&text) <= room, "{room} {text}");
        }
    }
}

#[test]
fn several_processes_are_told_apart() {
    let mut profile = sample::profile();
    for (index, sample) in profile.samples.iter_mut().enumerate() {
        let (pid, comm) = [("7", "sh"), ("42", "c\nprog")][index % 2];
        sample.labels.push(("pid".to_owned(), pid.to_owned()));
        sample.labels.push(("comm".to_owned(), comm.to_owned()));
    }
    profile.statistics.push(crate::profile::Statistic { name: "processes", unit: "count", value: 5.0 });
    let text = summary(&profile, &SummaryOptions::default());
    let table: Vec<_> = text.lines().skip_while(|line| !line.starts_with("Processes")).take(4).collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    Processes by bytes in use:
        9.5 MiB  89.7%   7 sh
        1.1 MiB  10.3%  42 c\nprog
      and 3 without a sample
    ");
}
