//! The programs under `fixtures/`, compiled once per run of the tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::tools;

/// A way in which a fixture is compiled: its source, and flags on top of `-O2 -g` (and a build-id, as distributions set).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Build {
    source: &'static str,
    flags: &'static [&'static str],
    stripped: bool,
    musl: bool,
}

/// `leak.c` as distributions build: no frame pointers. See its head for the operations.
pub const LEAK: Build = Build { source: "leak.c", flags: &[], stripped: false, musl: false };
/// `leak.c` with frame pointers.
pub const LEAK_FRAME_POINTERS: Build = Build { flags: &["-fno-omit-frame-pointer"], ..LEAK };
/// `leak.c` with neither a dynamic libc nor symbols: there is no `malloc` to be found in it.
pub const LEAK_STATIC_STRIPPED: Build = Build { flags: &["-static"], stripped: true, ..LEAK };
/// `api.c`: the whole of glibc's allocation API.
pub const API: Build = Build { source: "api.c", ..LEAK };
/// `ops.cpp`: C++'s operators.
pub const OPS: Build = Build { source: "ops.cpp", ..LEAK };
/// `random.c`: a seeded random script over glibc's allocation API, by several threads.
pub const RANDOM_C: Build = Build { source: "random.c", flags: &["-pthread"], ..LEAK };
/// `random.cpp`: the same over C++'s operators.
pub const RANDOM_CPP: Build = Build { source: "random.cpp", ..RANDOM_C };
/// `random.rs`: the same over Rust's collections.
pub const RANDOM_RUST: Build = Build { source: "random.rs", ..LEAK };
/// `custom.c`: an allocator of its own.
pub const CUSTOM: Build = Build { source: "custom.c", ..LEAK };
/// `usdt.c`: a program that samples its own allocations, and tells of them by probes of its own.
pub const USDT: Build = Build { source: "usdt.c", ..LEAK };
/// The same, whose probes are reached only while somebody looks, in a file that was moved after it was linked.
pub const USDT_SEMAPHORES: Build = USDT.flags(&["-DSEMAPHORES", "-DPRELINKED"]);
/// The same without any allocator that memtrace could find.
pub const USDT_STATIC_STRIPPED: Build = Build { flags: &["-static"], stripped: true, ..USDT };
/// `plugin.c`: loads a library with an allocator of its own.
pub const PLUGIN: Build = Build { source: "plugin.c", ..LEAK };
/// `sites.c`: a thousand allocating functions with the same distribution of sizes.
pub const SITES: Build = Build { source: "sites.c", flags: &["-lm"], ..LEAK };
/// `pool.c`: a program with an allocator of its own, which leaves malloc in unusual ways.
pub const POOL: Build = Build { source: "pool.c", ..RANDOM_C };
/// `storm.c`: threads and processes that hardly live.
pub const STORM: Build = Build { source: "storm.c", ..RANDOM_C };
/// `named_threads.c`: threads that allocate by the same stack.
pub const NAMED_THREADS: Build = Build { source: "named_threads.c", ..RANDOM_C };
/// `family.c`: processes that create others, of which each knows its own truth.
pub const FAMILY: Build = Build { source: "family.c", ..RANDOM_C };
/// `late.c`: executes another program after some time; in itself there is no `malloc` to be found.
pub const LATE: Build = Build { source: "late.c", flags: &["-static"], stripped: true, musl: false };
/// `pause_32.c`: a 32-bit program that waits.
pub const PAUSE_32_BIT: Build = Build {
    source: "pause_32.c",
    flags: &["-m32", "-static", "-nostdlib", "-fno-pie", "-no-pie"],
    stripped: false,
    musl: false,
};
/// `with_pid.c`: runs a program as a process of a given id.
pub const WITH_PID: Build = Build { source: "with_pid.c", ..LEAK };
/// `jit.c`: a program that compiles a function and writes its name into a map.
pub const JIT: Build = Build { source: "jit.c", ..LEAK };
/// `wrapper.c`: a library to preload, an allocator whose functions call each other.
pub const WRAPPER: Build =
    Build { source: "wrapper.c", flags: &["-shared", "-fPIC", "-fno-builtin"], stripped: false, musl: false };
/// `frames.c`: stacks of every shape.
pub const FRAMES: Build = Build { source: "frames.c", ..RANDOM_C };
/// `frames.cpp`: the same for what C++ adds.
pub const FRAMES_CPP: Build = Build { source: "frames.cpp", ..RANDOM_C };
/// `witness.c`: a library to preload, with an opinion of its own on what a fixture allocates.
pub const WITNESS: Build = Build {
    source: "witness.c",
    flags: &["-shared", "-fPIC", "-fno-builtin", "-fexceptions"],
    stripped: false,
    musl: false,
};

const C_FLAGS: [&str; 7] = ["-std=gnu17", "-O2", "-g", "-Wl,--build-id", "-Wall", "-Wextra", "-Werror"];
const CPP_FLAGS: [&str; 7] = ["-std=gnu++17", "-O2", "-g", "-Wl,--build-id", "-Wall", "-Wextra", "-Werror"];
const RUST_FLAGS: [&str; 9] = [
    "--edition=2024",
    "-Copt-level=2",
    "-g",
    "-Clink-arg=-Wl,--build-id",
    "-Cforce-frame-pointers=yes",
    "-Dwarnings",
    "--crate-type=bin",
    "--crate-name=random",
    "--check-cfg=cfg(jemalloc)",
];

impl Build {
    /// The same, with these flags instead of its own.
    pub const fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    /// The same, with musl instead of glibc.
    pub const fn with_musl(self) -> Self {
        Self { musl: true, ..self }
    }

    /// The same, with its functions visible to `dladdr`.
    pub const fn exporting_functions(self) -> Self {
        Self { flags: &["-rdynamic", "-pthread"], ..self }
    }

    /// The compiled program; compiles it when asked for the first time in this run.
    pub fn path(self) -> PathBuf {
        type Slot = Arc<OnceLock<PathBuf>>;
        static BUILT: Mutex<Option<HashMap<Build, Slot>>> = Mutex::new(None);
        let slot = {
            let mut built = BUILT.lock().expect("no compilation panics while it holds the table");
            Arc::clone(built.get_or_insert_default().entry(self).or_default())
        };
        slot.get_or_init(|| self.compile()).clone()
    }

    /// The source's path, as the debug information has it.
    pub fn source(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(self.source)
    }

    /// The line of the source that is marked `LINE <name>`, from 1.
    pub fn line(self, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.source()).expect("the fixture's source is readable");
        let marker = format!("/* LINE {name} */");
        let index = text.lines().position(|line| line.contains(&marker));
        index.unwrap_or_else(|| panic!("{} marks no line {name}", self.source)) as u64 + 1
    }

    /// The program's name, which is its comm and the name of its mapping.
    pub fn name(self) -> &'static str {
        self.source.split('.').next().unwrap_or_default()
    }

    /// A directory per build, so that each program keeps its plain name (`leak`), which is its comm.
    fn compile(self) -> PathBuf {
        let (stem, language) = self.source.split_once('.').expect("a fixture's name has an extension");
        let variant = format!(
            "{}{}{}{}",
            self.source,
            self.flags.concat().replace('/', "_"),
            if self.stripped { "-stripped" } else { "" },
            if self.musl { "-musl" } else { "" }
        );
        let dir = tools::profile_dir().join("memtrace-fixtures").join(variant);
        std::fs::create_dir_all(&dir).expect("the target directory is writable");
        // Another run of the tests may be executing the program: replace it, never write into it.
        let fresh = dir.join(format!("{stem}.{}", std::process::id()));
        let mut compile = match language {
            "c" if self.musl => compiler(tools::command("musl-gcc"), &C_FLAGS),
            "c" => compiler(tools::command("gcc"), &C_FLAGS),
            "cpp" => compiler(tools::command("g++"), &CPP_FLAGS),
            "rs" => compiler(tools::rustc(), &RUST_FLAGS),
            other => panic!("no compiler for .{other}"),
        };
        run(compile.arg("-o").arg(&fresh).arg(self.source()).args(self.flags));
        if self.stripped {
            run(tools::command("strip").arg(&fresh));
        }
        let path = dir.join(stem);
        std::fs::rename(&fresh, &path).expect("a file in the target directory can be renamed");
        path
    }
}

/// `keep.c` compiled into `dir`, with a library of its own: the program `keep` with `libkeep.so` beside it. Their
/// functions that allocate are called `NAME_program` and `NAME_library`; those of two that differ in `padding`
/// are at other addresses.
pub fn keep(dir: &Path, name: &str, padding: bool) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keep.c");
    let compile = |output: &Path, function: &str, flags: &[&str]| {
        let mut gcc = compiler(tools::command("gcc"), &C_FLAGS);
        gcc.arg("-o").arg(output).arg(&source).arg(format!("-DKEEP={function}"));
        run(gcc.args(padding.then_some("-DPADDING")).args(flags));
    };
    let directory = format!("-L{}", dir.display());
    compile(
        &dir.join("libkeep.so"),
        &format!("{name}_library"),
        &["-DLIBRARY", "-shared", "-fPIC", "-Wl,-soname,libkeep.so"],
    );
    let program = dir.join("keep");
    compile(&program, &format!("{name}_program"), &[&directory, "-lkeep", "-Wl,-rpath,$ORIGIN"]);
    program
}

/// The build-id of a file, in hex.
pub fn build_id(file: &Path) -> String {
    let notes = tools::command("readelf").args(["-n", "--wide"]).arg(file).output().expect("readelf runs");
    let notes = String::from_utf8(notes.stdout).expect("readelf prints UTF-8");
    let id = notes.split_once("Build ID: ").and_then(|(_, rest)| rest.lines().next());
    id.unwrap_or_else(|| panic!("{} has no build-id", file.display())).to_owned()
}

/// Strips `program` and puts its debug information where it belongs in the directory of debug files
/// `directory`. Returns where that is.
pub fn split(program: &Path, directory: &Path) -> PathBuf {
    let id = build_id(program);
    let place = directory.join(".build-id").join(&id[..2]);
    std::fs::create_dir_all(&place).expect("the directory of debug files is writable");
    let debug = place.join(format!("{}.debug", &id[2..]));
    run(tools::command("objcopy").arg("--only-keep-debug").args([program, &debug]));
    run(tools::command("strip").arg(program));
    debug
}

fn compiler(mut command: std::process::Command, flags: &[&str]) -> std::process::Command {
    command.args(flags);
    command
}

fn run(command: &mut std::process::Command) {
    let output = command.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{stderr}");
}
