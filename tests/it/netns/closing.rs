//! How connections end, and what conntrack makes of their lives: the same with netfast off and on.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    ptr, thread,
    time::Duration,
};

use netfast_tests::{
    cmd,
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo::Topo,
};

use super::lab::{Lab, TIMEOUT, at, connect, topology};

/// Bytes each way before the close: enough for the fast path.
const BYTES: usize = 2 << 20;

/// A way through the topology.
struct Way {
    client: NsHandle,
    to: SocketAddr,
    server: NsHandle,
    port: u16,
}

fn ways(topo: &Topo) -> Vec<Way> {
    let (a, b) = (topo.container(0, 0), topo.container(0, 1));
    let way = |client: &NsHandle, to, server: &NsHandle, port| Way {
        client: client.clone(),
        to,
        server: server.clone(),
        port,
    };
    vec![
        way(&a.ns, at(b.ip, 7005), &b.ns, 7005),
        way(&a.ns, at(LAN_IP, 7006), topo.lan(), 7006),
        way(topo.lan(), at(HOST_IP, 7000), &a.ns, 7001),
    ]
}

/// What conntrack says of the connections to a server's port: states and flags, and seconds left.
fn states(host: &NsHandle, port: u16) -> Vec<(String, u64)> {
    let listed = host.sh("conntrack -L -p tcp 2>/dev/null").expect("conntrack lists");
    let ours = |line: &&str| line.contains(&format!("port={port} "));
    let mut states: Vec<_> = listed
        .lines()
        .filter(ours)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let flags: Vec<&str> = words.iter().copied().filter(|word| word.starts_with('[')).collect();
            (
                format!("{} {}", words[3], flags.join(" ")),
                words[2].parse().expect("seconds"),
            )
        })
        .collect();
    states.sort();
    states
}

/// The states when they have stopped changing.
fn settled(host: &NsHandle, port: u16) -> Vec<String> {
    let mut last = Vec::new();
    cmd::poll("conntrack that settles", TIMEOUT, || {
        let names: Vec<String> = states(host, port).into_iter().map(|(state, _)| state).collect();
        let same = names == last;
        last.clone_from(&names);
        if !same {
            thread::sleep(Duration::from_millis(200));
        }
        same.then_some(())
    })
    .expect("it settles");
    last
}

/// Data there and back; both ends check it.
fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    let data: Vec<u8> = (0..BYTES)
        .map(|at| u8::try_from(at * 31 / 7 % 251).expect("below 251"))
        .collect();
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let mut got = vec![0; BYTES];
            server.read_exact(&mut got).expect("the data");
            server.write_all(&got).expect("the answer");
        });
        client.write_all(&data).expect("the data is sent");
        let mut got = vec![0; BYTES];
        client.read_exact(&mut got).expect("the answer");
        assert!(got == data, "the data was damaged");
        answer.join().expect("the server");
    });
}

/// One end closes its half; the other still has something to say, and then closes.
fn half_close(first: &mut TcpStream, second: &mut TcpStream) {
    first.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(second.read(&mut [0; 16]).expect("the close"), 0);
    second.write_all(b"one more thing").expect("said");
    let mut got = [0; 14];
    first.read_exact(&mut got).expect("heard");
    assert_eq!(&got, b"one more thing");
    second.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(first.read(&mut [0; 16]).expect("the other close"), 0);
}

/// Ends the connection with a RST (`SO_LINGER` of zero).
fn reset(first: TcpStream, second: &mut TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let size = u32::try_from(size_of_val(&linger)).expect("small");
    // SAFETY: pointer and size are those of `linger`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            first.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            ptr::from_ref(&linger).cast(),
            size,
        )
    };
    assert_eq!(done, 0);
    drop(first);
    let error = second.read(&mut [0; 16]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    ClientFirst,
    ServerFirst,
    ResetByClient,
    ResetByServer,
}

/// The states of a connection after open, transfer and end, over each way.
fn lives(topo: &Topo, end: End) -> Vec<Vec<String>> {
    let host = topo.host().handle();
    let mut all = Vec::new();
    for Way {
        client,
        to,
        server,
        port,
    } in ways(topo)
    {
        host.sh("conntrack -F 2>&1").expect("flushed");
        let (mut near, mut far) = connect(&client, to, &server, port);
        all.push(settled(&host, port));
        exchange(&mut near, &mut far);
        all.push(settled(&host, port));
        match end {
            End::ClientFirst => half_close(&mut near, &mut far),
            End::ServerFirst => half_close(&mut far, &mut near),
            End::ResetByClient => reset(near, &mut far),
            End::ResetByServer => reset(far, &mut near),
        }
        let after = settled(&host, port);
        if matches!(end, End::ResetByClient | End::ResetByServer) {
            // conntrack knows the last acknowledgement only with netfast off, and names the connection by that; either
            // way the entry goes after 10 s (`nf_conntrack_proto_tcp.c`, `TCP_CONNTRACK_CLOSE`).
            assert_eq!(after.len(), 1, "{after:?}");
            let (state, seconds) = states(&host, port).pop().unwrap_or_default();
            assert!(seconds <= 10, "{state} for another {seconds} s after a reset");
        } else {
            all.push(after);
        }
    }
    all
}

fn compare(end: End) {
    if !needs(&[Need::Root, Need::Program("conntrack")]) {
        return;
    }
    let topo = Topo::new(&topology()).expect("a topology");
    let off = lives(&topo, end);
    let lab = Lab::around(topo, None);
    let before = lab.fast();
    let on = lives(&lab.topo, end);
    assert!(lab.fast() > before + 100, "the connections did not take the fast path");
    assert_eq!(off, on, "conntrack's states, with netfast off and on");
}

#[test]
fn closed_by_the_client_first() {
    compare(End::ClientFirst);
}

#[test]
fn closed_by_the_server_first() {
    compare(End::ServerFirst);
}

#[test]
fn reset_by_the_client() {
    compare(End::ResetByClient);
}

#[test]
fn reset_by_the_server() {
    compare(End::ResetByServer);
}
