//! Compressed sections of ELF files (gABI, "Compressed Sections").

use std::io::Read;

use object::{CompressedData, CompressionFormat};

/// A section may not be larger. The largest real `.debug_frame` is some tens of megabytes.
pub(super) const MAX_SECTION: u64 = 1 << 30;

/// The content, or `None` if it is malformed, too large, or compressed in another way than zlib or zstd.
pub(super) fn decompress(section: &CompressedData<'_>) -> Option<Vec<u8>> {
    let size = section.uncompressed_size;
    if size > MAX_SECTION {
        return None;
    }
    let data = section.data;
    match section.format {
        CompressionFormat::None => Some(data.to_vec()),
        CompressionFormat::Zlib => read(flate2::read::ZlibDecoder::new(data), size),
        CompressionFormat::Zstandard => read(zstd::Decoder::new(data).ok()?, size),
        _ => None,
    }
}

/// Reads exactly `size` bytes. The header's word for the size is not taken before the bytes are there.
fn read(decoder: impl Read, size: u64) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    decoder.take(size).read_to_end(&mut data).ok()?;
    (data.len() as u64 == size).then_some(data)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn section(format: CompressionFormat, data: &[u8], uncompressed_size: u64) -> Option<Vec<u8>> {
        decompress(&CompressedData { format, data, uncompressed_size })
    }

    #[test]
    fn both_ways_are_undone() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&[7; 5000]).unwrap();
        let zlib = zlib.finish().unwrap();
        assert_eq!(section(CompressionFormat::Zlib, &zlib, 5000), Some(vec![7; 5000]));
        let zstd = zstd::encode_all([7; 5000].as_slice(), 1).unwrap();
        assert_eq!(section(CompressionFormat::Zstandard, &zstd, 5000), Some(vec![7; 5000]));
        assert_eq!(section(CompressionFormat::None, &[1, 2], 2), Some(vec![1, 2]));
    }

    #[test]
    fn lies_are_refused() {
        let zstd = zstd::encode_all([7; 5000].as_slice(), 1).unwrap();
        assert_eq!(section(CompressionFormat::Zstandard, &zstd, 5001), None);
        assert_eq!(section(CompressionFormat::Zstandard, &zstd[..12], 5000), None);
        assert_eq!(section(CompressionFormat::Zlib, &zstd, 5000), None);
        assert_eq!(section(CompressionFormat::Zstandard, &zstd, u64::MAX), None);
    }
}
