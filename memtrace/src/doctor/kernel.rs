//! What this kernel is.

use std::fs;

use procfs::{ConfigSetting, KernelVersion, kernel_config};
use rustix::system::uname;
use serde::Serialize;

use super::check::Check;

/// The oldest kernel that memtrace is made for: the first that passes cookies to programs on uprobes.
pub(super) const OLDEST: KernelVersion = KernelVersion { major: 5, minor: 15, patch: 0 };

/// Where the kernel says what its types look like.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Options without which memtrace cannot work, for the case that one can be seen to be missing.
const OPTIONS: [&str; 5] = ["BPF_SYSCALL", "BPF_EVENTS", "UPROBES", "UPROBE_EVENTS", "DEBUG_INFO_BTF"];

/// What this kernel is.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    /// As `uname -r` has it.
    pub release: String,
    /// As `uname -m` has it.
    pub architecture: &'static str,
    /// Whether memtrace is made for it: Linux 5.15 or newer. Older kernels may do when distributions
    /// have added to them; the other checks say so.
    pub supported: bool,
    /// The details.
    pub checks: Vec<Check>,
}

impl KernelReport {
    pub(super) fn new() -> Self {
        let release = uname().release().to_string_lossy().into_owned();
        let supported = version(&release).is_some_and(|version| version >= OLDEST);
        let architecture = std::env::consts::ARCH;
        let checks =
            vec![check_version(&release, supported), check_btf(), check_options(&release), check_proc()];
        Self { release, architecture, supported, checks }
    }
}

/// The version in a release such as `6.1.0-18-amd64`.
pub(super) fn version(release: &str) -> Option<KernelVersion> {
    KernelVersion::from_str(release).ok()
}

fn check_version(release: &str, supported: bool) -> Check {
    let check = Check::useful(
        "kernel_version",
        format!("Linux {release}"),
        "everything",
        "memtrace tries; the checks below say what works",
    );
    let arch = std::env::consts::ARCH;
    if supported {
        check.ok(format!("{arch}; supported (5.15 or newer is)"))
    } else if version(release).is_none() {
        check.unknown("a version that memtrace does not understand")
    } else {
        check.missing(
            format!("{arch}; not supported (5.15 or newer is)"),
            "boot Linux 5.15 or newer; 6.6 and 6.13 make memtrace cheaper still",
        )
    }
}

fn check_btf() -> Check {
    let check = Check::required("btf", "type information (BTF)", "fitting the kernel program to this kernel");
    let remedy = "mount /sys if it is not mounted; otherwise boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as \
                  those of all large distributions are";
    match fs::File::open(BTF).and_then(|file| file.metadata()) {
        Ok(_) => check.ok(BTF),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            check.missing(format!("there is no {BTF}"), remedy)
        }
        Err(error) => check.failed(&error, |_| remedy.to_owned()),
    }
}

fn check_options(release: &str) -> Check {
    let check = Check::useful("kernel_config", "build configuration", "telling what else may be missing", "");
    let Ok(config) = kernel_config() else {
        return check.unknown(format!(
            "not to be seen: there is neither /proc/config.gz nor a readable /boot/config-{release}"
        ));
    };
    let is_set = |name: &str| matches!(config.get(&format!("CONFIG_{name}")), Some(ConfigSetting::Yes));
    let (set, missing): (Vec<&str>, Vec<&str>) = OPTIONS.iter().partition(|name| is_set(name));
    if missing.is_empty() {
        check.ok(format!("{} are set", set.join(", ")))
    } else {
        check.missing(
            format!("{} not set", missing.join(", ")),
            "boot a kernel built with these options; those of all large distributions are",
        )
    }
}

/// What to do about `/proc`.
pub(super) const MOUNT_PROC: &str = "mount the /proc of this PID namespace: mount -t proc proc /proc";

/// A `/proc` of another PID namespace (`unshare --pid` without `--mount-proc`) would lead to other
/// processes than the numbers say.
fn check_proc() -> Check {
    let check = Check::required("proc", "/proc", "finding the target, its code and its files");
    let remedy = MOUNT_PROC;
    match fs::read_link("/proc/self") {
        Ok(me) if me.as_os_str() == std::process::id().to_string().as_str() => check.ok("mounted"),
        Ok(_) => check.missing("it is that of another PID namespace", remedy),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            check.missing("not mounted, or of another PID namespace", remedy)
        }
        Err(error) => check.failed(&error, |_| remedy.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        for (release, new_enough) in [
            ("6.1.0-18-cloud-amd64", true),
            ("5.15.0-1051-azure", true),
            ("5.14.0-427.13.1.el9_4.x86_64", false),
            ("6.18.44-fc-v595", true),
        ] {
            assert_eq!(version(release).is_some_and(|version| version >= OLDEST), new_enough, "{release}");
        }
        assert_eq!(version("unknown"), None);
    }
}
