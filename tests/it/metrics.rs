//! `/metrics` and `/healthz` of a running daemon, asked as Prometheus asks.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use netfast::config::DEFAULT_METRICS;
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::NsHandle,
    require::{Need, needs},
    topo::{self, Topo},
};
use nix::sys::signal::{Signal, kill};
use prometheus_parse::{Scrape, Value};

/// How long the daemon may take to do what it was told.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer: its status code, its head, its body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Asks for a page in a network namespace; an error says that nobody listens.
pub fn get(ns: &NsHandle, address: SocketAddr, path: &str, headers: &str) -> std::io::Result<Answer> {
    ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Ok(Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    })
    .expect("inside the namespace")
}

/// The samples of a scrape, by name and sorted labels.
pub fn samples(body: &str) -> BTreeMap<String, f64> {
    let scrape = Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).expect("it parses");
    assert!(!scrape.samples.is_empty(), "nothing in {body:?}");
    let mut samples = BTreeMap::new();
    for sample in scrape.samples {
        let (Value::Counter(value) | Value::Gauge(value)) = sample.value else {
            panic!("{} has no type", sample.metric)
        };
        assert!(
            scrape.docs.contains_key(&sample.metric),
            "{} has no help",
            sample.metric
        );
        let labels: BTreeMap<_, _> = sample.labels.iter().collect();
        let name = format!("{}{labels:?}", sample.metric);
        assert_eq!(samples.insert(name.clone(), value), None, "{name} is there twice");
    }
    samples
}

fn scrape(ns: &NsHandle) -> BTreeMap<String, f64> {
    let answer = get(ns, DEFAULT_METRICS, "/metrics", "").expect("it is served");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    samples(&answer.body)
}

#[test]
fn a_scrape_has_what_status_has() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = Topo::new(&topo::Options::default()).expect("a topology");
    let netfast = NetfastProc::start(topo.host(), Options::no_runtime()).expect("netfast");
    let host = topo.host().handle();
    let (a, b) = (&topo.bridges[0].containers[0], &topo.bridges[0].containers[1]);
    let ping = format!("busybox ping -c3 -W5 {}", b.ip);

    // The daemon finds an endpoint's address when it first speaks.
    a.ns.sh(&ping).expect("they reach each other");
    cmd::poll("both endpoints are on the fast path", TIMEOUT, || {
        let fast = "netfast_endpoints{\"network\": \"br-0\", \"path\": \"fast\"}";
        (scrape(&host).get(fast) == Some(&2.0)).then_some(())
    })
    .expect("they get there");
    let before = scrape(&host);
    a.ns.sh(&ping).expect("they reach each other");
    let after = scrape(&host);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());

    // At least the three requests and the three replies, by either path: ping asks so seldom that each may ask the kernel.
    let both = |samples: &BTreeMap<String, f64>, name: &dyn Fn(&str) -> String| {
        ["fast", "slow"].map(|path| samples[&name(path)]).iter().sum::<f64>()
    };
    let all = |path: &str| format!("netfast_packets_total{{\"path\": {path:?}}}");
    assert!(
        both(&after, &all) >= both(&before, &all) + 6.0,
        "{before:#?} {after:#?}"
    );
    let sent = |path: &str| {
        format!(
            "netfast_endpoint_packets_total{{\"container\": {:?}, \"direction\": \"sent\", \"network\": \"br-0\", \"path\": \
             {path:?}}}",
            a.veth
        )
    };
    assert!(both(&after, &sent) >= both(&before, &sent) + 3.0, "{after:#?}");
    let totals = netfast.totals().expect("totals");
    let slow = "netfast_packets_total{\"path\": \"slow\"}";
    assert!(
        after[slow] > 0.0 && totals.slow_packets as f64 >= after[slow],
        "{totals:?}"
    );

    let healthy = get(&host, DEFAULT_METRICS, "/healthz", "").expect("it is served");
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "in sync\n"));
    let open = get(
        &host,
        DEFAULT_METRICS,
        "/metrics",
        "Accept: application/openmetrics-text; version=1.0.0\r\n",
    )
    .expect("it is served");
    assert!(
        open.head.contains("application/openmetrics-text; version=1.0.0"),
        "{}",
        open.head
    );
    assert!(open.body.ends_with("\n# EOF\n"), "{}", open.body);
    // Loopback is not the other containers'.
    let gateway = SocketAddr::from((topo.bridges[0].gateway, DEFAULT_METRICS.port()));
    assert!(get(&a.ns.handle(), gateway, "/metrics", "").is_err());
}

#[test]
fn metrics_follow_the_configuration() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = Topo::new(&topo::Options::default()).expect("a topology");
    let host = topo.host().handle();
    // Somebody else's port: the daemon goes on without.
    let taken = host
        .run(|| std::net::TcpListener::bind("127.0.0.1:9000"))
        .expect("inside")
        .expect("a free port");
    let config = |address: &str| format!("metrics = \"{address}\"\n");
    let options = Options {
        config: Some(config("127.0.0.1:9000")),
        ..Options::no_runtime()
    };
    let netfast = NetfastProc::start(topo.host(), options).expect("netfast starts without its metrics");
    cmd::poll("it says so", TIMEOUT, || {
        let log = netfast.log();
        (log.contains("cannot serve metrics on 127.0.0.1:9000") && log.contains("in use")).then_some(())
    })
    .expect("in the log");
    drop(taken);

    let reload = |text: String| {
        std::fs::write(netfast.run_dir().join("netfast.toml"), text).expect("the configuration");
        let pid = i32::try_from(netfast.pid().expect("it runs")).expect("a pid");
        kill(nix::unistd::Pid::from_raw(pid), Signal::SIGHUP).expect("it is there");
    };
    let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let is_served = |at: &str, wanted: bool| {
        cmd::poll(&format!("{at} is served: {wanted}"), TIMEOUT, || {
            (get(&host, address(at), "/healthz", "").is_ok() == wanted).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", netfast.log()));
    };
    reload(config("[::1]:9001"));
    is_served("[::1]:9001", true);
    reload(config("127.0.0.1:9002"));
    is_served("127.0.0.1:9002", true);
    is_served("[::1]:9001", false);
    reload(config(""));
    is_served("127.0.0.1:9002", false);
}
