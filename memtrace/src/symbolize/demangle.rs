//! Names as people read them.

use std::fmt::{self, Write};

/// Longer names are left as they are: a crafted symbol of a few bytes can demangle to gigabytes.
const MAX_LENGTH: usize = 16 << 10;

/// The demangled name of a Rust or C++ symbol, or `None` for any other.
///
/// Rust comes first: its older names are valid C++ names as well, with a hash at the end.
pub(super) fn demangle(name: &str) -> Option<String> {
    let mut text = Bounded(String::new());
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        return write!(text, "{symbol:#}").is_ok().then_some(text.0);
    }
    // Anything else would be read as a type: `i` as `int`.
    if !name.starts_with("_Z") && !name.starts_with("___Z") {
        return None;
    }
    let symbol = cpp_demangle::BorrowedSymbol::new(name.as_bytes()).ok()?;
    symbol.structured_demangle(&mut text, &cpp_demangle::DemangleOptions::default()).is_ok().then_some(text.0)
}

/// A string that refuses to grow beyond [`MAX_LENGTH`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_LENGTH {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_and_cpp_and_neither() {
        let legacy = demangle("_ZN4core9panicking9panic_fmt17h5f1a6fd39197ad62E");
        assert_eq!(legacy.as_deref(), Some("core::panicking::panic_fmt"));
        assert_eq!(demangle("_RNvC6_123foo3bar").as_deref(), Some("123foo::bar"));
        assert_eq!(demangle("_ZN5space3fooEibc").as_deref(), Some("space::foo(int, bool, char)"));
        assert_eq!(demangle("malloc"), None);
        assert_eq!(demangle("i"), None);
    }

    #[test]
    fn a_name_that_explodes_is_left_alone() {
        // Each level is a template of the level before it, twice over.
        let mut name = "_Z1fI1aI".to_owned();
        name.push_str("S_S_E");
        for level in 0..30 {
            write!(name, "1bIS{0}_S{0}_E", ["", "0", "1", "2"][level.min(3)]).unwrap();
        }
        name.push_str("Evv");
        assert!(demangle(&name).is_none_or(|text| text.len() <= MAX_LENGTH));
        let long = format!("_Z{}{}v", MAX_LENGTH + 1, "x".repeat(MAX_LENGTH + 1));
        assert_eq!(demangle(&long), None);
    }
}
