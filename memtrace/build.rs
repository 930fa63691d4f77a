//! Embeds the BPF object, and refuses one that was built from other sources than those beside it.
//!
//! The object is the committed `bpf/memtrace.<arch>.bpf.o`, or the one that `MEMTRACE_BPF_OBJECT` names.
//! Where the sources are present (a checkout), their digest must be the one in the object. Where they
//! are not (a published package), the object is taken as it is. Either way the library can say which
//! digest it carries.

#[path = "build/source_digest.rs"]
mod source_digest;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

fn main() {
    if let Err(message) = embed() {
        // Cargo prints this as the crate's error and fails the build.
        println!("cargo::error={message}");
    }
}

fn embed() -> Result<(), String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let path = object_path(&package)?;
    println!("cargo::rerun-if-changed={}", path.display());
    let content = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let digest = carried_digest(&content).map_err(|error| {
        format!("{} is not an object of `cargo xtask build-ebpf`: {error}", path.display())
    })?;

    let root = package.parent().unwrap_or(&package);
    if root.join("memtrace-ebpf").is_dir() {
        for input in source_digest::INPUTS {
            println!("cargo::rerun-if-changed={}", root.join(input).display());
        }
        let expected = source_digest::of_sources(root).map_err(|error| error.to_string())?;
        if digest != expected {
            return Err(format!(
                "{} was built from other sources than those in memtrace-ebpf and memtrace-common (it carries \
                 {digest}, they have {expected}); run `cargo xtask build-ebpf`",
                path.display()
            ));
        }
    }

    let embedded = Path::new(&variable("OUT_DIR")?).join("memtrace.bpf.o");
    fs::write(&embedded, content).map_err(|error| format!("cannot write {}: {error}", embedded.display()))?;
    println!("cargo::rustc-env=MEMTRACE_BPF_EMBEDDED={}", embedded.display());
    println!("cargo::rustc-env=MEMTRACE_BPF_DIGEST={digest}");
    Ok(())
}

fn object_path(package: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=MEMTRACE_BPF_OBJECT");
    if let Some(path) = env::var_os("MEMTRACE_BPF_OBJECT") {
        return Ok(PathBuf::from(path));
    }
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let path = package.join("bpf").join(format!("memtrace.{arch}.bpf.o"));
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "there is no BPF object for {arch} ({}): make one with `cargo xtask build-ebpf`, or name one with \
         MEMTRACE_BPF_OBJECT",
        path.display()
    ))
}

fn carried_digest(content: &[u8]) -> Result<String, String> {
    let elf = object::File::parse(content).map_err(|error| error.to_string())?;
    let section = elf
        .section_by_name(source_digest::SECTION)
        .ok_or_else(|| format!("it has no section {}", source_digest::SECTION))?;
    let digest = section.data().map_err(|error| error.to_string())?;
    match std::str::from_utf8(digest) {
        Ok(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("its section {} does not hold a SHA-256 digest", source_digest::SECTION)),
    }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo did not set {name}: {error}"))
}
