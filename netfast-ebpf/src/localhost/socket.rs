//! What the programs do with the kernel's contexts (`struct bpf_sock_addr`, `net/core/filter.c`).

use core::{mem, ptr};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr, bpf_sock_tuple},
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
        bpf_sk_storage_get,
    },
};
use netfast_common::localhost::{Asked, Name, Outcome, Published, Redirection};

use super::Family;
use crate::{ctx::kernel::coarse_ns, state::localhost as maps};

/// What these programs answer: go on. Nothing is ever refused.
const GO_ON: i32 = 1;
/// IANA protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;
/// Address families of sockets.
const AF_INET: u32 = 2;
/// The namespace of the socket (`BPF_F_CURRENT_NETNS`).
const CURRENT_NETNS: u64 = u64::MAX;
/// Bytes of a tuple of IPv4 and of IPv6: by them the kernel knows the family.
const TUPLE4: u32 = 12;
const TUPLE6: u32 = 36;
/// `127.0.0.1` and the address that the lookup is told to be asked from: it decides nothing about who listens.
const LOCALHOST4: u32 = 0x7f00_0001_u32.to_be();
const LOCALHOST6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// The context of a program.
#[derive(Clone, Copy)]
pub struct Socket(*mut bpf_sock_addr);

/// Reads a field of a context or a socket. Volatile: the verifier takes single loads of whole fields only.
macro_rules! read {
    ($place:expr) => {
        // SAFETY: a field that the kernel lets programs of this kind read.
        unsafe { (&raw const $place).read_volatile() }
    };
}

impl Socket {
    /// Of a context that the kernel gave.
    #[inline(always)]
    pub const fn new(context: *mut bpf_sock_addr) -> Self {
        Self(context)
    }

    /// The address and port that the system call is about.
    #[inline(always)]
    fn name(self, family: Family) -> Name {
        // SAFETY: as for all reads.
        let port = read!((*self.0).user_port);
        match family {
            Family::V4 => Name::v4(read!((*self.0).user_ip4), port),
            Family::V6 => Name {
                address: [
                    read!((*self.0).user_ip6[0]),
                    read!((*self.0).user_ip6[1]),
                    read!((*self.0).user_ip6[2]),
                    read!((*self.0).user_ip6[3]),
                ],
                port,
            },
        }
    }

    #[inline(always)]
    fn set_address(self, family: Family, address: &[u32; 4]) {
        // SAFETY: fields that the kernel lets programs of this kind write, one word each.
        unsafe {
            match family {
                Family::V4 => (&raw mut (*self.0).user_ip4).write_volatile(address[3]),
                Family::V6 => {
                    (&raw mut (*self.0).user_ip6[0]).write_volatile(address[0]);
                    (&raw mut (*self.0).user_ip6[1]).write_volatile(address[1]);
                    (&raw mut (*self.0).user_ip6[2]).write_volatile(address[2]);
                    (&raw mut (*self.0).user_ip6[3]).write_volatile(address[3]);
                }
            }
        }
    }

    #[inline(always)]
    fn set_name(self, family: Family, name: &Name) {
        self.set_address(family, &name.address);
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).user_port).write_volatile(name.port) };
    }

    /// The socket.
    #[inline(always)]
    fn sock(self) -> *mut bpf_sock {
        // SAFETY: the pointer's field of the context; the kernel gives a socket to every program of this kind.
        unsafe { (&raw const (*self.0).__bindgen_anon_1.sk).read_volatile() }
    }

    /// What hangs on the socket, if it was led past docker-proxy before.
    #[inline(always)]
    fn asked(self) -> Option<&'static mut Asked> {
        // SAFETY: the map's value, which lives as long as the socket; what another thread of the program does with the same
        // socket at the same time is a matter of words.
        unsafe { storage(&raw const maps::LED_SOCKETS, self.sock(), 0).as_mut() }
    }

    /// The same, made if it is not there.
    #[inline(always)]
    fn asked_or_new(self) -> Option<&'static mut Asked> {
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        // SAFETY: as above.
        unsafe { storage(&raw const maps::LED_SOCKETS, self.sock(), create).as_mut() }
    }

    /// Whether the socket is bound to an address or an interface, or marked: then it is not known that it would reach the
    /// container as docker-proxy does. A connection that has chosen its port has said too much, too.
    #[inline(always)]
    fn is_bound(self, protocol: u32) -> bool {
        let socket = self.sock();
        let port = read!((*socket).src_port);
        if read!((*socket).bound_dev_if) != 0
            || read!((*socket).mark) != 0
            || (protocol == TCP && port != 0)
            || read!((*socket).src_ip4) != 0
        {
            return true;
        }
        if read!((*socket).family) == AF_INET {
            return false;
        }
        read!((*socket).src_ip6[0]) != 0
            || read!((*socket).src_ip6[1]) != 0
            || read!((*socket).src_ip6[2]) != 0
            || read!((*socket).src_ip6[3]) != 0
    }
}

/// What a map has about a socket; null if there is nothing.
#[inline(always)]
unsafe fn storage<T>(map: *const aya_ebpf::btf_maps::SkStorage<T>, socket: *mut bpf_sock, flags: u64) -> *mut T {
    // SAFETY: a map of the object and a socket that the kernel gave. Without a value it begins as zeros.
    unsafe { bpf_sk_storage_get(map.cast_mut().cast(), socket.cast(), ptr::null_mut(), flags) }.cast()
}

/// Where docker-proxy would lead a program that asks for `asked`; `None`: it does not, or nobody knows.
#[inline(always)]
fn published(context: Socket, asked: &Name, protocol: u32) -> Option<Name> {
    let switch = maps::LOCALHOST.get(0)?;
    if switch.until_ns <= coarse_ns() {
        return None;
    }
    // SAFETY: the context is the kernel's.
    if switch.netns_cookie != unsafe { bpf_get_netns_cookie(context.0.cast()) } {
        return None;
    }
    // SAFETY: plain integers.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "the port is in the first two bytes")]
    let port = asked.port as u16;
    let length = if asked.is_v4() {
        tuple.__bindgen_anon_1.ipv4.saddr = LOCALHOST4;
        tuple.__bindgen_anon_1.ipv4.daddr = asked.address[3];
        tuple.__bindgen_anon_1.ipv4.dport = port;
        TUPLE4
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = LOCALHOST6;
        tuple.__bindgen_anon_1.ipv6.daddr = asked.address;
        tuple.__bindgen_anon_1.ipv6.dport = port;
        TUPLE6
    };
    let at = &raw mut tuple;
    // SAFETY: the context is the kernel's, the tuple as long as is said.
    let listener = unsafe {
        match (protocol == TCP, length == TUPLE4) {
            (true, true) => bpf_sk_lookup_tcp(context.0.cast(), at, TUPLE4, CURRENT_NETNS, 0),
            (true, false) => bpf_sk_lookup_tcp(context.0.cast(), at, TUPLE6, CURRENT_NETNS, 0),
            (false, true) => bpf_sk_lookup_udp(context.0.cast(), at, TUPLE4, CURRENT_NETNS, 0),
            (false, false) => bpf_sk_lookup_udp(context.0.cast(), at, TUPLE6, CURRENT_NETNS, 0),
        }
    };
    if listener.is_null() {
        return None;
    }
    // SAFETY: a socket that is held until it is released below; its value is copied before.
    let found: Option<Published> = unsafe { storage(&raw const maps::PUBLISHED, listener, 0).as_ref() }.copied();
    // SAFETY: held since the lookup.
    unsafe { bpf_sk_release(listener.cast()) };
    let found = found?;
    let fits = found.generation == switch.generation && found.protocol == protocol;
    (fits && found.target.is_v4() == asked.is_v4()).then_some(found.target)
}

/// Where a program is led that asks for `asked`; `None`: nowhere else. `bound_to` is what it says its datagram is from.
#[inline(always)]
fn way(context: Socket, asked: &Name, protocol: u32, bound_to: u32) -> Option<Redirection> {
    // docker-proxy's answers to datagrams come from where the kernel sends from, whatever loopback address was asked, before
    // Docker 28.0 (moby/moby#48571), and from the address that was asked since.
    if protocol == UDP && asked.is_v4() && asked.address[3] != LOCALHOST4 {
        return None;
    }
    let target = published(context, asked, protocol)?;
    if bound_to != 0 || context.is_bound(protocol) {
        count(Outcome::Bound);
        return None;
    }
    // SAFETY: takes nothing and returns a number.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the value is not looked at.
    if unsafe { maps::CGROUPS.get(cgroup) }.is_none() {
        count(Outcome::Cgroup);
        return None;
    }
    Some(Redirection { asked: *asked, target })
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(count) = maps::OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own, and a program of a cgroup is not interrupted by another on it.
        unsafe { *count += 1 };
    }
}

/// A program connects a socket.
#[inline(always)]
pub fn connect(context: Socket, family: Family) -> i32 {
    let asked = context.name(family);
    let protocol = read!((*context.0).protocol);
    let is_loopback = asked.is_set() && asked.is_loopback() && (protocol == TCP || protocol == UDP);
    let led = if is_loopback {
        way(context, &asked, protocol, 0)
    } else {
        None
    };
    let Some(led) = led else {
        // It may have been led before, and is connected to something else now.
        if let Some(known) = context.asked() {
            known.connected = Redirection::default();
        }
        return GO_ON;
    };
    let Some(known) = context.asked_or_new() else {
        return GO_ON;
    };
    known.connected = led;
    context.set_name(family, &led.target);
    count(if protocol == TCP { Outcome::Tcp } else { Outcome::Udp });
    GO_ON
}

/// A program sends a datagram from a socket that is not connected.
#[inline(always)]
pub fn send(context: Socket, family: Family) -> i32 {
    let asked = context.name(family);
    if !asked.is_set() || !asked.is_loopback() {
        if let Some(known) = context.asked() {
            known.note_direct(&asked);
        }
        return GO_ON;
    }
    let bound_to = match family {
        Family::V4 => read!((*context.0).msg_src_ip4),
        Family::V6 => {
            read!((*context.0).msg_src_ip6[0])
                | read!((*context.0).msg_src_ip6[1])
                | read!((*context.0).msg_src_ip6[2])
                | read!((*context.0).msg_src_ip6[3])
        }
    };
    if read!((*context.0).protocol) != UDP {
        return GO_ON;
    }
    let Some(led) = way(context, &asked, UDP, bound_to) else {
        return GO_ON;
    };
    let Some(known) = context.asked_or_new() else {
        return GO_ON;
    };
    if known.note_sent(&led) {
        context.set_name(family, &led.target);
        count(Outcome::Datagram);
    } else {
        count(Outcome::Many);
    }
    GO_ON
}

/// A program is told whom a datagram is from.
#[inline(always)]
pub fn receive(context: Socket, family: Family) -> i32 {
    if let Some(known) = context.asked()
        && let Some(asked) = known.of(&context.name(family))
    {
        context.set_name(family, &asked);
    }
    GO_ON
}

/// A program is told whom its socket is connected to.
#[inline(always)]
pub fn name_peer(context: Socket, family: Family) -> i32 {
    if let Some(known) = context.asked()
        && known.connected.asked.is_set()
        && known.connected.target.is(&context.name(family))
    {
        let asked = known.connected.asked;
        context.set_name(family, &asked);
    }
    GO_ON
}

/// A program is told what its own address is.
#[inline(always)]
pub fn name_own(context: Socket, family: Family) -> i32 {
    if let Some(known) = context.asked()
        && known.connected.asked.is_set()
        && is_connected(context, &known.connected.target)
    {
        let own = if known.connected.asked.is_v4() {
            Name::v4(LOCALHOST4, 0).address
        } else {
            LOCALHOST6
        };
        context.set_address(family, &own);
    }
    GO_ON
}

/// Whether the socket still is connected to this address.
#[inline(always)]
fn is_connected(context: Socket, target: &Name) -> bool {
    let socket = context.sock();
    if target.is_v4() {
        return read!((*socket).dst_ip4) == target.address[3];
    }
    read!((*socket).dst_ip6[0]) == target.address[0]
        && read!((*socket).dst_ip6[1]) == target.address[1]
        && read!((*socket).dst_ip6[2]) == target.address[2]
        && read!((*socket).dst_ip6[3]) == target.address[3]
}
