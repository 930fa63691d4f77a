//! Getting the images of many modules at once.

use std::fs::File;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use object::ReadCache;

use super::cache::{Cache, Key};
use super::compile::{CompileError, compile};
use super::image::{Image, TooLarge};
use super::sections::Cfi;
use crate::symbolize::{Failure, Module};

/// Why a module has no table. Reads well after a module's name and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// Code that no file has: that of a JIT compiler, say.
    #[error("there is no file")]
    NoFile,
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable,
    /// See [`CompileError`].
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// See [`TooLarge`].
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// All tables together would exceed their limit.
    #[error("the memory for unwind tables is used up")]
    NoRoom,
    /// The kernel did not take it.
    #[error("the kernel refused the unwind table")]
    Refused,
}

/// What one module came to.
pub(super) struct Loaded {
    pub(super) image: Result<Image, LeftOut>,
    /// Whether the image was in the cache.
    pub(super) cached: bool,
}

/// A module whose image is wanted.
pub(super) struct Wanted(pub(super) Arc<Module>);

impl Wanted {
    fn size(&self) -> u64 {
        let path = self.0.open_path().ok();
        path.and_then(|path| path.metadata().ok()).map_or(0, |metadata| metadata.len())
    }

    fn load(&self, cache: Option<&Cache>) -> Loaded {
        let file = self.0.open_path().map_err(|failure| match failure {
            Failure::NoFile => LeftOut::NoFile,
            Failure::Malformed => CompileError::NotElf.into(),
            _ => LeftOut::Unreadable,
        });
        match file.and_then(|path| File::open(path).map_err(|_| LeftOut::Unreadable)) {
            Ok(file) => load(file, &self.0.build_id(), cache),
            Err(error) => Loaded { image: Err(error), cached: false },
        }
    }
}

/// Takes the image of a file from the cache, or makes it and keeps it there.
fn load(file: File, build_id: &str, cache: Option<&Cache>) -> Loaded {
    let key = file.metadata().map(|metadata| Key::new(build_id, &metadata));
    let cache = cache.zip(key.ok());
    if let Some(image) = cache.as_ref().and_then(|(cache, key)| cache.load(key)) {
        return Loaded { image: Ok(image), cached: true };
    }
    let image = Cfi::read(&ReadCache::new(file)).and_then(|cfi| compile(&cfi)).map_err(LeftOut::from);
    let image = image.and_then(|rows| Ok(Image::new(&rows)?));
    if let (Ok(image), Some((cache, key))) = (&image, cache)
        && let Err(error) = cache.store(&key, image)
    {
        tracing::debug!("failed to keep an unwind table on disk: {error}");
    }
    Loaded { image, cached: false }
}

/// Loads all, the largest first, on as many threads as there are CPUs. `take` is called in the order in which
/// they are done.
pub(super) fn load_all(
    mut wanted: Vec<Wanted>,
    cache: Option<&Cache>,
    mut take: impl FnMut(&Wanted, Loaded),
) {
    wanted.sort_by_cached_key(|wanted| std::cmp::Reverse(wanted.size()));
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len());
    let next = AtomicUsize::new(0);
    // Few images are in memory at once, however many are made.
    let (send, receive) = mpsc::sync_channel(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            let send = send.clone();
            let (next, wanted) = (&next, &wanted);
            scope.spawn(move || {
                while let Some(one) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if send.send((one, one.load(cache))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        for (wanted, loaded) in receive {
            take(wanted, loaded);
        }
    });
}
