//! Says how large the unwind tables of ELF files are, and how long they take:
//! `cargo run --release --example unwind_table -- FILE...`

use std::{env, error::Error, fs, fs::File, time::Instant};

use memtrace::unwind::{
    Image,
    cache::{Cache, DEFAULT_LIMIT, Key},
    compile,
    sections::Cfi,
};
use object::ReadCache;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let cache = Cache::at(&directory.path().join("cache"), DEFAULT_LIMIT)?;
    println!("functions     rows unsupported  rules  pages      KiB  compile ms  cached ms  file");
    for path in env::args_os().skip(1) {
        let begun = Instant::now();
        let data = ReadCache::new(File::open(&path)?);
        let rows = compile(&Cfi::read(&data)?)?;
        let image = Image::new(&rows)?;
        let compiled = begun.elapsed();

        let key = Key::new("", &fs::metadata(&path)?);
        cache.store(&key, &image)?;
        let begun = Instant::now();
        let again = cache.load(&key);
        let loaded = begun.elapsed();
        assert_eq!(again.as_ref(), Some(&image), "the cache gave back another table");

        println!(
            "{:>9} {:>8} {:>11} {:>6} {:>6} {:>8} {:>11.2} {:>10.2}  {}",
            image.counts.functions,
            image.rows,
            image.counts.unsupported,
            image.rules,
            image.pages.len(),
            image.bytes() >> 10,
            compiled.as_secs_f64() * 1e3,
            loaded.as_secs_f64() * 1e3,
            path.display(),
        );
        if image.counts.malformed + image.counts.outside > 0 {
            println!("          {} malformed, {} outside", image.counts.malformed, image.counts.outside);
        }
    }
    Ok(())
}
