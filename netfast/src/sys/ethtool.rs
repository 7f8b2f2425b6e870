//! What an interface is set to do, by `SIOCETHTOOL` (linux/ethtool.h), in the calling thread's network namespace.

use std::{ffi::c_char, io, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `SIOCETHTOOL`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GFLAGS`, and of its answer `ETH_FLAG_RXVLAN`.
const GET_FLAGS: u32 = 0x25;
const RX_VLAN: u32 = 1 << 8;
/// `ETHTOOL_GGRO` and `ETHTOOL_SGRO`.
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;
/// `ETHTOOL_STXCSUM`, and `ETHTOOL_GTXCSUM` that asks.
const SET_TX_CHECKSUMS: u32 = 0x17;
/// `ETHTOOL_STSO`.
const SET_TSO: u32 = 0x1f;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether an interface takes VLAN tags off what it receives (`rx-vlan-offload`).
pub fn takes_tags_off(name: &str) -> io::Result<bool> {
    Ok(call(name, GET_FLAGS, 0)? & RX_VLAN != 0)
}

/// Whether an interface makes few packets of many (`generic-receive-offload`).
pub fn has_gro(name: &str) -> io::Result<bool> {
    Ok(call(name, GET_GRO, 0)? != 0)
}

/// Lets it, or no longer.
pub fn set_gro(name: &str, on: bool) -> io::Result<()> {
    call(name, SET_GRO, on.into()).map(drop)
}

/// Lets an interface leave the checksums of what it sends to the hardware, or has them computed before.
pub fn set_tx_checksums(name: &str, on: bool) -> io::Result<()> {
    call(name, SET_TX_CHECKSUMS, on.into()).map(drop)
}

/// Lets an interface leave the cutting of TCP into segments to the hardware, or has it done before.
pub fn set_tso(name: &str, on: bool) -> io::Result<()> {
    call(name, SET_TSO, on.into()).map(drop)
}

fn call(name: &str, command: u32, data: u32) -> io::Result<u32> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command, data };
    // SAFETY: zeros are valid for every field of this structure of integers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: an open socket, and a request that points to a value which outlives the call.
    if unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data)
}
