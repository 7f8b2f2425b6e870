//! Names that containers of a dual-stack network share. The C library sorts addresses (RFC 6724), and by the last of its rules one
//! member is the nearest to each client for ever; so answers of IPv6 name only the member whose turn it is.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use netfast_tests::{
    cmd,
    dns::{A, AAAA, Question},
    docker_host::{DockerHost, Options},
    netns::NsHandle,
    require::{Need, needs},
};

use super::bed::{Bed, PORT, TIMEOUT, docker_host, stat};

const WEB: [&str; 3] = ["web-1", "web-2", "web-3"];

/// A dual-stack network of this prefix with three servers called `web`, and one who asks.
fn dual_stack(prefix: &str) -> DockerHost {
    let host = docker_host(Options::default());
    let subnet = format!("--subnet={prefix}::/64");
    host.create_network("shop", &["--ipv6", &subnet]).expect("a network");
    let port = PORT.to_string();
    for name in WEB {
        let server = ["netfast-traffic", "rr-server", &port];
        host.run_container(name, "shop", &["--network-alias", "web"], &server)
            .expect("a container");
    }
    host.run_container("client", "shop", &[], &[]).expect("a container");
    host
}

fn addresses6(host: &DockerHost) -> BTreeSet<IpAddr> {
    let ip = |name: &&str| {
        let attachment = host.attachment(name, "shop").expect("it is there");
        attachment.ip6.parse().expect("an IPv6 address")
    };
    WEB.iter().map(ip).collect()
}

/// Starts netfast, and waits until the client's answers are changed.
fn start(host: DockerHost) -> Bed {
    let bed = Bed::start(host, None);
    let client = bed.ns("client");
    cmd::poll("answers in turn", TIMEOUT, || {
        let answer = Question::of("web").ask(&client).ok()?;
        (answer.ttls == [0; 3]).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", bed.netfast.log()));
    bed
}

/// A program with a C library's resolver that prints the first address of a name, so many times.
fn with(compiler: &str, dir: &Path) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/it/docker/first_address.c");
    let program = dir.join(format!("first_address.{compiler}"));
    let mut compile = Command::new(compiler);
    compile.args((compiler == "musl-gcc").then_some("-static"));
    cmd::run(compile.args(["-O1", source, "-o"]).arg(&program)).expect("it compiles");
    program.display().to_string()
}

/// The first addresses that a program is given for `web` in the client's namespace.
fn firsts(host: &DockerHost, dir: &Path, program: &str, times: usize) -> Vec<IpAddr> {
    let file = dir.join("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.11\noptions ndots:0\n").expect("a file");
    let line = format!(
        "unshare --mount sh -c 'mount --bind {} /etc/resolv.conf; {program} web {times} any'",
        file.display(),
    );
    let said = host.in_container_netns("client", &line).expect("names");
    said.lines().map(|ip| ip.parse().expect("an address")).collect()
}

/// Connects to each address in turn; how many connections each member got.
fn connections(host: &DockerHost, to: &[IpAddr]) -> Vec<u64> {
    let members: Vec<NsHandle> = WEB
        .iter()
        .map(|name| host.container_netns(name).expect("it runs"))
        .collect();
    let counts = || members.iter().map(|member| stat(member, "Tcp", "PassiveOpens"));
    let before: Vec<u64> = counts().collect();
    let client = host.container_netns("client").expect("it runs");
    client
        .run(|| {
            for ip in to {
                let to = SocketAddr::new(*ip, PORT);
                TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap_or_else(|error| panic!("{to}: {error}"));
            }
        })
        .expect("entered");
    counts().zip(before).map(|(after, before)| after - before).collect()
}

fn assert_in_turn(what: &str, firsts: &[IpAddr], members: &BTreeSet<IpAddr>) {
    for (round, some) in firsts.chunks_exact(members.len()).enumerate() {
        let some: BTreeSet<IpAddr> = some.iter().copied().collect();
        assert_eq!(&some, members, "{what}: round {round}");
    }
}

#[test]
fn nine_connections_by_a_dual_stack_name_go_to_three_members_three_each() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("musl-gcc")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let programs = ["gcc", "musl-gcc"].map(|compiler| (compiler, with(compiler, dir.path())));
    // Global addresses: both libraries prefer IPv6.
    let host = dual_stack("2001:db8:51");
    for (compiler, program) in &programs {
        let plain = connections(&host, &firsts(&host, dir.path(), program, 9));
        println!("9 connections by {compiler}, Docker alone: {plain:?}");
    }
    let all = addresses6(&host);
    let bed = start(host);
    for (compiler, program) in &programs {
        let given = firsts(&bed.host, dir.path(), program, 9);
        assert_in_turn(compiler, &given, &all);
        let reached = connections(&bed.host, &given);
        println!("9 connections by {compiler}: {reached:?}");
        assert_eq!(reached, [3; 3], "{compiler}");
    }
    // The answers of IPv4 name all, so nobody is hidden from who looks for all members.
    let client = bed.ns("client");
    let question = |kind, tcp| Question {
        kind,
        tcp,
        ..Question::of("web")
    };
    let ask = |kind, tcp| question(kind, tcp).ask(&client).expect("an answer").addresses;
    assert_eq!((ask(A, false).len(), ask(AAAA, false).len()), (3, 1));
    // By TCP nothing can be left out: each record is the one.
    let by_tcp = ask(AAAA, true);
    assert!(
        by_tcp.len() == 3 && by_tcp.iter().all(|ip| *ip == by_tcp[0]),
        "{by_tcp:?}"
    );
    let said = bed
        .netfast
        .verb(&["explain", "client", "web:7001"])
        .expect("netfast explain");
    assert!(said.contains("with IPv6 names no other"), "{said}");
}

/// With unique local addresses glibc prefers IPv6. musl prefers IPv4 and sorts that, too, when there is IPv6: its clients need
/// a virtual address, as the documentation says.
#[test]
fn with_unique_local_addresses_glibc_takes_turns_and_musl_prefers_ipv4() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("musl-gcc")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let [glibc, musl] = ["gcc", "musl-gcc"].map(|compiler| with(compiler, dir.path()));
    let bed = start(dual_stack("fd00:51"));
    let all = addresses6(&bed.host);
    let given = firsts(&bed.host, dir.path(), &glibc, 9);
    assert_in_turn("glibc", &given, &all);
    assert_eq!(connections(&bed.host, &given), [3; 3]);
    let given = firsts(&bed.host, dir.path(), &musl, 9);
    println!("musl: {given:?}");
    assert!(given.iter().all(IpAddr::is_ipv4), "{given:?}");
}
