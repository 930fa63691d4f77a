//! What this process is allowed to do.

use std::{fs, os::linux::fs::MetadataExt};

use procfs::process::Process;

use super::check::Check;

/// A capability, by its number in include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capability(u32);

const SYS_PTRACE: Capability = Capability(19);
const SYS_ADMIN: Capability = Capability(21);
const SYS_RESOURCE: Capability = Capability(24);
const PERFMON: Capability = Capability(38);
const BPF: Capability = Capability(39);

/// What to do where something was refused.
pub(super) fn remedy() -> String {
    let effective = Effective::read();
    let all = [BPF, PERFMON, SYS_PTRACE, SYS_ADMIN].iter().all(|&capability| effective.has(capability));
    (if all { REFUSED_ALL_THE_SAME } else { REMEDY }).to_owned()
}

const REFUSED_ALL_THE_SAME: &str = "the capabilities are held, so something else refuses: a user namespace (see \
    Privileges), a container's seccomp profile, or a security module (look for it with dmesg)";

/// How to get capabilities, whichever is missing.
const REMEDY: &str = "run memtrace as root; or give its binary the capabilities: setcap \
    cap_bpf,cap_perfmon,cap_sys_ptrace,cap_sys_admin+ep /path/to/memtrace; in a container, have it started with them";

/// Inodes of the initial namespaces (include/linux/proc_ns.h).
const INITIAL_USER: u64 = 0xEFFF_FFFD;
const INITIAL_PID: u64 = 0xEFFF_FFFC;

/// Looks at everything that grants or takes privileges.
pub(super) fn checks() -> Vec<Check> {
    let effective = Effective::read();
    let mut checks = vec![
        // bpf_capable() and perfmon_capable() in include/linux/capability.h: CAP_SYS_ADMIN includes both.
        effective.check(
            Check::required("cap_bpf", "CAP_BPF", "loading the kernel program and creating its tables"),
            &[BPF, SYS_ADMIN],
        ),
        effective.check(
            Check::required("cap_perfmon", "CAP_PERFMON", "setting uprobes, and reading the target's stacks"),
            &[PERFMON, SYS_ADMIN],
        ),
        effective.check(
            Check::useful(
                "cap_sys_ptrace",
                "CAP_SYS_PTRACE",
                "reading the mappings of other users' processes",
                "only memtrace's own user's processes can be traced",
            ),
            &[SYS_PTRACE],
        ),
        effective.check(
            Check::useful(
                "cap_sys_admin",
                "CAP_SYS_ADMIN",
                "opening the very files that are mapped (/proc/PID/map_files), and, since July 2025 \
                 (Linux 6.16, 6.12.39, 6.6.99, 6.1.146, 5.15.189), setting uprobes as perf events",
                "files are opened by their paths, which fails for those that were replaced or deleted; what it \
                 means for probes is tried below",
            ),
            &[SYS_ADMIN],
        ),
        memory_limit(&effective),
    ];
    checks.push(user_namespace());
    checks.push(pid_namespace());
    checks.push(perf_event_paranoid(&effective));
    checks.push(unprivileged_bpf(&effective));
    checks.push(lockdown());
    checks
}

/// The effective set, or `None` where `/proc/self/status` cannot be read.
struct Effective(Option<u64>);

impl Effective {
    fn read() -> Self {
        Self(Process::myself().and_then(|me| me.status()).ok().map(|status| status.capeff))
    }

    fn has(&self, capability: Capability) -> bool {
        self.0.is_some_and(|set| set >> capability.0 & 1 == 1)
    }

    /// One of `enough` does.
    fn check(&self, check: Check, enough: &[Capability]) -> Check {
        if self.0.is_none() {
            return check.unknown("/proc/self/status cannot be read");
        }
        match enough.iter().position(|&capability| self.has(capability)) {
            Some(0) => check.ok(""),
            Some(_) => check.ok("included in CAP_SYS_ADMIN"),
            None => check.missing("not held", REMEDY),
        }
    }
}

/// Only kernels before 5.11 counted the memory of BPF maps against RLIMIT_MEMLOCK.
fn memory_limit(effective: &Effective) -> Check {
    let check = Check::useful("cap_sys_resource", "CAP_SYS_RESOURCE", "nothing since Linux 5.11", "");
    let held = if effective.has(SYS_RESOURCE) { "held" } else { "not held" };
    check.ok(format!("{held}; not needed: since Linux 5.11 BPF memory counts against the cgroup"))
}

fn user_namespace() -> Check {
    let check = Check::required("user_namespace", "user namespace", "making the capabilities count for BPF");
    match fs::metadata("/proc/self/ns/user").map(|namespace| namespace.st_ino()) {
        Ok(INITIAL_USER) => check.ok("the initial one"),
        Ok(_) => check.missing(
            "not the initial one: capabilities that are held in it do not count for BPF",
            "run memtrace outside of the user namespace: as root of the machine, not in a rootless container",
        ),
        Err(_) => check.unknown("/proc/self/ns/user cannot be read"),
    }
}

fn pid_namespace() -> Check {
    let check = Check::useful(
        "pid_namespace",
        "PID namespace",
        "seeing all processes",
        "only processes of this namespace can be traced, by their numbers in it",
    );
    match fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.st_ino()) {
        Ok(INITIAL_PID) => check.ok("the initial one"),
        Ok(_) => check.missing(
            "not the initial one",
            "to trace processes outside of this container, start it in the host's PID namespace (--pid=host)",
        ),
        Err(_) => check.unknown("/proc/self/ns/pid cannot be read"),
    }
}

fn sysctl(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

fn perf_event_paranoid(effective: &Effective) -> Check {
    let check = Check::useful(
        "perf_event_paranoid",
        "kernel.perf_event_paranoid",
        "letting perf events be opened",
        "CAP_PERFMON is needed",
    );
    match sysctl("perf_event_paranoid") {
        None => check.unknown("cannot be read"),
        // Values above 2 are patches of Debian, Ubuntu and Android, not all of which know CAP_PERFMON.
        Some(value) if value > 2 && effective.has(PERFMON) && !effective.has(SYS_ADMIN) => check.missing(
            format!("{value}: a distribution's own value, for which CAP_PERFMON may not be enough"),
            "if probes are refused: sysctl kernel.perf_event_paranoid=2, or add CAP_SYS_ADMIN",
        ),
        Some(value) if effective.has(SYS_ADMIN) => {
            check.ok(format!("{value}; does not matter with CAP_SYS_ADMIN"))
        }
        Some(value) if effective.has(PERFMON) => {
            check.ok(format!("{value}; does not matter with CAP_PERFMON"))
        }
        Some(value) => check.ok(format!("{value}; even -1 would not allow uprobes without CAP_PERFMON")),
    }
}

fn unprivileged_bpf(effective: &Effective) -> Check {
    let name = "kernel.unprivileged_bpf_disabled";
    let check = Check::useful("unprivileged_bpf_disabled", name, "nothing", "");
    let held = effective.has(BPF) || effective.has(SYS_ADMIN);
    match sysctl("unprivileged_bpf_disabled") {
        None => check.unknown("cannot be read"),
        Some(value) if held => check.ok(format!("{value}; does not matter with CAP_BPF")),
        Some(value) => {
            check.ok(format!("{value}; even 0 would not allow programs on uprobes without CAP_BPF"))
        }
    }
}

/// See kernel_lockdown(7).
fn lockdown() -> Check {
    let check = Check::useful(
        "lockdown",
        "kernel lockdown",
        "reading kernel memory from programs",
        "whether the kernel program loads all the same is tried below",
    );
    let Ok(modes) = fs::read_to_string("/sys/kernel/security/lockdown") else {
        return check.unknown("cannot be seen: there is no readable /sys/kernel/security/lockdown");
    };
    match modes.split(['[', ']']).nth(1) {
        Some("confidentiality") => check.missing(
            "confidentiality: programs may not read kernel memory",
            "boot with lockdown=integrity or without; some firmware sets it together with Secure Boot",
        ),
        Some(mode) => check.ok(format!("{mode}; only confidentiality would matter")),
        None => check.unknown(modes.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn outcome(set: u64) -> (Outcome, String) {
        let check = Check::required("cap_bpf", "CAP_BPF", "");
        let check = Effective(Some(set)).check(check, &[BPF, SYS_ADMIN]);
        (check.outcome, check.detail)
    }

    #[test]
    fn the_administrator_includes_bpf() {
        assert_eq!(outcome(1 << 39), (Outcome::Ok, String::new()));
        assert_eq!(outcome(1 << 21), (Outcome::Ok, "included in CAP_SYS_ADMIN".to_owned()));
        assert_eq!(outcome(1 << 38).0, Outcome::Missing);
    }
}
