//! Debian's kernels, taken out of their packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::repo::Repo;
use crate::setup::apt;

/// The newest kernel of a series, as a file that can be booted: from an earlier call, or downloaded now.
///
/// # Errors
/// When this is not a Debian that has the package.
pub(super) fn ensure(repo: &Repo, series: &str) -> Result<PathBuf> {
    let directory = repo.tools().join("kernels").join(series);
    if let Some(image) = image_in(&directory.join("boot")) {
        return Ok(image);
    }
    let listing =
        process::output(Command::new("apt-cache").args(["search", "--names-only", "linux-image-"]))?;
    let package = newest(&listing, series)
        .with_context(|| format!("apt knows no kernel of the series {series}: is this Debian 12 amd64?"))?;
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    println!("downloading {package}");
    let file = apt::download(package, &directory)?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&directory))?;
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    image_in(&directory.join("boot")).with_context(|| format!("{package} holds no kernel"))
}

fn image_in(directory: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.flatten();
    entries
        .find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .map(|entry| entry.path())
}

/// The last of a series among packages as `apt-cache search` lists them, of those that are small, as machines
/// without hardware need them.
fn newest<'a>(listing: &'a str, series: &str) -> Option<&'a str> {
    let names = listing.lines().filter_map(|line| line.split(' ').next());
    let of_series = names.filter_map(|name| {
        let version = name.strip_prefix("linux-image-")?.strip_suffix("-cloud-amd64-unsigned")?;
        let rest = version.strip_prefix(series)?.strip_prefix('.')?;
        let numbers: Vec<u32> =
            rest.split(|at: char| !at.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        Some((numbers, name))
    });
    of_series.max().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_chosen() {
        let listing = "linux-image-6.1.0-9-cloud-amd64-unsigned - Linux 6.1\n\
                       linux-image-6.1.0-56-cloud-amd64-unsigned - Linux 6.1\n\
                       linux-image-6.1.0-57-cloud-amd64 - Linux 6.1 (signed)\n\
                       linux-image-6.12.9+deb12-cloud-amd64-unsigned - Linux 6.12\n\
                       linux-image-6.12.10+deb12-cloud-amd64-unsigned - Linux 6.12\n";
        assert_eq!(newest(listing, "6.1"), Some("linux-image-6.1.0-56-cloud-amd64-unsigned"));
        assert_eq!(newest(listing, "6.12"), Some("linux-image-6.12.10+deb12-cloud-amd64-unsigned"));
        assert_eq!(newest(listing, "5.15"), None);
    }
}
