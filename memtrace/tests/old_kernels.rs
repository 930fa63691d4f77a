//! What is done on kernels that are older than this machine's. Attaching takes root.

use memtrace::kernel::{AttachMode, Kernel, Settings};
use memtrace::record::{Engine, Options, Recording, Session};
use memtrace::target::launch;
use memtrace_common::Counter;

/// Records all allocations of a small program.
async fn record(mode: AttachMode, loop_helper: bool) -> Recording {
    let settings = Settings { mode, loop_helper, ..Settings::new(1) };
    let kernel = Kernel::load(&settings).expect("the kernel accepts the program");
    let engine = Engine::new(kernel).expect("prices can be measured");
    let command = launch("/bin/ls", &["/".to_owned()]).expect("the program starts");
    let mut session = Session::launch(engine, command, Options::default()).expect("it is recorded");
    while !session.is_over() {
        session.process_events().await.expect("the kernel's events can be read");
    }
    session.process_pending().expect("the kernel's events can be read");
    let (recording, launched) = session.finish().expect("the books can be read");
    launched.expect("it was launched").wait().expect("it can be waited for");
    recording
}

/// Before Linux 5.17 there is no `bpf_loop`; stacks are walked from element to element of a map.
#[test]
#[ignore = "takes root: `cargo xtask test` runs it"]
fn stacks_are_whole_without_the_helper_for_loops() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for mode in [AttachMode::Perf, AttachMode::best()] {
        for loop_helper in [false, true] {
            let recording = runtime.block_on(record(mode, loop_helper));
            let counted = |counter| recording.counters.get(counter);
            assert!(counted(Counter::Sampled) > 20, "{mode:?}");
            assert_eq!(counted(Counter::WalksComplete), counted(Counter::Sampled), "{mode:?}");
            // From ls down to its own start there are some.
            assert!(counted(Counter::FramesWalked) > 4 * counted(Counter::Sampled), "{mode:?}");
        }
    }
}
