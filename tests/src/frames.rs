//! Frames that were never in a `struct sk_buff`, as a network card hands them over: XDP's test run sends them from one end of a veth,
//! and the other end gets them as they are (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18).

use std::{
    ffi::{c_char, c_long},
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::packet::Packet;

/// Of linux/bpf.h: commands, the type of programs, the flag.
const PROG_LOAD: c_long = 5;
const PROG_TEST_RUN: c_long = 10;
const PROG_TYPE_XDP: u32 = 6;
const LIVE_FRAMES: u32 = 1 << 1;

/// Bytes from the start of each frame that are written anew: Ethernet, IPv4 and UDP headers, in words.
const HEADERS: u8 = 4 * WORDS;
/// So many words.
const WORDS: u8 = 11;

/// A program that writes the headers and sends the frame out of the interface that it is said to have come by (`XDP_TX`). It must
/// write them: pages are used again and again, and who has forwarded a frame has changed it.
pub struct Injector {
    program: OwnedFd,
    frame: Vec<u8>,
}

impl Injector {
    /// Loads it, for a frame of 44 bytes or more.
    pub fn new(frame: &[u8]) -> io::Result<Self> {
        let code = code(frame);
        let license = c"GPL";
        let mut attr = [0_u8; 72];
        put(&mut attr, 0, PROG_TYPE_XDP);
        put(&mut attr, 4, u32::try_from(code.len()).map_err(io::Error::other)?);
        put_address(&mut attr, 8, code.as_ptr() as u64);
        put_address(&mut attr, 16, license.as_ptr() as u64);
        let fd = bpf(PROG_LOAD, &mut attr)?;
        Ok(Self {
            // SAFETY: the kernel has just given it to us alone.
            program: unsafe { OwnedFd::from_raw_fd(fd) },
            frame: frame.to_vec(),
        })
    }

    /// Sends the frame so many times out of an interface of the calling thread's namespace; returns when all are sent.
    pub fn send(&self, ifindex: u32, times: u32) -> io::Result<()> {
        let length = u32::try_from(self.frame.len()).map_err(io::Error::other)?;
        // `struct xdp_md`: data, its end, metadata, the interface that it came by, queue, the interface that it goes to.
        let context = [0, length, 0, ifindex, 0, 0_u32];
        let mut attr = [0_u8; 80];
        put(&mut attr, 0, self.program.as_raw_fd().cast_unsigned());
        put(&mut attr, 8, length);
        put_address(&mut attr, 16, self.frame.as_ptr() as u64);
        put(&mut attr, 32, times);
        put(&mut attr, 40, 24);
        put_address(&mut attr, 48, context.as_ptr() as u64);
        put(&mut attr, 64, LIVE_FRAMES);
        bpf(PROG_TEST_RUN, &mut attr).map(drop)
    }
}

/// The program's instructions (Documentation/bpf/standardization/instruction-set.rst).
fn code(frame: &[u8]) -> Vec<[u8; 8]> {
    let instruction = |operation: u8, to: u8, from: u8, offset: u8, number: [u8; 4]| {
        let [a, b, c, d] = number;
        [operation, from << 4 | to, offset, 0, a, b, c, d]
    };
    let none = [0; 4];
    let (words, _) = frame.as_chunks::<4>();
    let words = &words[..usize::from(WORDS)];
    let mut code = vec![
        // r2 = data, r3 = its end, r4 = r2 + HEADERS
        instruction(0x61, 2, 1, 0, none),
        instruction(0x61, 3, 1, 4, none),
        instruction(0xbf, 4, 2, 0, none),
        instruction(0x07, 4, 0, 0, [HEADERS, 0, 0, 0]),
        // Past the words, if r4 > r3.
        instruction(0x2d, 4, 3, WORDS, none),
    ];
    let stores = words.iter().zip((0_u8..).step_by(4));
    code.extend(stores.map(|(word, offset)| instruction(0x62, 2, 0, offset, *word)));
    // r0 = XDP_TX, exit
    code.extend([
        instruction(0xb7, 0, 0, 0, [3, 0, 0, 0]),
        instruction(0x95, 0, 0, 0, none),
    ]);
    code
}

fn put(attr: &mut [u8], place: usize, number: u32) {
    attr[place..place + 4].copy_from_slice(&number.to_ne_bytes());
}

fn put_address(attr: &mut [u8], place: usize, address: u64) {
    attr[place..place + 8].copy_from_slice(&address.to_ne_bytes());
}

fn bpf(command: c_long, attr: &mut [u8]) -> io::Result<i32> {
    // SAFETY: as many bytes as are said, and what they point to outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), attr.len()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(done).map_err(io::Error::other)
}

/// A UDP datagram as it is on the wire.
pub fn datagram(macs: ([u8; 6], [u8; 6]), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: usize) -> Vec<u8> {
    let (to_mac, from_mac) = macs;
    let packet = Packet::udp(from, to).macs(to_mac, from_mac);
    packet.with(|packet| packet.payload = vec![0x5a; payload]).bytes()
}

/// Lets a veth take frames from its other end without a program on it: by GRO, which gives it NAPI (`ETHTOOL_SGRO`), in the
/// calling thread's namespace.
pub fn let_take_frames(name: &str) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const SET_GRO: u32 = 0x2c;
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = [SET_GRO, 1];
    // SAFETY: zeros are valid for every field of this structure of integers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *place = c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: an open socket, and a request that points to a value which outlives the call.
    if unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
