//! What each program costs the kernel's verifier, and how big it gets. Bounded here; the numbers themselves are in
//! tests/golden/verifier.txt, for people. They differ between compilers and kernels, so that only a big change fails.
//!
//! `UPDATE_GOLDEN=1` writes the record anew.

use std::{
    collections::HashSet,
    env,
    fmt::Write as _,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::{FEntry, ProgramError, SchedClassifier},
};
use aya_obj::{
    Object,
    generated::{bpf_attr, bpf_cmd, bpf_prog_info, bpf_prog_type},
};
use netfast::apply::OBJECT;
use netfast_common::abi::program;
use netfast_tests::require::{Need, needs};

use super::harness::Hook;

/// Instructions that the verifier may walk through for one program; its own limit is a million.
const MOST_INSTRUCTIONS: u32 = 25_000;
/// As above, for the one that reads DNS messages: it loops over each byte of a name, of a message and over each record.
const MOST_INSTRUCTIONS_OF_ANSWER: u32 = 200_000;
/// As above, for those that see virtual addresses: six global functions, each of them with a way for every way of a
/// connection.
const MOST_INSTRUCTIONS_OF_VIP: u32 = 90_000;
/// Bytes of stack of a program and all that it calls, `MAX_BPF_STACK`.
const MOST_STACK: u32 = 512;
/// `BPF_LOG_STATS`.
const STATS: u32 = 4;

/// One program's figures.
#[derive(Clone, Copy, Debug)]
struct Cost {
    instructions: u32,
    stack: u32,
    translated: u32,
    jited: u32,
}

#[test]
fn programs_stay_within_their_budget() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let mut ebpf = EbpfLoader::new().load(OBJECT).expect("the object loads");
    let is_of_functions = |hook: &Hook| matches!(hook, Hook::VipIn | Hook::VipOut);
    let plain: Vec<Hook> = Hook::ALL.into_iter().filter(|hook| !is_of_functions(hook)).collect();
    let walked: Vec<u32> = plain
        .iter()
        .map(|hook| instructions(&mut ebpf, hook.program()))
        .collect();
    let with_types = [program::ANSWER, program::VIP_INGRESS, program::VIP_EGRESS];
    let with_types = with_types.map(|name| (name, cost_with_types(&mut ebpf, name)));
    let object = relocated(&mut ebpf);
    let mut text = String::from("# program instructions-verified stack-bytes translated-bytes jited-bytes\n");
    let mut costs = Vec::new();
    let plain = plain.into_iter().zip(walked).map(|(hook, instructions)| {
        let name = hook.program();
        (name, cost(&object, name, instructions))
    });
    for (name, cost) in plain.chain(with_types) {
        writeln!(
            text,
            "{name} {} {} {} {}",
            cost.instructions, cost.stack, cost.translated, cost.jited
        )
        .expect("a string takes all");
        costs.push((name, cost));
    }
    print!("{text}");
    for (name, cost) in &costs {
        let most = match *name {
            program::ANSWER => MOST_INSTRUCTIONS_OF_ANSWER,
            program::VIP_INGRESS | program::VIP_EGRESS => MOST_INSTRUCTIONS_OF_VIP,
            _ => MOST_INSTRUCTIONS,
        };
        assert!(
            cost.instructions < most && cost.stack < MOST_STACK,
            "{name} is over its budget of {most} instructions and {MOST_STACK} bytes of stack: {cost:?}"
        );
    }
    compare(&text, &costs);
}

/// The program that watches `nf_queue` can only be loaded where the kernel has that function and its types.
#[test]
fn the_watch_of_the_queue_loads() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let btf = Btf::from_sys_fs().expect("the kernel's types");
    let mut ebpf = EbpfLoader::new().load(OBJECT).expect("the object loads");
    let watch: &mut FEntry = ebpf
        .program_mut(program::QUEUED)
        .expect("it is in the object")
        .try_into()
        .expect("it is an fentry program");
    match watch.load("nf_queue", &btf) {
        // Not even root may, under lockdown or on a kernel without trampolines; netfast then does without.
        Err(ProgramError::LoadError { io_error, verifier_log }) if verifier_log.to_string().is_empty() => {
            eprintln!("SKIP: this kernel loads no fentry programs: {io_error}");
            return;
        }
        result => result.expect("the verifier takes it"),
    }
    let info = watch.info().expect("its figures");
    assert!(info.verified_instruction_count().is_some_and(|count| count < 100));
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

/// What the verifier walks through when the daemon loads a program: with its types, by which it knows global functions
/// and looks at each of them once.
fn instructions(ebpf: &mut Ebpf, name: &str) -> u32 {
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .expect("it is in the object")
        .try_into()
        .expect("it is a classifier");
    program.load().expect("the verifier takes it");
    let info = program.info().expect("its figures");
    info.verified_instruction_count().expect("since Linux 5.16")
}

/// The figures of a program that the verifier takes only with its types: without them it walks through every loop of the
/// global functions on every way to them. Then nobody tells the stack, which is recorded as 0; the verifier has its own limit.
fn cost_with_types(ebpf: &mut Ebpf, name: &str) -> Cost {
    let instructions = instructions(ebpf, name);
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .expect("it is in the object")
        .try_into()
        .expect("it is a classifier");
    let info = program.info().expect("its figures");
    Cost {
        instructions,
        stack: 0,
        translated: info.size_translated().expect("we may see it"),
        jited: info.size_jitted(),
    }
}

/// The other figures, from the verifier's words.
fn cost(object: &Object, name: &str, instructions: u32) -> Cost {
    let program = &object.programs[name];
    let code = &object.functions[&program.function_key()].instructions;
    let mut log = vec![0_u8; 1 << 16];
    // SAFETY: the kernel reads unset fields as zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: all members of the union are integers, and all is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = code.len().try_into().expect("few");
    load.license = program.license.as_ptr() as u64;
    load.log_level = STATS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len().try_into().expect("small");
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    let log = String::from_utf8_lossy(&log);
    let fd = fd.unwrap_or_else(|error| panic!("{name}: {error}\n{log}"));
    // SAFETY: the kernel has just made it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };

    // SAFETY: plain integers.
    let (mut info, mut attr): (bpf_prog_info, bpf_attr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    attr.info.bpf_fd = fd.as_raw_fd().cast_unsigned();
    attr.info.info = (&raw mut info) as u64;
    attr.info.info_len = size_of::<bpf_prog_info>().try_into().expect("small");
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).expect("its figures");
    Cost {
        instructions,
        stack: stack_in(&log),
        translated: info.xlated_prog_len,
        jited: info.jited_prog_len,
    }
}

/// "stack depth 96+0+8": one number for each function.
fn stack_in(log: &str) -> u32 {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "));
    let line = line.unwrap_or_else(|| panic!("no stack depth in the verifier's words: {log}"));
    let numbers = line.split_whitespace().next().expect("numbers").split('+');
    numbers.map(|number| number.parse::<u32>().expect("a number")).sum()
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, and what they point to lives.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).expect("a descriptor"))
}

/// Half or twice what is recorded is worth a look.
fn compare(text: &str, costs: &[(&str, Cost)]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/verifier.txt");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
        fs::write(&path, text).expect("the record");
        return;
    }
    let record = fs::read_to_string(&path).expect("tests/golden/verifier.txt");
    for (name, cost) in costs {
        let line = record.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} has no record: UPDATE_GOLDEN=1"));
        let numbers = line
            .split(' ')
            .skip(1)
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
