//! Functions, files, lines, inlining and names in the languages that have their own.

use std::process::Command;

use memtrace::symbolize::{Failure, Options, Symbolizer};

use crate::fixture::{MARK, Program, WAIT, brief, compile, line_of, resolve, resolve_mark};

fn inlined_source() -> String {
    format!(
        r#"{MARK}
#define INLINE static inline __attribute__((always_inline))
INLINE void innermost(void) {{ /* starts */
    MARK("innermost");
}}
INLINE void middle(void) {{
    innermost(); /* call of innermost */
}}
__attribute__((noinline)) void outer(int count) {{ /* start of outer */
    for (int i = 0; i < count; i++)
        middle(); /* call of middle */
    MARK("plain");
}}
int main(int argc, char **argv) {{
    outer(argc);
    {WAIT}
    return 0;
}}
"#
    )
}

#[test]
fn inlined_functions_come_innermost_first_each_with_its_own_line() {
    for flags in [&["-O2", "-g"], &["-O2", "-gdwarf-4"], &["-O3", "-g3"]] {
        let directory = tempfile::tempdir().unwrap();
        let source = inlined_source();
        let program = compile(directory.path(), "inlined.c", &source, "gcc", flags);
        let program = Program::start(&mut Command::new(program));

        let lines = resolve_mark(&program, "innermost", Options::default()).unwrap();
        let expected = [
            ("innermost", "inlined.c", program.marks["innermost"].1),
            ("middle", "inlined.c", line_of(&source, "call of innermost")),
            ("outer", "inlined.c", line_of(&source, "call of middle")),
        ];
        assert_eq!(brief(&lines), expected, "{flags:?}");
        assert_eq!(lines[2].start_line, line_of(&source, "start of outer"), "{flags:?}");
        assert_eq!(lines[0].file, directory.path().join("inlined.c").to_str().unwrap());

        let lines = resolve_mark(&program, "plain", Options::default()).unwrap();
        assert_eq!(brief(&lines), [("outer", "inlined.c", program.marks["plain"].1)]);
    }
}

#[test]
fn without_debug_information_there_are_names_and_no_lines() {
    let directory = tempfile::tempdir().unwrap();
    let source = inlined_source();
    let program = compile(directory.path(), "inlined.c", &source, "gcc", &["-O2", "-g0"]);
    let program = Program::start(&mut Command::new(program));
    let lines = resolve_mark(&program, "innermost", Options::default()).unwrap();
    assert_eq!(brief(&lines), [("outer", "", 0)]);
}

#[test]
fn symbol_tables_alone_are_used_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "inlined.c", &inlined_source(), "gcc", &["-O2", "-g"]);
    let program = Program::start(&mut Command::new(program));
    let options = Options { debug_info: false, ..Options::default() };
    assert_eq!(brief(&resolve_mark(&program, "innermost", options).unwrap()), [("outer", "", 0)]);
}

#[test]
fn a_stripped_program_has_no_names_but_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "inlined.c", &inlined_source(), "gcc", &["-O2", "-s"]);
    let program = Program::start(&mut Command::new(program));
    assert_eq!(resolve_mark(&program, "plain", Options::default()), Err(Failure::NoSymbols));
}

#[test]
fn the_call_that_ends_a_function_belongs_to_it() {
    // The return address of a call that does not return is that of the next function.
    let source = format!(
        r#"{MARK}
__attribute__((noinline, noreturn)) void wait_forever(void) {{
    mark("last", 0);
    {WAIT}
    exit(0);
}}
__attribute__((noinline, noreturn)) void leave(void) {{
    wait_forever(); /* never returns */
}}
int main(void) {{ leave(); }}
"#
    )
    .replace("mark(\"last\", 0)", "printf(\"last %p 0\\n\", __builtin_return_address(0))");
    let directory = tempfile::tempdir().unwrap();
    let flags = ["-O1", "-g", "-fno-reorder-functions", "-falign-functions=1"];
    let program = compile(directory.path(), "noreturn.c", &source, "gcc", &flags);
    let program = Program::start(&mut Command::new(program));
    let lines = resolve_mark(&program, "last", Options::default()).unwrap();
    assert_eq!(brief(&lines), [("leave", "noreturn.c", line_of(&source, "never returns"))]);
    // The address itself, which a naive look-up would take, is elsewhere.
    let symbolizer = Symbolizer::start(Options::default()).unwrap();
    let naive = resolve(&symbolizer, &program.space().locate(program.address("last"))).unwrap();
    assert_ne!(brief(&naive), brief(&lines));
}

#[test]
fn cpp_names_are_demangled_and_kept() {
    let source = format!(
        r#"{MARK}
#include <string>
namespace shop {{
template <typename T> struct Basket {{
    __attribute__((noipa)) void add(const T &item, int count) {{ MARK("method"); }}
}};
}}
int main() {{
    shop::Basket<unsigned long> basket;
    basket.add(7, 2);
    auto lambda = [](int) __attribute__((noinline)) {{ MARK("lambda"); }};
    lambda(1);
    {WAIT}
}}
"#
    );
    let directory = tempfile::tempdir().unwrap();
    for flags in [&["-O2", "-g"], &["-O2", "-g0"]] {
        let program = compile(directory.path(), "names.cpp", &source, "g++", flags);
        let program = Program::start(&mut Command::new(program));
        let lines = resolve_mark(&program, "method", Options::default()).unwrap();
        let function = lines.last().unwrap();
        assert_eq!(function.name, "shop::Basket<unsigned long>::add(unsigned long const&, int)");
        assert_eq!(function.system_name, "_ZN4shop6BasketImE3addERKmi");
        let lines = resolve_mark(&program, "lambda", Options::default()).unwrap();
        assert!(lines[0].name.starts_with("main::"), "{lines:?}");
    }
}

#[test]
fn rust_names_are_demangled_without_their_hash() {
    let source = r#"
use std::io::Read;
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mark(name: &str, line: u32) {
    let address: u64;
    // The frame pointer is kept (see the flags), and the return address is beside it.
    unsafe { std::arch::asm!("mov {}, [rbp + 8]", out(reg) address) };
    println!("{name} {address:#x} {line}");
}
mod shop {
    pub struct Basket<T>(pub Vec<T>);
    impl<T: Copy> Basket<T> {
        #[inline(always)]
        fn inner(&mut self, item: T) {
            super::mark("inner", line!());
            self.0.push(item);
        }
        #[inline(never)]
        pub fn add(&mut self, item: T) {
            self.inner(item); // call of inner
            self.0.push(item);
        }
    }
}
fn main() {
    let mut basket = shop::Basket(vec![1u64]);
    basket.add(2);
    println!("ready 0 0");
    std::io::stdin().read_to_end(&mut vec![]).unwrap();
}
"#;
    for mangling in ["legacy", "v0"] {
        let directory = tempfile::tempdir().unwrap();
        let mangling = format!("-Csymbol-mangling-version={mangling}");
        let mut flags = vec!["-g", "-O", "-Cforce-frame-pointers=yes", "--edition=2024"];
        if mangling.ends_with("v0") {
            flags.push(&mangling);
        }
        let program = compile(directory.path(), "names.rs", source, "rustc", &flags);
        let program = Program::start(&mut Command::new(program));
        let lines = resolve_mark(&program, "inner", Options::default()).unwrap();
        let expected = [("inner", program.marks["inner"].1), ("add", line_of(source, "call of inner"))];
        assert_eq!(lines.len(), 2, "{lines:?}");
        for (line, (name, number)) in lines.iter().zip(expected) {
            assert!(line.name.contains("Basket<") && line.name.ends_with(&format!("::{name}")), "{lines:?}");
            assert!(line.system_name.starts_with("_ZN") || line.system_name.starts_with("_R"));
            assert_eq!((line.line, line.file.ends_with("names.rs")), (number, true), "{lines:?}");
        }
    }
}
