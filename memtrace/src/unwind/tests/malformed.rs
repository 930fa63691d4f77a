//! Sections that were made to break things.

use object::Architecture;
use proptest::prelude::*;

use super::super::sections::Cfi;
use super::super::{Image, compile};
use super::synthetic::*;

fn section() -> Vec<u8> {
    let mut builder = Builder::default();
    let plain = builder.cie("", 16, &[DEF_CFA, 7, 8, OFFSET | 16, 1]);
    let signal = builder.cie("zS", 16, &[]);
    for number in 0..8 {
        let start = 0x2000 + number * 0x30;
        let steps = [ADVANCE | 4, DEF_CFA, 7, 16, 0x0a, ADVANCE | 8, DEF_CFA, 6, 16, OFFSET | 6, 2, 0x0b];
        builder.fde(plain, start..start + 0x28, &steps);
    }
    builder.fde(signal, 0x4000..0x4010, &[DEF_CFA_EXPRESSION, 3, 0x77, 16, DEREF]);
    builder.data
}

/// Everything holds for whatever came out that the kernel program relies on.
fn check(cfi: &Cfi<'_>) {
    let Ok(rows) = compile(cfi) else { return };
    assert!(rows.rows.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
    assert_eq!(rows.rows.last().unwrap().1, 0);
    let image = Image::new(&rows).unwrap();
    for offset in (0..image.span()).step_by(64) {
        assert!(image.lookup(offset).is_some());
    }
}

proptest! {
    #[test]
    fn mutated_sections(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12)) {
        let mut builder = Builder { data: section() };
        for (place, value) in changes {
            let place = place.index(builder.data.len());
            builder.data[place] = value;
        }
        check(&builder.cfi(Architecture::X86_64));
    }

    #[test]
    fn arbitrary_sections(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        check(&Builder { data }.cfi(Architecture::Aarch64));
    }

    #[test]
    fn mutated_files(changes in proptest::collection::vec((0..4096_usize, any::<u8>()), 1..8)) {
        let mut file = vdso();
        for (place, value) in changes {
            let place = place % file.len();
            file[place] = value;
        }
        // What it becomes does not matter, but that it ends.
        if let Ok(cfi) = Cfi::read(file.as_slice()) && let Ok(rows) = compile(&cfi) {
            let _ = Image::new(&rows);
        }
    }
}

/// A small file with all that a file has.
fn vdso() -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
    let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
    let mut data = vec![0; (end - start) as usize];
    std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut data, start).unwrap();
    data
}

#[test]
fn an_unmutated_section_is_compiled() {
    let rows = compile(&Builder { data: section() }.cfi(Architecture::X86_64)).unwrap();
    assert_eq!((rows.counts.functions, rows.counts.malformed), (9, 0));
    assert!(compile(&Cfi::read(vdso().as_slice()).unwrap()).is_ok());
}

#[test]
fn a_long_cie_is_refused() {
    let mut builder = Builder::default();
    let cie = builder.cie("", 16, &[0; 600]);
    builder.fde(cie, 0x2000..0x2010, &[]);
    assert!(compile(&builder.cfi(Architecture::X86_64)).is_err());
}
