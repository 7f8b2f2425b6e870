//! A user-space inspector (NFQUEUE): what it holds is never learned.

use std::{
    io, mem,
    net::SocketAddrV4,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    site::HOST_IP,
    topo::{Options, Published},
};

use super::{
    conversation::Conversation,
    runner::{Case, check},
    wire::{Packet, TCP, UDP},
    world::{Got, TIMEOUT, World},
};

/// `NFNL_SUBSYS_QUEUE` (linux/netfilter/nfnetlink.h), and its messages (`nfnetlink_queue.h`).
const QUEUE: u16 = 3 << 8;
const PACKET: u16 = QUEUE;
const VERDICT: u16 = QUEUE | 1;
const CONFIG: u16 = QUEUE | 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Attributes: `NFQA_PACKET_HDR`, `NFQA_VERDICT_HDR`, `NFQA_CFG_CMD`, `NFQA_CFG_PARAMS`.
const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
/// The queue's number.
const NUMBER: u16 = netfast_tests::seeds::rule::QUEUE;

/// Lets the packets go that wait in the queue of a socket that does not block; returns how many that were.
pub fn accept_all(socket: &OwnedFd, buffer: &mut [u8]) -> usize {
    let mut accepted = 0;
    loop {
        // SAFETY: pointer and length are those of the buffer.
        let got = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        let Ok(length) = usize::try_from(got) else {
            return accepted;
        };
        for id in packets(&buffer[..length]) {
            let _late = send(
                socket,
                VERDICT,
                VERDICT_HEADER,
                &[0, 0, 0, 1, id[0], id[1], id[2], id[3]],
            );
            accepted += 1;
        }
    }
}

/// Accepts every packet of a queue, on a thread of its own.
struct Inspector {
    seen: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Inspector {
    fn start(ns: &NsHandle) -> Result<Self> {
        let socket = ns.run(open)??;
        let (seen, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || {
                let mut buffer = vec![0_u8; 1 << 18];
                while !stop.load(Ordering::Relaxed) {
                    // SAFETY: pointer and length are those of the buffer.
                    let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                    if let Ok(length) = usize::try_from(got) {
                        for id in packets(&buffer[..length]) {
                            seen.fetch_add(1, Ordering::Relaxed);
                            let _late = send(
                                &socket,
                                VERDICT,
                                VERDICT_HEADER,
                                &[0, 0, 0, 1, id[0], id[1], id[2], id[3]],
                            );
                        }
                    }
                }
            })
        };
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A socket that is bound to the queue and gets the packets whole.
pub fn open() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let socket = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_NETFILTER,
        )
    };
    if socket < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let tick = libc::timeval {
        tv_sec: 0,
        tv_usec: 20_000,
    };
    let size = u32::try_from(size_of_val(&tick))?;
    // SAFETY: pointer and size are those of `tick`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const tick).cast(),
            size,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // NFQNL_CFG_CMD_BIND; NFQNL_COPY_PACKET, up to 64 KiB less one.
    send(&socket, CONFIG, CONFIG_COMMAND, &[1, 0, 0, 0])?;
    send(&socket, CONFIG, CONFIG_PARAMETERS, &[0, 0, 0xff, 0xff, 2])?;
    Ok(socket)
}

/// One request with one attribute.
pub fn send(socket: &OwnedFd, kind: u16, attribute: u16, payload: &[u8]) -> io::Result<()> {
    let length = u16::try_from(4 + payload.len()).expect("short");
    // nfgenmsg: family, version, resource.
    let mut body = vec![0, 0];
    body.extend(NUMBER.to_be_bytes());
    body.extend(length.to_ne_bytes());
    body.extend(attribute.to_ne_bytes());
    body.extend(payload);
    body.resize(body.len().next_multiple_of(4), 0);
    let total = u32::try_from(16 + body.len()).expect("short");
    let mut message = total.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    // SAFETY: pointer and length are those of the message.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The packets' numbers in what the kernel has sent.
pub fn packets(mut bytes: &[u8]) -> Vec<[u8; 4]> {
    let mut ids = Vec::new();
    while let Some(header) = bytes.get(..16) {
        let length = u32::from_ne_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if length < 20 || length > bytes.len() {
            break;
        }
        // Past netlink's header and nfgenmsg the attributes begin.
        let mut attributes = &bytes[20..length];
        while kind == PACKET && attributes.len() >= 4 {
            let size = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
            let attribute = u16::from_ne_bytes([attributes[2], attributes[3]]);
            if attribute == PACKET_HEADER
                && let Some(id) = attributes.get(4..8)
            {
                ids.push(id.try_into().expect("four bytes"));
            }
            attributes = attributes.get(size.max(4).next_multiple_of(4)..).unwrap_or_default();
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    ids
}

fn case() -> Case {
    Case {
        topology: Options {
            published: vec![Published {
                host_port: 8080,
                container: (0, 0),
                port: 80,
            }],
            ..Options::default()
        },
        ..Case::default()
    }
}

/// Sends a packet and waits until it has come through the queue and arrived.
fn through(world: &mut World, from: &str, to: &str, packet: &Packet) -> (Got, Vec<String>) {
    let mut all = world.exchange(&[(from, packet.clone())]);
    assert!(!world.was_fast(), "a packet of a queued flow took the fast path");
    cmd::poll("a packet from the queue", TIMEOUT, || {
        for (name, frames) in world.exchange(&[]) {
            all.entry(name).or_default().extend(frames);
        }
        (!all[to].is_empty()).then_some(())
    })
    .expect("it arrives");
    let lines = world.lines(&all);
    (all, lines)
}

fn all_queued(world: &mut World) {
    // The rule was there before; who listens comes now.
    let inspector = Inspector::start(&world.host()).expect("an inspector");
    let neighbour = SocketAddrV4::new(world.ip("c01"), 7000);
    let outside = SocketAddrV4::new(world.ip("lan"), 7000);
    for (client, to, server) in [
        ("c00", neighbour, "c01"),
        ("c00", outside, "lan"),
        ("lan", SocketAddrV4::new(HOST_IP, 8080), "c00"),
    ] {
        for protocol in [UDP, TCP] {
            let conversation = Conversation::open_by(world, protocol, client, 40_000, to, server, through);
            for number in 0..8 {
                let forward = conversation.forward(&[number; 30]);
                let (_, lines) = through(world, client, server, &forward);
                world.note("forward", lines);
                let back = conversation.back(&[number; 20]);
                let (_, lines) = through(world, server, client, &back);
                world.note("back", lines);
            }
        }
    }
    assert!(
        inspector.seen() >= 3 * 2 * 16,
        "the queue saw {} packets",
        inspector.seen()
    );
    assert_eq!(world.flows(), 0, "queued flows were learned");
}

#[test]
fn queued_flows_are_never_learned() {
    check(&Case {
        prepare: |world| world.iptables("-I DOCKER-USER -j NFQUEUE --queue-num 7"),
        script: all_queued,
        ..case()
    });
}

#[test]
fn queued_flows_are_never_learned_after_nat() {
    check(&Case {
        prepare: |world| {
            world.iptables("-t mangle -A POSTROUTING -p udp --dport 9 -j ACCEPT");
            world.iptables("-t mangle -A POSTROUTING -j NFQUEUE --queue-num 7");
        },
        script: all_queued,
        ..case()
    });
}

/// Many identical packets at once, so that one may meet the candidate of another.
#[test]
fn queued_flows_are_never_learned_under_load() {
    check(&Case {
        prepare: |world| world.iptables("-I DOCKER-USER -j NFQUEUE --queue-num 7"),
        script: |world| {
            let inspector = Inspector::start(&world.host()).expect("an inspector");
            let outside = SocketAddrV4::new(world.ip("lan"), 7000);
            let conversation = Conversation::open_by(world, UDP, "c00", 40_000, outside, "lan", through);
            let mut arrived = [0, 0];
            for round in 1..=150 {
                let mut packets = Vec::new();
                for number in 0..10 {
                    let forward = conversation.forward(&[b'f'; 40]).with(|packet| packet.id += number % 2);
                    packets.push(("c00", forward));
                    packets.push(("lan", conversation.back(&[b'b'; 40])));
                }
                // The next round begins when this one has come through: the queue has its limits.
                cmd::poll("packets from the queue", TIMEOUT, || {
                    let got = world.exchange(&mem::take(&mut packets));
                    arrived[0] += got["lan"].len();
                    arrived[1] += got["c00"].len();
                    (arrived == [10 * round, 10 * round]).then_some(())
                })
                .expect("they arrive");
                assert_eq!(world.flows(), 0, "queued flows were learned");
            }
            world.note("arrived", vec![format!("{arrived:?}")]);
            assert!(inspector.seen() >= 3000, "the queue saw {} packets", inspector.seen());
            assert_eq!(world.flows(), 0, "queued flows were learned");
        },
        ..case()
    });
}
