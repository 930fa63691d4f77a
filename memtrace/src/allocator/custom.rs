//! Allocator functions that the user names: `--alloc` and `--free`.

use std::{path::Path, str::FromStr};

use memtrace_common::{Arguments, FunctionKind, MAX_ARGUMENTS};
use thiserror::Error;

use super::catalog::Function;

/// A function that the user has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// The file: a path as the process sees it, or the last part of one, or `exe` for the program itself.
    pub library: String,
    /// The symbol, as the file's symbol table has it.
    pub symbol: String,
    /// What it does.
    pub function: Function,
}

/// A function was named in a way that cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CustomError {
    /// Parts are missing.
    #[error("{0:?} is not LIBRARY:FUNCTION:{1}, as in {2}")]
    Parts(String, &'static str, &'static str),
    /// Not an argument.
    #[error("{0:?} is no argument of a function: use arg0 to arg5")]
    Argument(String),
    /// What follows the function is not understood.
    #[error(
        "{0:?} is not understood: use size=argN or size=argN*argM, then `ret` or `out=argN`, and `old=argN` \
             where a block is resized, with commas between them"
    )]
    Part(String),
    /// The size is not said.
    #[error("{0:?} does not say where the size is: add size=argN or size=argN*argM")]
    NoSize(String),
    /// The result is not said.
    #[error("{0:?} does not say where the new block is: add `ret`, or `out=argN` for a pointer to it")]
    NoResult(String),
}

const ALLOC: (&str, &str) = ("size=argN,ret", "--alloc 'libpool.so:pool_alloc:size=arg1,ret'");
const FREE: (&str, &str) = ("argN", "--free 'libpool.so:pool_free:arg1'");

impl Custom {
    /// Parses what `--alloc` is given: `LIBRARY:FUNCTION:size=argN[*argM],ret|out=argN[,old=argN]`.
    ///
    /// # Errors
    /// When it is not that.
    pub fn allocation(text: &str) -> Result<Self, CustomError> {
        let (library, symbol, shape) = parts(text, ALLOC)?;
        let mut arguments = Arguments::default();
        let (mut has_size, mut has_result) = (false, false);
        for part in shape.split(',') {
            match part.trim().split_once('=') {
                None if part.trim() == "ret" => has_result = true,
                Some(("out", value)) => {
                    arguments.result = Some(argument(value)?);
                    has_result = true;
                }
                Some(("old", value)) => arguments.block = Some(argument(value)?),
                Some(("size", value)) => {
                    let (count, size) = match value.split_once('*') {
                        Some((count, size)) => (Some(argument(count)?), argument(size)?),
                        None => (None, argument(value)?),
                    };
                    (arguments.count, arguments.size, has_size) = (count, size, true);
                }
                _ => return Err(CustomError::Part(part.to_owned())),
            }
        }
        if !has_size {
            return Err(CustomError::NoSize(text.to_owned()));
        }
        if !has_result {
            return Err(CustomError::NoResult(text.to_owned()));
        }
        // Such allocators get their memory from others, whose functions may be anywhere behind them.
        let function = Function { may_jump: true, ..Function::shaped(FunctionKind::Other, arguments) };
        Ok(Self { library, symbol, function })
    }

    /// Parses what `--free` is given: `LIBRARY:FUNCTION:argN`.
    ///
    /// # Errors
    /// When it is not that.
    pub fn free(text: &str) -> Result<Self, CustomError> {
        let (library, symbol, block) = parts(text, FREE)?;
        let arguments = Arguments { block: Some(argument(&block)?), ..Arguments::default() };
        Ok(Self { library, symbol, function: Function::shaped(FunctionKind::OtherFree, arguments) })
    }

    /// Whether this is the function `symbol` of the file `path`.
    pub(super) fn is_meant(&self, path: &Path, is_main: bool, symbol: &str) -> bool {
        let is_file = || match self.library.as_str() {
            "exe" => is_main,
            name if name.contains('/') => path == Path::new(name),
            name => path.file_name().is_some_and(|own| own == name),
        };
        self.symbol == symbol && is_file()
    }
}

/// The file may have colons in its name, the function has none.
fn parts(
    text: &str,
    (shape, example): (&'static str, &'static str),
) -> Result<(String, String, String), CustomError> {
    let wrong = || CustomError::Parts(text.to_owned(), shape, example);
    let mut parts = text.rsplitn(3, ':').map(str::to_owned);
    let (shape, symbol, library) = (parts.next(), parts.next(), parts.next());
    match (library, symbol, shape) {
        (Some(library), Some(symbol), Some(shape))
            if ![&library, &symbol, &shape].iter().any(|it| it.is_empty()) =>
        {
            Ok((library, symbol, shape))
        }
        _ => Err(wrong()),
    }
}

fn argument(text: &str) -> Result<u8, CustomError> {
    let number = text.trim().strip_prefix("arg").and_then(|number| u8::from_str(number).ok());
    number.filter(|number| *number < MAX_ARGUMENTS).ok_or_else(|| CustomError::Argument(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_understood() {
        let custom = Custom::allocation("/opt/a:b/libpool.so:pool_calloc:size=arg1*arg2,ret").unwrap();
        assert_eq!((&*custom.library, &*custom.symbol), ("/opt/a:b/libpool.so", "pool_calloc"));
        let shape = Arguments { size: 2, count: Some(1), block: None, result: None };
        assert_eq!(custom.function.arguments, shape);
        let custom = Custom::allocation("exe:grow:old=arg1,size=arg2,out=arg0").unwrap();
        assert_eq!(
            custom.function.arguments,
            Arguments { size: 2, count: None, block: Some(1), result: Some(0) }
        );
        assert!(custom.function.resizes());
        let custom = Custom::free("libpool.so:pool_free:arg1").unwrap();
        assert_eq!(custom.function.arguments.block, Some(1));
        assert!(custom.is_meant(Path::new("/usr/lib/libpool.so"), false, "pool_free"));
        assert!(!custom.is_meant(Path::new("/usr/lib/libpool.so.2"), false, "pool_free"));
        assert!(!custom.is_meant(Path::new("/usr/lib/libpool.so"), false, "free"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text| Custom::allocation(text).unwrap_err().to_string();
        assert!(error("libpool.so").contains("is not LIBRARY:FUNCTION:size=argN,ret"));
        assert!(error(":f:size=arg0,ret").contains("is not LIBRARY:FUNCTION"));
        assert!(error("l:f:size=arg6,ret").contains("use arg0 to arg5"));
        assert!(error("l:f:size=rdi,ret").contains("use arg0 to arg5"));
        assert!(error("l:f:bytes=arg0,ret").contains("is not understood"));
        assert!(error("l:f:ret").contains("where the size is"));
        assert!(error("l:f:size=arg0").contains("where the new block is"));
        assert!(Custom::free("l:f:ret").unwrap_err().to_string().contains("use arg0 to arg5"));
    }
}
