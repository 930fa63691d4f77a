use std::time::Duration;

use super::*;
use crate::output::pprof::{encode, proto};
use crate::output::sample;
use crate::profile;
use crate::report::SummaryOptions;

fn top() -> Top {
    Top::of(&encode(&sample::profile()).unwrap())
}

#[test]
fn totals_functions_and_what_was_lost() {
    let options = SummaryOptions { top: 4, ..SummaryOptions::default() };
    insta::assert_snapshot!(top().text("heap.pb.gz", &options), @r"
    heap.pb.gz: recorded for 12.5 s, 6 samples
      alloc_objects  5,094,606
      alloc_space      5.8 GiB
      inuse_objects      2,211
      inuse_space     10.6 MiB

    Top functions by inuse_space:
           flat               cum         function
        8.0 MiB  75.5%    8.0 MiB  75.5%  buffer_new
        1.5 MiB  14.2%    1.5 MiB  14.2%  operator new(unsigned long)
        1.0 MiB   9.4%    1.0 MiB   9.4%  0x7f11deadb000
       96.0 KiB   0.9%   96.0 KiB   0.9%  <app::Frame<[u8; 8]> as app::Decode>::decode::{{closure}}
      and 4 more functions

    Comments:
      memtrace record -p 4711, glibc malloc

    What was lost:
      ring_full 12: Allocations were not recorded because the ring buffer was full; in-use values are too low.
    ");
}

#[test]
fn json_has_the_same() {
    let mut out = Vec::new();
    top().json(Some(2), &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["schema"], TOP_SCHEMA);
    assert_eq!(json["sample_type"], "inuse_space");
    assert_eq!(json["functions"].as_array().unwrap().len(), 2);
    assert_eq!(json["functions"][0]["name"], "buffer_new");
    let losses = sample::profile().losses;
    assert_eq!(json["losses"].as_array().unwrap().len(), losses.iter().count());
    assert_eq!(json["losses"][0]["count"], losses.iter().next().unwrap().count);
}

#[test]
fn a_recursive_function_has_its_value_once() {
    let mut message = encode(&sample::profile()).unwrap();
    let sample = &message.sample[0];
    let (value, leaf) = (sample.value[3], sample.location_id[0]);
    message.sample = vec![proto::Sample { location_id: vec![leaf; 5], ..sample.clone() }];
    let functions = Top::of(&message).functions;
    assert!(functions.iter().all(|it| it.cum == i128::from(value)), "{functions:?}");
}

#[test]
fn a_profile_that_names_no_default_has_the_last_type() {
    let mut message = encode(&sample::profile()).unwrap();
    message.default_sample_type = message.sample_type[0].kind;
    assert_eq!(Top::of(&message).sample_type, "alloc_objects");
    message.default_sample_type = 0;
    assert_eq!(Top::of(&message).sample_type, "inuse_space");
}

#[test]
fn a_profile_without_samples_is_said_to_have_none() {
    let mut message = encode(&sample::profile()).unwrap();
    message.sample.clear();
    let text = Top::of(&message).text("x", &SummaryOptions::default());
    assert!(text.contains("No function has any inuse_space."), "{text}");
}

#[test]
fn comments_are_told_apart() {
    assert_eq!(
        loss("loss: ring_full 12: gone: all of it"),
        Some(Loss { name: "ring_full".to_owned(), count: 12, meaning: "gone: all of it".to_owned() })
    );
    assert_eq!(loss("loss: it is said"), None);
    let statistic =
        |name: &str, value, unit: &str| Statistic { name: name.to_owned(), value, unit: unit.to_owned() };
    assert_eq!(
        statistics("statistics: target_time 0.5 seconds, samples 7 count"),
        Some(vec![statistic("target_time", 0.5, "seconds"), statistic("samples", 7.0, "count")])
    );
    assert_eq!(statistics("statistics: target_time 0.5 seconds more"), None);
    assert_eq!(statistics("statistics: are dull"), None);
}

#[test]
fn statistics_take_one_comment_and_are_found_in_it() {
    let mut profile = sample::profile();
    profile.statistics = vec![
        profile::Statistic::count("samples", 7),
        profile::Statistic::count("walks_too_deep", 0),
        profile::Statistic::seconds("target_cpu_time", Duration::from_millis(500)),
    ];
    let message = encode(&profile).unwrap();
    let written = "statistics: samples 7 count, target_cpu_time 0.5 seconds";
    assert_eq!(
        message.comments().filter(|text| text.starts_with("statistic")).collect::<Vec<_>>(),
        [written]
    );
    let text = Top::of(&message).text("x", &SummaryOptions::default());
    assert!(text.contains("  samples 7 count\n  target_cpu_time 0.5 seconds\n"), "{text}");
}

#[test]
fn what_a_file_holds_cannot_write_to_the_terminal() {
    let mut message = encode(&sample::profile()).unwrap();
    for text in message.string_table.iter_mut().skip(1) {
        text.push_str("\u{1b}[2J\n");
    }
    let text = Top::of(&message).text("x\n", &SummaryOptions::default());
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
