//! Where a statically defined probe (USDT) of a process has its arguments.

/// An argument is the number [`ArgumentPlace::value`] itself.
pub const IN_PROBE: u8 = 1;
/// An argument is in a register.
pub const IN_REGISTER: u8 = 2;
/// An argument is in memory: [`ArgumentPlace::value`] bytes behind where a register points.
pub const IN_MEMORY: u8 = 3;

/// Where an argument is when the probe is reached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ArgumentPlace {
    /// The number itself, or the distance in bytes from where the register points.
    pub value: i64,
    /// [`IN_PROBE`], [`IN_REGISTER`] or [`IN_MEMORY`]; 0 where there is no such argument.
    pub kind: u8,
    /// The register's number in DWARF (System V ABI, AMD64, figure 3.36).
    pub register: u8,
    /// How many bytes the argument has: 1, 2, 4 or 8.
    pub size: u8,
    /// 1 where it is a signed number.
    pub signed: u8,
    /// How many bits of the register are below it: 8 for `ah` and its like.
    pub shift: u8,
    /// Always 0: the record has no hidden padding.
    pub reserved: [u8; 3],
}

impl ArgumentPlace {
    /// The argument, of what stands in its place.
    #[inline(always)]
    pub fn of(&self, found: u64) -> u64 {
        let above = 64_u32.wrapping_sub(u32::from(self.size) * 8) & 63;
        let left = (found >> (self.shift & 63)) << above;
        if self.signed != 0 { (left as i64 >> above) as u64 } else { left >> above }
    }
}

/// The most arguments of a probe that memtrace reads.
pub const USDT_ARGUMENTS: usize = 3;

/// How many probes with arguments in different places can be set, and one for none.
pub const MAX_USDT_PLACES: u16 = 512;

/// Where a probe has its arguments: `alloc` a block's address, its size and its weight, `free` an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UsdtPlaces {
    /// The first arguments, in their order.
    pub arguments: [ArgumentPlace; USDT_ARGUMENTS],
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, only integers, no padding (see the test), every bit pattern valid.
    unsafe impl aya::Pod for super::UsdtPlaces {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_both_sides_expect() {
        assert_eq!(size_of::<ArgumentPlace>(), 16);
        assert_eq!(size_of::<UsdtPlaces>(), USDT_ARGUMENTS * 16);
    }

    #[test]
    fn arguments_are_as_wide_as_they_say() {
        let place = |size, signed, shift| ArgumentPlace { size, signed, shift, ..ArgumentPlace::default() };
        let found = 0x8877_6655_f4f3_f2f1;
        assert_eq!(place(8, 0, 0).of(found), found);
        assert_eq!(place(8, 1, 0).of(found), found);
        assert_eq!(place(4, 0, 0).of(found), 0xf4f3_f2f1);
        assert_eq!(place(4, 1, 0).of(found), 0xffff_ffff_f4f3_f2f1);
        assert_eq!(place(2, 0, 0).of(found), 0xf2f1);
        assert_eq!(place(1, 0, 0).of(found), 0xf1);
        assert_eq!(place(1, 0, 8).of(found), 0xf2);
        assert_eq!(place(1, 1, 8).of(found), 0xffff_ffff_ffff_fff2);
        // Whatever else stands there does no harm.
        place(0, 0, 0xff).of(found);
        place(0xff, 1, 0).of(found);
    }
}
