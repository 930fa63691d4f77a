//! A made-up profile with one of everything: several mappings, inlined functions, C++ and Rust names,
//! labels, addresses without symbols, a loss.

use std::time::{Duration, SystemTime};

use memtrace::profile::{Function, Line, Location, Mapping, Profile, Sample};

/// Builds the profile as a source does: tables first, then samples that refer to them by index.
pub(crate) fn profile() -> Profile {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_250);
    let mut profile = Profile::heap(512 * 1024, time, Duration::from_millis(12_500));

    let libc = mapping(&mut profile, "/usr/lib/x86_64-linux-gnu/libc.so.6", 0x7f12_0000_0000, 0x26000);
    let main = mapping(&mut profile, "/srv/app/bin/cached", 0x55d0_0000_0000, 0x4000);
    let stdcxx =
        mapping(&mut profile, "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30", 0x7f12_1000_0000, 0x9a000);
    let unknown = profile.unknown_mapping();
    profile.main_mapping = Some(main);

    let buffer_new = function(&mut profile, "buffer_new", "buffer_new", "/src/buffer.h", 10);
    let insert = function(&mut profile, "cache_insert", "cache_insert", "/src/cache.c", 25);
    let entry = function(&mut profile, "main", "main", "/src/main.c", 40);
    let index = function(
        &mut profile,
        "std::map<std::string, std::vector<int>>::operator[](std::string&&)",
        "_ZNSt3mapINSt7__cxx1112basic_stringIcEESt6vectorIiEEixEOS2_",
        "/src/index.cpp",
        71,
    );
    let decode = function(
        &mut profile,
        "<app::Frame<[u8; 8]> as app::Decode>::decode::{{closure}}",
        "<app::Frame<[u8; 8]> as app::Decode>::decode::{{closure}}",
        "/src/größe/décode.rs",
        102,
    );
    let new = function(&mut profile, "operator new(unsigned long)", "_Znwm", "", 0);

    let start = location(&mut profile, libc, 0x1249, &[]);
    let main_57 = location(&mut profile, main, 0x1456, &[(entry, 57)]);
    let insert_31 = location(&mut profile, main, 0x1310, &[(buffer_new, 14), (insert, 31)]);
    let index_80 = location(&mut profile, main, 0x2a40, &[(index, 80)]);
    let decode_110 = location(&mut profile, main, 0x3b08, &[(decode, 110)]);
    let new_leaf = location(&mut profile, stdcxx, 0x10a0, &[(new, 0)]);
    let jitted = location(&mut profile, unknown, 0x7f11_dead_b000, &[]);

    let mut sample = |stack: &[usize], values: [i64; 4], thread: &str| {
        let labels = match thread {
            "" => vec![],
            thread => vec![("thread".to_owned(), thread.to_owned())],
        };
        profile.samples.push(Sample {
            stack: stack.to_vec(),
            values: values.to_vec(),
            labels,
            ..Sample::default()
        });
    };
    const MIB: i64 = 1 << 20;
    sample(&[insert_31, main_57, start], [4096, 16 * MIB, 2048, 8 * MIB], "");
    sample(&[new_leaf, index_80, main_57, start], [300, 3 * MIB, 100, MIB], "worker-1");
    sample(&[new_leaf, index_80, main_57, start], [200, 2 * MIB, 50, MIB / 2], "worker-2");
    sample(&[decode_110, main_57, start], [90_000, 900 * MIB, 3, 96 * 1024], "");
    sample(&[jitted, main_57, start], [10, MIB, 10, MIB], "");
    // Freed again: allocated, but not in use.
    sample(&[index_80, main_57, start], [5_000_000, 5_000 * MIB, 0, 0], "");

    profile.comments.push("memtrace record -p 4711, glibc malloc".to_owned());
    profile.losses.add(
        "ring_full",
        12,
        "Allocations were not recorded because the ring buffer was full; in-use values are too low.",
    );
    profile
}

fn mapping(profile: &mut Profile, path: &str, start: u64, file_offset: u64) -> usize {
    let build_id = format!("{:040x}", start ^ file_offset);
    let mapping = Mapping { start, end: start + 0x10_0000, file_offset, path: path.to_owned(), build_id };
    profile.mappings.insert_full(mapping).0
}

fn function(profile: &mut Profile, name: &str, system_name: &str, file: &str, start_line: u32) -> usize {
    let (name, system_name) = (name.to_owned(), system_name.to_owned());
    profile.functions.insert_full(Function { name, system_name, file: file.to_owned(), start_line }).0
}

/// `offset` counts from the mapping's start; `lines` are functions with lines, the innermost first.
fn location(profile: &mut Profile, mapping: usize, offset: u64, lines: &[(usize, u32)]) -> usize {
    let address = profile.mappings[mapping].start + offset;
    let lines = lines.iter().map(|&(function, line)| Line { function, line }).collect();
    profile.locations.insert_full(Location { address, mapping, lines }).0
}
