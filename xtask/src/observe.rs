//! What a running process costs: CPU time, memory, descriptors; as /proc tells it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// User and system time that process `pid` has used so far, in all its threads.
///
/// # Errors
/// When it has ended.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let text = read(pid, "stat")?;
    // The name in parentheses may hold anything; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
    let fields = text.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace());
    let ticks: Option<u64> =
        fields.and_then(|fields| fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().ok()).sum());
    let ticks = ticks.with_context(|| format!("cannot understand /proc/{pid}/stat"))?;
    // SAFETY: sysconf takes a number and has no other preconditions (sysconf(3)).
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Memory of process `pid` that is in RAM now, in bytes.
///
/// # Errors
/// When it has ended.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let text = read(pid, "status")?;
    let kibibytes = text.lines().find_map(|line| number(line, "VmRSS:"));
    Ok(kibibytes.with_context(|| format!("/proc/{pid}/status has no VmRSS"))? * 1024)
}

/// Memory of the BPF maps that process `pid` has open, in bytes. That is the kernel's, and in no resident
/// set.
///
/// # Errors
/// When the process has ended.
pub(crate) fn bpf_maps(pid: u32) -> Result<u64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
    // Two descriptors may be of the same map.
    let mut maps = BTreeMap::new();
    for entry in entries.flatten() {
        // A descriptor may have been closed since.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let field = |name| text.lines().find_map(|line| number(line, name));
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

/// How many descriptors process `pid` has open.
///
/// # Errors
/// When it has ended.
pub(crate) fn descriptors(pid: u32) -> Result<usize> {
    let directory = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?.count())
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// The number after `name` at the beginning of `line`.
fn number(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_memory_and_files_are_seen() {
        let own = std::process::id();
        let (time, memory, files) =
            (cpu_time(own).unwrap(), resident(own).unwrap(), descriptors(own).unwrap());
        let ballast = vec![1u8; 64 << 20];
        let file = fs::File::open("/proc/self/stat").unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) && cpu_time(own).unwrap() <= time {
            std::hint::black_box(&ballast);
        }
        assert!(cpu_time(own).unwrap() > time);
        // Other tests run in this process at the same time.
        assert!(resident(own).unwrap() > memory + (32 << 20));
        assert!(descriptors(own).unwrap() > 0 && files > 0);
        drop(file);
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        assert_eq!(number("VmRSS:\t   1234 kB", "VmRSS:"), Some(1234));
        assert_eq!(number("VmRSSX: 1", "VmRSS:"), None);
    }
}
