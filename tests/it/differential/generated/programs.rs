//! Programs of others: a handful of instructions, loaded and attached by bpf(2), gone when they are dropped.

use std::{
    ffi::c_char,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use netfast_tests::{
    leftovers::{self, BPFFS},
    netns::NsHandle,
    seeds::{
        family::Family,
        judge::{LONG, Prey},
        names::MARK,
    },
};

/// Opcodes of `linux/bpf.h` and `linux/bpf_common.h`.
mod code {
    /// `r[dst] = imm`.
    pub const MOVE: u8 = 0xb7;
    /// `r[dst] = r[src]`.
    pub const COPY: u8 = 0xbf;
    /// `r[dst] += imm`.
    pub const ADD: u8 = 0x07;
    /// `r[dst] -= r[src]`.
    pub const SUBTRACT: u8 = 0x1f;
    /// `r[dst] = *(u32 *)(r[src] + off)`.
    pub const LOAD: u8 = 0x61;
    /// `r[dst] = *(u16 *)(r[src] + off)`.
    pub const LOAD_HALF: u8 = 0x69;
    /// To `off` instructions further on if `r[dst] != imm`.
    pub const IF_OTHER: u8 = 0x55;
    /// To `off` instructions further on if `r[dst] <= imm`.
    pub const IF_AT_MOST: u8 = 0xb5;
    /// To `off` instructions further on if `r[dst] > r[src]`.
    pub const IF_ABOVE: u8 = 0x2d;
    pub const EXIT: u8 = 0x95;
}

/// A family's `EtherType` in network order, as a number of this machine.
const fn ethertype(family: Family) -> i32 {
    family.ethertype().to_be() as i32
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// tcx and tc filters.
    Classifier,
    /// XDP.
    Xdp,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// A program on an interface, for as long as it lives.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

/// A path of a program in bpffs, for as long as it lives.
#[derive(Debug)]
pub struct Pin(PathBuf);

/// Where a link goes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// tcx: on egress or ingress, before or behind all others.
    Tcx { egress: bool, first: bool },
    /// XDP: in the driver or in the stack.
    Xdp { native: bool },
}

impl Program {
    /// Loads one that drops its prey and leaves everything else to whoever comes next.
    pub fn load(kind: Kind, family: Family, prey: Prey) -> Result<Self> {
        let instructions = match kind {
            Kind::Classifier => classifier(family, prey),
            Kind::Xdp => xdp(family, prey),
        };
        // SAFETY: zero is valid for every field of this union of integers.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: all of it was just zeroed.
        let what = unsafe { &mut attributes.__bindgen_anon_3 };
        what.prog_type = match kind {
            Kind::Classifier => bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32,
            Kind::Xdp => bpf_prog_type::BPF_PROG_TYPE_XDP as u32,
        };
        what.insns = instructions.as_ptr() as u64;
        what.insn_cnt = u32::try_from(instructions.len())?;
        what.license = c"GPL".as_ptr() as u64;
        for (place, byte) in what.prog_name.iter_mut().zip(b"foreign_drop") {
            *place = c_char::from_ne_bytes([*byte]);
        }
        Ok(Self(
            bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes).context("a program of others is refused")?,
        ))
    }

    /// Attaches it to an interface of a namespace.
    pub fn attach(&self, space: &NsHandle, device: &str, place: Place) -> Result<Attached> {
        const BEFORE: u32 = 1 << 3;
        const AFTER: u32 = 1 << 4;
        const XDP_GENERIC: u32 = 1 << 1;
        const XDP_DRIVER: u32 = 1 << 2;
        let (hook, flags) = match place {
            Place::Tcx { egress, first } => (
                if egress {
                    bpf_attach_type::BPF_TCX_EGRESS
                } else {
                    bpf_attach_type::BPF_TCX_INGRESS
                },
                if first { BEFORE } else { AFTER },
            ),
            Place::Xdp { native } => (bpf_attach_type::BPF_XDP, if native { XDP_DRIVER } else { XDP_GENERIC }),
        };
        let link = space.run(|| {
            let index = nix::net::if_::if_nametoindex(device)?;
            // SAFETY: zero is valid for every field of this union of integers.
            let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
            // SAFETY: all of it was just zeroed.
            let what = unsafe { &mut attributes.link_create };
            what.__bindgen_anon_1.prog_fd = self.0.as_raw_fd().cast_unsigned();
            what.__bindgen_anon_2.target_ifindex = index;
            what.attach_type = hook as u32;
            what.flags = flags;
            bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
        })?;
        Ok(Attached { _link: link? })
    }

    /// A path by which tc can be told of it.
    pub fn pin(&self) -> Result<Pin> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pin = PathBuf::from(BPFFS).join(format!("{}-foreign{number}", leftovers::tag()));
        let path = std::ffi::CString::new(pin.to_str().context("UTF-8")?)?;
        // SAFETY: zero is valid for every field of this union of integers.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: all of it was just zeroed.
        let what = unsafe { &mut attributes.__bindgen_anon_4 };
        what.pathname = path.as_ptr() as u64;
        what.bpf_fd = self.0.as_raw_fd().cast_unsigned();
        command(bpf_cmd::BPF_OBJ_PIN, &mut attributes)?;
        Ok(Pin(pin))
    }
}

impl Pin {
    /// As tc takes it.
    pub fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

/// Fields of `struct __sk_buff`, of which r1 is the address.
fn classifier(family: Family, prey: Prey) -> Vec<bpf_insn> {
    const LENGTH: i16 = 0;
    const MARKED: i16 = 8;
    const PROTOCOL: i16 = 16;
    /// `TC_ACT_SHOT` and `TC_ACT_UNSPEC`, which are `TCX_DROP` and `TCX_NEXT`.
    const DROP: i32 = 2;
    const NEXT: i32 = -1;
    let mut program = vec![
        instruction(code::LOAD, 2, 1, PROTOCOL, 0),
        instruction(
            code::IF_OTHER,
            2,
            0,
            if prey == Prey::All { 2 } else { 4 },
            ethertype(family),
        ),
    ];
    match prey {
        Prey::All => {}
        Prey::Long => program.extend([
            instruction(code::LOAD, 2, 1, LENGTH, 0),
            instruction(code::IF_AT_MOST, 2, 0, 2, LONG.into()),
        ]),
        Prey::Marked => program.extend([
            instruction(code::LOAD, 2, 1, MARKED, 0),
            instruction(code::IF_OTHER, 2, 0, 2, MARK.cast_signed()),
        ]),
    }
    program.extend(verdicts(DROP, NEXT));
    program
}

/// Fields of `struct xdp_md`: data and its end.
fn xdp(family: Family, prey: Prey) -> Vec<bpf_insn> {
    const DROP: i32 = 1;
    const PASS: i32 = 2;
    let rest = if prey == Prey::All { 2 } else { 4 };
    let mut program = vec![
        instruction(code::LOAD, 2, 1, 0, 0),
        instruction(code::LOAD, 3, 1, 4, 0),
        instruction(code::COPY, 4, 2, 0, 0),
        instruction(code::ADD, 4, 0, 0, 14),
        instruction(code::IF_ABOVE, 4, 3, rest + 2, 0),
        instruction(code::LOAD_HALF, 5, 2, 12, 0),
        instruction(code::IF_OTHER, 5, 0, rest, ethertype(family)),
    ];
    if prey != Prey::All {
        program.extend([
            instruction(code::SUBTRACT, 3, 2, 0, 0),
            instruction(code::IF_AT_MOST, 3, 0, 2, LONG.into()),
        ]);
    }
    program.extend(verdicts(DROP, PASS));
    program
}

fn verdicts(drop: i32, pass: i32) -> [bpf_insn; 4] {
    [
        instruction(code::MOVE, 0, 0, 0, drop),
        instruction(code::EXIT, 0, 0, 0, 0),
        instruction(code::MOVE, 0, 0, 0, pass),
        instruction(code::EXIT, 0, 0, 0, 0),
    ]
}

fn instruction(code: u8, destination: u8, source: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(destination, source),
        off,
        imm,
    }
}

fn bpf(what: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = command(what, attributes)?;
    // SAFETY: these commands give a descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn command(what: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attributes` is valid for its size, and what it points to outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, what as u32, attributes, size_of::<bpf_attr>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(done).map_err(io::Error::other)
}
