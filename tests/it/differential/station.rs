//! A station: an interface of a namespace that sends whatever frames a script makes and notes every frame that comes.
//!
//! Its own IP stack answers ARP and nothing else: all IP is dropped there before conntrack, after the observer has seen
//! it.

use std::{
    io, mem,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};
use netfast_tests::{netns::NsHandle, seeds::family::Family};

use super::{describe::Frame, wire::Packet};

/// `PACKET_IGNORE_OUTGOING` (`linux/if_packet.h`).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `PACKET_VNET_HDR`.
const PACKET_VNET_HDR: libc::c_int = 15;

/// A raw socket on one interface.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    /// Another, which only sends, and whose frames have a [header](Offload::header).
    offloading: OwnedFd,
}

/// What the device is to do with a packet.
#[derive(Clone, Copy, Debug)]
pub struct Offload {
    pub family: Family,
    pub is_tcp: bool,
    /// Bytes before the payload.
    pub header: u16,
    /// Bytes of payload in each segment.
    pub size: u16,
    /// Where the checksum's bytes begin, and where it is from there.
    pub start: u16,
    pub checksum: u16,
}

impl Offload {
    /// `struct virtio_net_hdr` (`linux/virtio_net.h`): flags, kind, lengths and places in host order.
    fn header(&self) -> [u8; 10] {
        const NEEDS_CSUM: u8 = 1;
        const GSO_TCPV4: u8 = 1;
        const GSO_TCPV6: u8 = 4;
        const GSO_UDP_L4: u8 = 5;
        let mut bytes = [0; 10];
        bytes[0] = NEEDS_CSUM;
        bytes[1] = match (self.is_tcp, self.family) {
            (true, Family::V4) => GSO_TCPV4,
            (true, Family::V6) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        let words = [self.header, self.size, self.start, self.checksum];
        for (place, word) in bytes[2..].chunks_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

impl Tap {
    /// Opens it on `device` of the namespace.
    pub fn open(ns: &NsHandle, device: &str) -> Result<Self> {
        ns.run(|| Self::open_here(device))?
            .with_context(|| format!("cannot listen on {device} of {}", ns.path().display()))
    }

    fn open_here(device: &str) -> Result<Self> {
        let socket = raw_socket(&[libc::PACKET_AUXDATA, PACKET_IGNORE_OUTGOING])?;
        bind(&socket, device, libc::ETH_P_ALL)?;
        let offloading = raw_socket(&[PACKET_VNET_HDR])?;
        // It hears nothing.
        bind(&offloading, device, 0)?;
        Ok(Self { socket, offloading })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length are those of a slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Sends a packet that the device is to cut into segments, and to complete the checksum of.
    pub fn send_offloaded(&self, frame: &[u8], offload: &Offload) -> io::Result<()> {
        let bytes = [&offload.header()[..], frame].concat();
        // SAFETY: pointer and length are those of a vector.
        let sent = unsafe { libc::send(self.offloading.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The next frame that has come, if one has.
    pub fn receive(&self) -> Option<Frame> {
        let mut bytes = vec![0_u8; 1 << 16];
        let mut control = [0_u64; 16];
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: plain data, for which zeroes are valid.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: the header points to buffers that outlive the call, with their sizes.
        let got = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        let length = usize::try_from(got).ok()?;
        bytes.truncate(length);
        let auxiliary = auxiliary(&header);
        let has = |flag: u32| auxiliary.is_some_and(|data| data.tp_status & flag != 0);
        Some(Frame {
            vlan: auxiliary
                .filter(|data| data.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                .map(|data| data.tp_vlan_tci),
            is_partial: has(libc::TP_STATUS_CSUMNOTREADY),
            bytes,
        })
    }
}

/// A socket of raw frames with these options switched on.
fn raw_socket(options: &[libc::c_int]) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let socket = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if socket < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    for option in options {
        let on: libc::c_int = 1;
        // SAFETY: pointer and size are those of `on`, which outlives the call.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                *option,
                ptr::from_ref(&on).cast(),
                4,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(socket)
}

/// Binds it to a device, to hear frames of this `EtherType`.
fn bind(socket: &OwnedFd, device: &str, protocol: libc::c_int) -> Result<()> {
    let index = nix::net::if_::if_nametoindex(device)?;
    // SAFETY: plain data, for which zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(protocol)?.to_be();
    address.sll_ifindex = i32::try_from(index)?;
    let size = u32::try_from(size_of_val(&address))?;
    // SAFETY: pointer and size are those of `address`, which outlives the call.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

fn auxiliary(header: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: `header` was filled by recvmsg, and its control buffer, aligned for cmsghdr, still lives.
    let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    if (message.cmsg_level, message.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: the data of PACKET_AUXDATA is a tpacket_auxdata; the read does not ask for alignment.
    Some(unsafe {
        libc::CMSG_DATA(message)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    })
}

/// A place in the topology that scripts send from and observe at.
#[derive(Debug)]
pub struct Station {
    pub name: String,
    pub ip: Ipv4Addr,
    pub mac: [u8; 6],
    /// MAC address of the router.
    pub gateway: [u8; 6],
    tap: Tap,
}

impl Station {
    /// Opens it on `eth0` of the namespace, and silences its IP stack.
    pub fn open(name: &str, ns: &NsHandle, ip: Ipv4Addr, gateway: [u8; 6]) -> Result<Self> {
        ns.sh("iptables -w -t raw -I PREROUTING -j DROP")?;
        Ok(Self {
            name: name.to_owned(),
            ip,
            mac: mac_of(ns, "eth0")?,
            gateway,
            tap: Tap::open(ns, "eth0")?,
        })
    }

    /// One whose stack is silenced by other means.
    pub const fn of(name: String, ip: Ipv4Addr, mac: [u8; 6], gateway: [u8; 6], tap: Tap) -> Self {
        Self {
            name,
            ip,
            mac,
            gateway,
            tap,
        }
    }

    /// The frame of a packet that this station sends to `next_hop`, or to its router.
    pub fn frame(&self, packet: &Packet, next_hop: Option<[u8; 6]>) -> Vec<u8> {
        packet.frame(self.mac, next_hop.unwrap_or(self.gateway))
    }

    /// The raw socket.
    pub const fn tap(&self) -> &Tap {
        &self.tap
    }
}

/// The MAC address of an interface.
pub fn mac_of(ns: &NsHandle, device: &str) -> Result<[u8; 6]> {
    let line = ns.sh(&format!("ip -o link show dev {device}"))?;
    let text = line
        .split_once("link/ether ")
        .and_then(|(_, rest)| rest.split(' ').next());
    let text = text.with_context(|| format!("{device} has no MAC address: {line}"))?;
    parse_mac(text).with_context(|| format!("{text} is no MAC address"))
}

/// A MAC address from text.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}
