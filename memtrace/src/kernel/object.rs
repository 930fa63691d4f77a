//! The BPF object that is embedded in this library, and the digest of the sources it was made from.
//!
//! The build script chose it and compared its digest with the sources; see `build.rs`.

/// The object as ELF, aligned as aya's parser needs it.
pub fn bytes() -> &'static [u8] {
    aya::include_bytes_aligned!(env!("MEMTRACE_BPF_EMBEDDED"))
}

/// SHA-256 of the object's sources in hexadecimal: two builds with the same digest run the same kernel
/// program, whichever machine made it. What goes into it is defined in `build/source_digest.rs`.
pub fn source_digest() -> &'static str {
    env!("MEMTRACE_BPF_DIGEST")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aya_reads_the_object_and_skips_the_digest() {
        let object = aya_obj::Object::parse(bytes()).expect("aya parses the object");
        assert!(!object.programs.is_empty());
        assert!(object.btf.is_some(), "the object was linked without --btf");
    }

    #[test]
    fn the_digest_is_the_one_that_the_object_carries() {
        let carried = bytes().windows(64).any(|window| window == source_digest().as_bytes());
        assert!(carried, "{} is not in the object", source_digest());
    }
}
