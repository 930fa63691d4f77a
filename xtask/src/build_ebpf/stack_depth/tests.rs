use std::fs;

use super::*;
use crate::build_ebpf::ARCHS;
use crate::repo::Repo;

/// `opcode`, registers, offset, immediate.
fn code(instructions: &[(u8, u8, u8, i16, i32)]) -> Vec<u8> {
    let bytes = instructions.iter().flat_map(|(opcode, to, from, offset, immediate)| {
        let (offset, immediate) = (offset.to_le_bytes(), immediate.to_le_bytes());
        [
            *opcode,
            from << 4 | to,
            offset[0],
            offset[1],
            immediate[0],
            immediate[1],
            immediate[2],
            immediate[3],
        ]
    });
    bytes.collect()
}

#[test]
fn each_way_to_reach_the_stack_counts() {
    let cases: [(&str, &[_], _); 7] = [
        ("nothing", &[(0xb7, 0, 0, 0, -600), (0x95, 0, 0, 0, 0)], 0),
        ("*(r10 - 16) = r1", &[(0x7b, 10, 1, -16, 0)], 16),
        ("r1 = *(u8 *)(r10 - 3)", &[(0x71, 1, 10, -3, 0)], 3),
        ("r2 = r10; r2 += -72", &[(0xbf, 2, 10, 0, 0), (0x07, 2, 0, 0, -72)], 72),
        // A call keeps R6.
        (
            "r6 = r10; r6 += -8; call; *(r6 - 32) = 0",
            &[(0xbf, 6, 10, 0, 0), (0x07, 6, 0, 0, -8), (CALL, 0, 0, 0, 5), (0x7a, 6, 0, -32, 0)],
            40,
        ),
        // And overwrites R1: what is written then is somewhere else.
        (
            "r1 = r10; call; *(r1 - 32) = 0",
            &[(0xbf, 1, 10, 0, 0), (CALL, 0, 0, 0, 5), (0x7a, 1, 0, -32, 0)],
            0,
        ),
        // The second half of a constant is no instruction, even if it looks like one.
        ("r1 = constant", &[(LOAD_CONSTANT, 1, 0, 0, 0), (0x7b, 10, 1, -16, 0)], 0),
    ];
    for (name, instructions, depth) in cases {
        assert_eq!(own_depth(&code(instructions)), depth, "{name}");
    }
}

/// A function that takes `own` bytes and calls those with the numbers `callees`.
fn function(own: u32, callees: &[usize]) -> Function {
    Function { name: String::new(), own, callees: callees.to_vec() }
}

#[test]
fn parts_are_rounded_up_and_added_along_a_chain() {
    let functions =
        [function(33, &[1, 2]), function(0, &[3]), function(100, &[]), function(97, &[]), function(200, &[])];
    let mut known = vec![State::Unknown; functions.len()];
    assert_eq!(measure(&functions, 0, &mut known).unwrap(), 64 + 32 + 128);
    let circle = [function(8, &[1]), function(8, &[0])];
    let error = measure(&circle, 0, &mut [State::Unknown; 2]).unwrap_err();
    assert!(error.to_string().contains("calls itself"), "{error}");
}

/// So what is committed loads on the oldest kernels, also where it is not compiled anew.
#[test]
fn the_committed_objects_fit() {
    for arch in ARCHS {
        let content = fs::read(Repo::find().unwrap().committed_object(arch)).unwrap();
        let chain = deepest_chain(&content).unwrap();
        assert!(chain.bytes <= LIMIT, "{} bytes: {chain}", chain.bytes);
        // The programs at entries and returns keep whole records on the stack and call others.
        assert!(chain.bytes > 256 && chain.functions.len() > 1, "{} bytes: {chain}", chain.bytes);
        let all = functions(&object::File::parse(&*content).unwrap()).unwrap();
        let callees = |name: &str| {
            let function = all.iter().find(|function| function.name.ends_with(name)).unwrap();
            function.callees.iter().map(|callee| all[*callee].name.as_str()).collect::<Vec<_>>()
        };
        // By a relocation of an address, of a call, and by a call within the section.
        assert!(callees("allocate_return").contains(&"memtrace_ebpf::unwind::next_of_loop"));
        assert!(callees("allocate_return").contains(&"memtrace_ebpf::python::walk_frames"));
        assert_eq!(callees("next_of_loop"), ["memtrace_ebpf::unwind::next"]);
    }
}
