//! What each program costs the kernel's verifier, and how big it gets. Bounded here; the numbers themselves are in
//! tests/golden/verifier, by kernel, for people. They differ between compilers and kernels, so that only a big change fails.
//!
//! `UPDATE_GOLDEN=1` writes this kernel's record anew, `cargo xtask vm --record` those of other kernels.

use std::{
    collections::{BTreeSet, HashSet},
    env,
    fmt::Write as _,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Map, MapData},
};
use aya_obj::{
    Function, Object, ProgramSection,
    btf::BtfKind,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type},
};
use netfast::apply::{Mode, OBJECT, lacks::loadable};
use netfast_common::abi::{HookKind, Program};
use netfast_tests::require::{Need, kernel_version, needs};

use super::harness::Hook;

/// `BPF_LOG_STATS`.
const STATS: u32 = 4;

/// Instructions that the verifier may walk through for one program; its own limit is a million.
const fn most_instructions(program: Program) -> u32 {
    match program {
        Program::Queued => 100,
        Program::OvsAction => 200,
        // A lookup of a socket, and four names to compare.
        Program::Connect4
        | Program::Connect6
        | Program::Send4
        | Program::Send6
        | Program::Receive4
        | Program::Receive6
        | Program::Peer4
        | Program::Peer6
        | Program::Own4
        | Program::Own6 => 3_000,
        Program::TunnelEgress | Program::TunnelUplink | Program::TunnelIngress | Program::TunnelTaken | Program::UplinkXdp => 20_000,
        // Two lookups, and a copy of what asks for an address; headers of TCP or UDP, or those of an error.
        Program::Macvlan | Program::Resolver => 5_000,
        // It loops over each byte of a name, of a message and over each record of DNS messages.
        Program::Answer => 200_000,
        // Six global functions, each of them with a way for every way of a connection.
        Program::VipIngress | Program::VipEgress => 90_000,
        Program::EndpointIngress
        | Program::EndpointEgress
        | Program::BridgeIngress
        | Program::BridgeEgress
        | Program::UplinkIngress
        // Twice the same, for IPv4 and for IPv6.
        | Program::UplinkEgress => 50_000,
    }
}

/// The same of this kernel's verifier: older ones prune less. The limit is a million.
fn most_instructions_here(program: Program) -> u32 {
    match kernel_version().0 {
        version if version < (6, 1) => 500_000,
        version if version < (6, 6) => 2 * most_instructions(program),
        _ => most_instructions(program),
    }
}

/// The verifier's own limit of what a program and all that it calls may take of the stack, in bytes (`MAX_BPF_STACK`).
const MAX_STACK: u32 = 512;

/// Bytes of stack that a program and all that it calls may take.
const fn most_stack(program: Program) -> u32 {
    match program {
        Program::Queued | Program::OvsAction => 64,
        Program::Connect4
        | Program::Connect6
        | Program::Send4
        | Program::Send6
        | Program::Receive4
        | Program::Receive6
        | Program::Peer4
        | Program::Peer6
        | Program::Own4
        | Program::Own6 => 320,
        Program::Answer
        | Program::VipIngress
        | Program::VipEgress
        | Program::TunnelEgress
        | Program::TunnelUplink
        | Program::TunnelIngress
        | Program::TunnelTaken
        | Program::EndpointIngress
        | Program::EndpointEgress
        | Program::BridgeIngress
        | Program::BridgeEgress
        | Program::UplinkIngress
        | Program::UplinkEgress
        | Program::Resolver
        | Program::Macvlan
        | Program::UplinkXdp => 480,
    }
}

/// One program's figures.
#[derive(Clone, Debug)]
struct Cost {
    instructions: u32,
    /// Bytes on the deepest way through its functions.
    stack: u32,
    /// The same as kernels before 6.8 count them.
    old_stack: u32,
    translated: u32,
    jited: u32,
    /// The stack of each function, as the verifier's log has it.
    functions: String,
}

#[test]
fn programs_stay_within_their_budget() {
    if !needs(&[Need::Root]) {
        return;
    }
    let costs = costs();
    let mut text = String::from(
        "# program instructions-verified stack-bytes translated-bytes jited-bytes stack-of-each-function\n",
    );
    for (program, cost) in &costs {
        writeln!(
            text,
            "{} {} {} {} {} {}",
            program.name(),
            cost.instructions,
            cost.stack,
            cost.translated,
            cost.jited,
            cost.functions
        )
        .expect("a string takes all");
    }
    print!("{text}");
    for (program, cost) in &costs {
        let (instructions, stack) = (most_instructions_here(*program), most_stack(*program));
        assert!(
            cost.instructions <= instructions && cost.stack <= stack,
            "{program:?} is over its budget of {instructions} instructions and {stack} bytes of stack: {cost:?}"
        );
    }
    compare(&text, &costs);
}

#[test]
fn programs_fit_the_stack_as_kernels_before_6_8_count_it() {
    if !needs(&[Need::Root]) {
        return;
    }
    for (program, cost) in costs() {
        assert!(cost.old_stack <= MAX_STACK, "{program:?} would not load: {cost:?}");
    }
}

/// What each program costs that the daemon loads on this kernel.
fn costs() -> Vec<(Program, Cost)> {
    let mut ebpf = EbpfLoader::new().load(OBJECT).expect("the object loads");
    let mut object = relocated(&mut ebpf);
    let types = load_types(&mut object);
    let cost = |&program: &Program| Some((program, cost(&object, &types, program)?));
    let is_here = |program: &&Program| **program != Program::Resolver || Hook::Resolver.is_here();
    let mode = if kernel_version().0 < (6, 6) {
        Mode::Clsact
    } else {
        Mode::Tcx
    };
    let programs: Vec<Program> = loadable(mode).collect();
    programs.iter().filter(is_here).filter_map(cost).collect()
}

/// The object with its maps and calls put in, as aya does it; aya keeps the verifier's words on success to itself.
fn relocated(ebpf: &mut Ebpf) -> Object {
    let mut object = Object::parse(OBJECT).expect("an object");
    let names: Vec<String> = object.maps.keys().cloned().collect();
    let maps: Vec<(String, MapData, aya_obj::Map)> = names
        .into_iter()
        .map(|name| {
            let (Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::SkStorage(data)
            | Map::DevMapHash(data)
            | Map::RingBuf(data)) = ebpf.take_map(&name).expect("the same object")
            else {
                panic!("{name} is of another type than the data path has");
            };
            let map = object.maps[&name].clone();
            (name, data, map)
        })
        .collect();
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let places = maps
        .iter()
        .map(|(name, data, map)| (name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    object.relocate_maps(places, &text).expect("maps");
    object.relocate_calls(&text).expect("calls");
    // The programs hold them from here on only if they are loaded while the maps are open.
    std::mem::forget(maps);
    object
}

/// The object's types, in the kernel: by them it knows global functions, and looks at each of them once.
fn load_types(object: &mut Object) -> OwnedFd {
    let features = aya::features().btf().expect("the kernel knows of types");
    let types = object.fixup_and_sanitize_btf(features).expect("types");
    let bytes = types.expect("the object has types").to_bytes();
    // SAFETY: the kernel reads unset fields as zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: all members of the union are integers, and all is zero.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = bytes.len().try_into().expect("small");
    let fd = bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).expect("the kernel takes the types");
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What the verifier says of a program that is loaded as the daemon does it; `None` where the kernel takes no program of
/// that kind. aya keeps the verifier's words on success to itself.
fn cost(object: &Object, types: &OwnedFd, program: Program) -> Option<Cost> {
    let name = program.name();
    let function = &object.functions[&object.programs[name].function_key()];
    let (code, functions) = (&function.instructions, function.func_info.func_info_bytes());
    let mut log = vec![0_u8; 1 << 16];
    // SAFETY: the kernel reads unset fields as zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: all members of the union are integers, and all is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    if program.hook() == HookKind::Xdp {
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
        load.expected_attach_type = bpf_attach_type::BPF_XDP as u32;
    }
    if let HookKind::RawTracepoint(_) = program.hook() {
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    }
    if let HookKind::Fentry(entered) = program.hook() {
        let kernel = Btf::from_sys_fs().expect("the kernel's types");
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
        load.expected_attach_type = bpf_attach_type::BPF_TRACE_FENTRY as u32;
        load.attach_btf_id = kernel
            .id_by_type_name_kind(entered, BtfKind::Func)
            .expect("the kernel has the function");
    }
    if let ProgramSection::CgroupSockAddr { attach_type } = object.programs[name].section {
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32;
        load.expected_attach_type = bpf_attach_type::from(attach_type) as u32;
    }
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = code.len().try_into().expect("few");
    load.license = object.programs[name].license.as_ptr() as u64;
    load.prog_btf_fd = types.as_raw_fd().cast_unsigned();
    load.func_info = functions.as_ptr() as u64;
    load.func_info_cnt = function.func_info.len().try_into().expect("few");
    load.func_info_rec_size = function.func_info_rec_size.try_into().expect("small");
    load.log_level = STATS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len().try_into().expect("small");
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    let log = String::from_utf8_lossy(&log);
    let log = log.trim_end_matches('\0');
    let fd = match (fd, program.hook()) {
        (Ok(fd), _) => fd,
        // Not even root may, under lockdown or on a kernel without trampolines; netfast then does without.
        (Err(error), HookKind::Fentry(_)) if log.is_empty() => {
            eprintln!("SKIP: this kernel loads no fentry programs: {error}");
            return None;
        }
        (Err(error), _) => panic!("{name}: {error}\n{log}"),
    };
    // SAFETY: the kernel has just made it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };

    // SAFETY: plain integers.
    let (mut info, mut attr): (bpf_prog_info, bpf_attr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    attr.info.bpf_fd = fd.as_raw_fd().cast_unsigned();
    attr.info.info = (&raw mut info) as u64;
    attr.info.info_len = size_of::<bpf_prog_info>().try_into().expect("small");
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).expect("its figures");
    let functions = stacks_in(log);
    Some(Cost {
        // Kernels before 5.16 say it in the log only.
        instructions: match info.verified_insns {
            0 => processed(log),
            number => number,
        },
        stack: deepest(function, &numbers(functions), |stack| stack.next_multiple_of(16)),
        old_stack: deepest(function, &numbers(functions), |stack| stack.max(1).next_multiple_of(32)),
        translated: info.xlated_prog_len,
        jited: info.jited_prog_len,
        functions: functions.into(),
    })
}

/// "stack depth 96+0+8": one number for each function, in the order in which they stand in the program.
fn stacks_in(log: &str) -> &str {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "));
    let line = line.unwrap_or_else(|| panic!("no stack depth in the verifier's words: {log}"));
    line.split_whitespace().next().expect("numbers")
}

fn numbers(functions: &str) -> Vec<u32> {
    let numbers = functions.split('+');
    numbers.map(|number| number.parse().expect("a number")).collect()
}

/// The bytes of stack on the deepest way through a program's functions, each rounded up as the kernel does it: where it
/// compiles programs, to 16 (`round_up_stack_depth`, kernel/bpf/verifier.c), and before 6.8 always to 32 and at least that
/// (`check_max_stack_depth`).
fn deepest(function: &Function, stacks: &[u32], rounded: fn(u32) -> u32) -> u32 {
    let code = &function.instructions;
    let mut calls: Vec<(usize, usize)> = Vec::new();
    for (at, instruction) in code.iter().enumerate() {
        if let Some(target) = called(at, *instruction) {
            calls.push((at, target));
        }
    }
    let targets = calls.iter().map(|(_, target)| *target);
    let starts: Vec<usize> = targets.chain([0]).collect::<BTreeSet<_>>().into_iter().collect();
    assert_eq!(starts.len(), stacks.len(), "each function has a stack: {stacks:?}");
    let function_at = |at: usize| starts.partition_point(|start| *start <= at) - 1;
    let mut edges = vec![BTreeSet::new(); starts.len()];
    for (at, target) in calls {
        edges[function_at(at)].insert(function_at(target));
    }
    let stacks: Vec<u32> = stacks.iter().copied().map(rounded).collect();
    depth_from(0, &edges, &stacks)
}

/// Programs have no recursion: the verifier refuses it.
fn depth_from(function: usize, edges: &[BTreeSet<usize>], stacks: &[u32]) -> u32 {
    let below = edges[function].iter().map(|called| depth_from(*called, edges, stacks));
    stacks[function] + below.max().unwrap_or(0)
}

/// Where a call of one of the program's own functions goes (`BPF_PSEUDO_CALL`), or what a helper is to call
/// (`BPF_PSEUDO_FUNC`).
fn called(at: usize, instruction: bpf_insn) -> Option<usize> {
    const CALL: u8 = 0x85;
    const LOAD_64: u8 = 0x18;
    let is_call = matches!((instruction.code, instruction.src_reg()), (CALL, 1) | (LOAD_64, 4));
    is_call.then(|| (at + 1).strict_add_signed(instruction.imm as isize))
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, and what they point to lives.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).expect("a descriptor"))
}

/// The number in `processed 1234 insns`.
fn processed(log: &str) -> u32 {
    let number = log.split("processed ").nth(1).and_then(|rest| rest.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .expect("the verifier's words")
}

/// Half or twice what is recorded is worth a look. A kernel that has no record has the bounds alone.
fn compare(text: &str, costs: &[(Program, Cost)]) {
    let ((major, minor), _) = kernel_version();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/verifier/{major}.{minor}.txt"));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
        fs::write(&path, text).expect("the record");
        return;
    }
    if !path.exists() {
        println!("No record of this kernel: {} would be it", path.display());
        return;
    }
    let record = fs::read_to_string(&path).expect("the record");
    for (program, cost) in costs {
        let name = program.name();
        let line = record.lines().find(|line| line.split(' ').next() == Some(name));
        let line = match (line, program.hook()) {
            (Some(line), _) => line,
            // Recorded where the kernel loads no such programs.
            (None, HookKind::Fentry(_)) => continue,
            (None, HookKind::Tcx(_) | HookKind::SockAddr(_) | HookKind::Xdp | HookKind::RawTracepoint(_)) => {
                panic!("{name} has no record: UPDATE_GOLDEN=1")
            }
        };
        let numbers = line
            .split(' ')
            .skip(1)
            .take(4)
            .map(|number| number.parse::<u32>().expect("a number"));
        let now = [cost.instructions, cost.stack, cost.translated, cost.jited];
        for (recorded, now) in numbers.zip(now) {
            assert!(
                now <= recorded * 2 && recorded <= now * 2,
                "{name} is far from its record: {line:?}, now {cost:?}; if that is meant: UPDATE_GOLDEN=1"
            );
        }
    }
}
