//! A flame graph as SVG, by `inferno`: the root below, each frame as wide as its value.

use std::fmt::Write as _;
use std::io::Write;

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Options, from_lines};

use super::folded::{Stacks, stacks};
use super::{Error, check};
use crate::profile::{Profile, ValueType, printable};
use crate::report::units;

/// Losses beyond this many are counted, not named: the subtitle is one line.
const NAMED_LOSSES: usize = 3;

/// Writes a flame graph of value `index`. The same profile gives the same picture.
///
/// Where nothing has that value, the picture says so.
///
/// # Errors
///
/// If `out` fails, if there is no value `index`, if the profile does not pass [`Profile::check`], or if
/// the values add up to more than 64 bits hold.
pub fn write(profile: &Profile, index: usize, out: &mut dyn Write) -> Result<(), Error> {
    check(profile, index)?;
    let stacks = stacks(profile, index)?;
    let total = stacks.values().try_fold(0_u64, |sum, &value| sum.checked_add(value));
    let total = total.ok_or(Error::TooLarge)?;
    if total == 0 {
        return write_empty(profile, index, out);
    }
    let mut options = Options::default();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    options.title = title(profile, index);
    options.subtitle = Some(subtitle(profile, index, total));
    options.count_name = count_name(&profile.value_types[index]).to_owned();
    // inferno draws frames side by side in the order of its lines, and joins neighbours of the same name.
    // It would sort them as text, which has "f (x);g" between "f;a" and "f;z" and so tears f in two (and
    // having sorted with the values, it may even find its own lines unsorted). The stacks are in order
    // already, frame by frame. `flame_chart` makes it take the lines as they are, from the last to the first.
    options.flame_chart = true;
    let lines = lines(&stacks);
    from_lines(&mut options, lines.iter().rev().map(String::as_str), out)?;
    Ok(())
}

fn lines(stacks: &Stacks) -> Vec<String> {
    stacks.iter().map(|(stack, value)| format!("{} {value}", stack.join(";"))).collect()
}

/// What is counted, in words.
fn counted(profile: &Profile, index: usize) -> &'static str {
    match profile.value_types[index].kind {
        "inuse_space" => "bytes in use",
        "inuse_objects" => "objects in use",
        "alloc_space" => "bytes allocated",
        "alloc_objects" => "objects allocated",
        kind => kind,
    }
}

/// What is counted and whose it is.
fn title(profile: &Profile, index: usize) -> String {
    let counted = counted(profile, index);
    match profile.executable() {
        Some(main) => format!("{}: {counted}", printable(profile.mappings[main].name())),
        None => counted.to_owned(),
    }
}

/// How much it is, how it was measured, and what is missing.
fn subtitle(profile: &Profile, index: usize, total: u64) -> String {
    let amount = match profile.value_types[index].unit {
        "bytes" => units::bytes(total.into()),
        _ => format!("{} {}", units::count(total.into()), count_name(&profile.value_types[index])),
    };
    let seconds = units::seconds(profile.duration);
    let mut text = format!("{amount}, recorded for {seconds}, {}", units::sampling(profile));
    if profile.losses.is_empty() {
        text.push_str(", nothing lost");
        return text;
    }
    text.push_str("; LOST: ");
    for (position, loss) in profile.losses.iter().take(NAMED_LOSSES).enumerate() {
        let comma = if position == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{} {}", loss.name, units::count(loss.count.into()));
    }
    match profile.losses.iter().count().saturating_sub(NAMED_LOSSES) {
        0 => {}
        more => {
            let _ = write!(text, " and {more} more kinds");
        }
    }
    text
}

fn count_name(value_type: &ValueType) -> &'static str {
    if value_type.unit == "count" { "objects" } else { value_type.unit }
}

/// inferno makes an error of this case; but that a program holds no memory is a result.
fn write_empty(profile: &Profile, index: usize, out: &mut dyn Write) -> Result<(), Error> {
    let title = xml(&title(profile, index));
    let subtitle = xml(&subtitle(profile, index, 0));
    let counted = counted(profile, index);
    write!(
        out,
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="120" viewBox="0 0 1200 120" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#eef2ee"/>
<g font-family="monospace" font-size="12" text-anchor="middle">
<text x="600" y="24" font-size="17">{title}</text>
<text x="600" y="48">{subtitle}</text>
<text x="600" y="84">Nothing to show: there were no {counted}.</text>
</g>
</svg>
"##
    )?;
    Ok(())
}

/// `text` as XML's character data. All characters that XML rules out are gone by [`printable`] already.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use roxmltree::{Document, ParsingOptions};

    use super::*;
    use crate::output::sample;
    use crate::profile::{Function, Line, Location, Mapping, Sample, arbitrary};

    fn svg(profile: &Profile) -> String {
        let mut out = Vec::new();
        write(profile, profile.default_value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn parse(svg: &str) -> Document<'_> {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        Document::parse_with_options(svg, options).unwrap_or_else(|error| panic!("{error}\n{svg}"))
    }

    /// The frames' tool tips, e.g. `main (4,096 bytes, 12.00%)`.
    fn tips(document: &Document<'_>) -> Vec<String> {
        let titles =
            document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "title")));
        titles.filter_map(|node| node.text().map(str::to_owned)).collect()
    }

    fn texts(document: &Document<'_>) -> String {
        let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
        texts.filter_map(|node| node.text()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn frames_carry_names_bytes_and_shares() {
        let svg = svg(&sample::profile());
        let document = parse(&svg);
        let tips = tips(&document);
        assert!(tips.contains(&"all (11,108,352 bytes, 100%)".to_owned()), "{tips:?}");
        assert!(tips.contains(&"buffer_new (8,388,608 bytes, 75.52%)".to_owned()), "{tips:?}");
        let texts = texts(&document);
        assert!(texts.contains("cached: bytes in use"), "{texts}");
        assert!(
            texts.contains(
                "10.6 MiB, recorded for 12.5 s, one sample per 512 KiB on average; LOST: ring_full 12"
            ),
            "{texts}"
        );
    }

    #[test]
    fn the_root_is_below_and_the_leaf_above() {
        let svg = svg(&sample::profile());
        let document = parse(&svg);
        let y = |name: &str| -> f64 {
            let group = document.descendants().find(|node| {
                let title = node.children().find(|child| child.tag_name().name() == "title");
                title.and_then(|title| title.text()).is_some_and(|tip| tip.starts_with(name))
            });
            let rect = group.unwrap().children().find(|child| child.tag_name().name() == "rect");
            rect.unwrap().attribute("y").unwrap().parse().unwrap()
        };
        assert!(y("all (") > y("main (") && y("main (") > y("buffer_new ("));
    }

    #[test]
    fn the_picture_is_reproducible() {
        assert_eq!(svg(&sample::profile()), svg(&sample::profile()));
    }

    #[test]
    fn an_empty_profile_is_a_picture_that_says_so() {
        let mut profile = Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::from_secs(3));
        let path = "/bin/a<&>\u{1b}\0".to_owned();
        profile.main_mapping = Some(profile.mappings.insert_full(Mapping { path, ..Mapping::default() }).0);
        let svg = svg(&profile);
        let texts = texts(&parse(&svg));
        assert!(texts.contains("Nothing to show: there were no bytes in use."), "{texts}");
        assert!(texts.contains(r"a<&>\u{1b}\0: bytes in use"), "{texts}");
        assert!(
            texts.contains("0 B, recorded for 3.0 s, every allocation recorded, nothing lost"),
            "{texts}"
        );
    }

    #[test]
    fn names_that_sort_badly_as_text_do_not_tear_a_frame_apart() {
        let mut profile = Profile::heap(1, SystemTime::UNIX_EPOCH, Duration::ZERO);
        let mapping = profile.unknown_mapping();
        for (address, name) in ["f", "f (x)", "a", "z"].into_iter().enumerate() {
            let function = Function { name: name.to_owned(), ..Function::default() };
            let function = profile.functions.insert_full(function).0;
            let lines = vec![Line { function, line: 0 }];
            profile.locations.insert(Location { address: address as u64, mapping, lines });
        }
        // f;a, f (x);a, f;z and f alone.
        for stack in [vec![2, 0], vec![2, 1], vec![3, 0], vec![0]] {
            profile.samples.push(Sample {
                stack,
                values: vec![1, 100, 1, 100],
                labels: vec![],
                ..Sample::default()
            });
        }
        let svg = svg(&profile);
        let tips = tips(&parse(&svg));
        assert_eq!(tips.iter().filter(|tip| tip.starts_with("f (300 bytes")).count(), 1, "{tips:?}");
    }

    proptest! {
        #[test]
        fn any_profile_makes_sound_xml_with_the_right_total(profile in arbitrary::profile()) {
            let total = stacks(&profile, 3).ok().and_then(|stacks: BTreeMap<_, u64>| {
                stacks.values().try_fold(0_u64, |sum, &value| sum.checked_add(value))
            });
            prop_assume!(total.is_some());
            let svg = svg(&profile);
            let document = parse(&svg);
            let all: Vec<String> = tips(&document).into_iter().filter(|tip| tip.starts_with("all (")).collect();
            match total.unwrap() {
                0 => prop_assert!(texts(&document).contains("Nothing to show")),
                total => {
                    // inferno's sums are doubles.
                    let total = (total as f64) as u64;
                    let total = format!("all ({} bytes, 100%)", units::count(total.into()));
                    prop_assert!(all.contains(&total), "{all:?} lacks {total}");
                }
            }
        }
    }
}
