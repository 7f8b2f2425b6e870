//! Networks and containers of a real Docker engine.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use netfast::{
    host::{Container, ContainerState, Host, NetworkMode, Protocol, RuntimeState},
    observe::{Change, DockerError, ObserveError, Observer, ObserverConfig},
};
use netfast_tests::{
    docker_host::{DockerHost, Options},
    require::{Need, needs},
};
use nix::sys::signal::Signal;
use tokio::runtime::Builder;

use super::{Watch, watch};

fn named<'a>(host: &'a Host, name: &str) -> &'a Container {
    host.containers
        .values()
        .find(|container| container.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Waits for the hint and for the host to be as `wanted`.
async fn until(watch: &mut Watch, what: &str, wanted: impl Fn(&Host) -> bool) -> Host {
    for _ in 0..20 {
        let host = watch.snapshot().await;
        if wanted(&host) {
            return host;
        }
        watch.hints(None).await;
    }
    panic!("{what}: not within the time: {:?}", watch.snapshot().await.containers);
}

/// The link of the host at the other end of a container's interface on a network is on that network's bridge.
fn check_attachment(host: &Host, container: &str, network: &str) {
    let container = named(host, container);
    let attachment = container
        .attachments
        .iter()
        .find(|a| a.network_name == network)
        .unwrap_or_else(|| panic!("not on {network}"));
    let inside = container
        .interfaces
        .iter()
        .find(|i| i.mac == attachment.mac)
        .expect("its interface");
    assert_eq!(inside.addresses.first().copied(), attachment.ipv4);
    let veth = &host.served().links[&inside.host_ifindex.expect("the index of the host's end")];
    assert!(veth.peer_in_other_netns(), "{veth:?}");
    let bridge = &host.served().links[&veth.master.expect("a bridge")];
    assert_eq!(
        host.networks[&attachment.network].bridge_name.as_deref(),
        Some(bridge.name.as_str())
    );
}

/// Does something to the Docker host.
type Docker<'a> = &'a dyn Fn(&dyn Fn(&mut DockerHost) -> anyhow::Result<()>);

/// What was there before the observer.
fn check_listing(host: &Host) {
    assert!(
        matches!(host.runtime, RuntimeState::Connected { .. }),
        "{:?}",
        host.runtime
    );
    let shop = host
        .networks
        .values()
        .find(|network| network.name == "shop")
        .expect("shop");
    assert_eq!((shop.driver.as_str(), shop.internal), ("bridge", false));
    assert_eq!(shop.labels["netfast.x"], "1");
    assert_eq!(
        shop.ipam[0].ip_range.map(|range| range.to_string()).as_deref(),
        Some("10.77.5.0/24")
    );
    check_attachment(host, "web", "shop");
    check_attachment(host, "plain", "bridge");
    let web = named(host, "web");
    assert_eq!(web.network_mode, NetworkMode::Network("shop".into()));
    assert!(web.attachments[0].aliases.contains(&"front".into()));
    assert_eq!(web.labels["a"], "b");
    assert!(
        web.ports
            .iter()
            .any(|p| p.protocol == Protocol::Udp && p.host_port == 5353 && p.container_port == 53)
    );
    assert_eq!(named(host, "side").network_mode, NetworkMode::Container(web.id.clone()));
    assert_eq!(named(host, "side").netns, web.netns);
    assert_eq!(named(host, "hosted").network_mode, NetworkMode::Host);
    assert!(named(host, "hosted").interfaces.is_empty());
    assert!(named(host, "hosted").netns.is_some());
}

/// A container and a network come, change and go.
async fn follow_a_life(watch: &mut Watch, docker: Docker<'_>) {
    docker(&|host| host.run_container("late", "shop", &[], &[]));
    let host = until(watch, "a new container", |host| host.containers.len() == 5).await;
    check_attachment(&host, "late", "shop");
    let index = |host: &Host| {
        named(host, "late")
            .interfaces
            .first()
            .and_then(|inside| inside.host_ifindex)
    };
    let before = index(&host);
    docker(&|host| host.docker(&["restart", "-t", "0", "late"]).map(drop));
    let restarted = |host: &Host| host.containers.len() == 5 && index(host).is_some_and(|i| Some(i) != before);
    let host = until(watch, "a restarted container", restarted).await;
    check_attachment(&host, "late", "shop");
    docker(&|host| host.docker(&["network", "connect", "bridge", "late"]).map(drop));
    // What the kernel tells and what the engine tells come apart by some milliseconds.
    let connected =
        |host: &Host| named(host, "late").interfaces.len() == 2 && named(host, "late").attachments.len() == 2;
    let host = until(watch, "a second network", connected).await;
    check_attachment(&host, "late", "bridge");
    docker(&|host| host.docker(&["network", "disconnect", "shop", "late"]).map(drop));
    let moved = |host: &Host| named(host, "late").interfaces.len() == 1 && named(host, "late").attachments.len() == 1;
    until(watch, "one network less", moved).await;
    docker(&|host| host.docker(&["pause", "late"]).map(drop));
    until(watch, "a pause", |host| {
        named(host, "late").state == ContainerState::Paused
    })
    .await;
    docker(&|host| host.docker(&["unpause", "late"]).map(drop));
    docker(&|host| host.remove_container("late"));
    until(watch, "a removed container", |host| host.containers.len() == 4).await;
    docker(&|host| host.create_network("more", &[]));
    until(watch, "a new network", |host| {
        host.networks.values().any(|n| n.name == "more")
    })
    .await;
}

/// The engine dies and comes again; its containers live on, or not.
async fn outlive_the_engine(watch: &mut Watch, docker: Docker<'_>) {
    docker(&|host| host.stop_dockerd(Signal::SIGKILL));
    assert!(watch.hints(Some(Change::Runtime)).await.contains(&Change::Runtime));
    let host = watch.snapshot().await;
    assert!(
        matches!(host.runtime, RuntimeState::Disconnected { .. }),
        "{:?}",
        host.runtime
    );
    assert_eq!(host.containers.len(), 4, "the last state is kept");
    check_attachment(&host, "web", "shop");
    docker(&DockerHost::start_dockerd);
    let back = |host: &Host| matches!(host.runtime, RuntimeState::Connected { .. });
    until(watch, "the engine again", back).await;
    docker(&|host| host.run_container("again", "bridge", &[], &[]));
    let there = |host: &Host| {
        host.containers
            .values()
            .any(|c| c.name == "again" && !c.interfaces.is_empty())
    };
    let host = until(watch, "events again", there).await;
    check_attachment(&host, "again", "bridge");
}

#[test]
fn containers_are_followed_through_their_lives_and_dockerds() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = DockerHost::start(Options::default()).expect("a Docker host");
    host.create_network(
        "shop",
        &[
            "--subnet",
            "10.77.0.0/16",
            "--ip-range",
            "10.77.5.0/24",
            "--label",
            "netfast.x=1",
        ],
    )
    .expect("a network");
    let publish = [
        "-p",
        "8080:80",
        "-p",
        "5353:53/udp",
        "--network-alias",
        "front",
        "--label",
        "a=b",
    ];
    host.run_container("web", "shop", &publish, &[]).expect("web");
    host.run_container("plain", "bridge", &[], &[]).expect("plain");
    host.run_container("hosted", "host", &[], &[]).expect("hosted");
    host.run_container("side", "container:web", &[], &[]).expect("side");
    let ns = host.host().handle();
    let socket = host.docker_host();
    // The steps need the host mutably while the watch is in its own thread.
    let host = Arc::new(Mutex::new(host));
    let docker = Arc::clone(&host);
    watch(&ns, Some(socket), |mut watch| async move {
        let docker = |f: &dyn Fn(&mut DockerHost) -> anyhow::Result<()>| {
            f(&mut docker.lock().expect("no panic before")).unwrap_or_else(|error| panic!("{error:#}"));
        };
        check_listing(&watch.snapshot().await);
        follow_a_life(&mut watch, &docker).await;
        outlive_the_engine(&mut watch, &docker).await;
    });
}

#[test]
fn a_missing_engine_is_told_as_such() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime");
    let start = |host: &str| {
        let docker_host = Some(host.to_owned());
        match runtime.block_on(Observer::start(ObserverConfig {
            docker_host,
            ..ObserverConfig::default()
        })) {
            Err(ObserveError::Docker(error)) => error,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{host} answers"),
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("docker.sock");
    let url = |path: &Path| format!("unix://{}", path.display());
    for prepare in [false, true] {
        // No socket, and one that nobody listens on.
        if prepare {
            drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        }
        let error = start(&url(&socket));
        assert!(matches!(error, DockerError::DockerUnavailable { .. }), "{error}");
        assert!(error.to_string().contains(&url(&socket)), "{error}");
    }
    for bad in ["", "docker.sock", "unix://", "ssh://host", "tcp://"] {
        let error = start(bad);
        assert!(matches!(error, DockerError::BadHost { .. }), "{bad}: {error}");
    }
    // Something that is no engine.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        std::thread::sleep(Duration::from_millis(50));
        let _ = std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n");
    });
    let error = start(&format!("tcp://{address}"));
    assert!(matches!(error, DockerError::DockerUnavailable { .. }), "{error}");
    server.join().expect("the server");
}
