//! `cargo xtask xdp`: datagrams that come in as a network card hands them over, with no `struct sk_buff`, by the kernel's path, by
//! netfast in tc, and by netfast in XDP, in turn; and TCP that comes in beside it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{
    cmd,
    frames::{Injector, datagram, let_take_frames},
    netfast_proc::{NetfastProc, Options, ensure_bpffs},
    site::{HOST_IP, LAN_IP},
    topo::{self, Published, Topo},
};
use nix::net::if_::if_nametoindex;

use crate::{
    build, interrupt,
    measure::{sample::Spread, table::Table},
    setup::{self, Scope},
};

/// Options of `xdp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds, each with all of it.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Datagrams of each measurement.
    #[arg(long, default_value_t = 1_000_000)]
    datagrams: u32,
    /// Bytes in each datagram.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Seconds of each measurement of TCP.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// The published port, the container's, and the sender's.
const HOST_PORT: u16 = 7000;
const PORT: u16 = 7001;
const SENDER: u16 = 7010;
/// MAC addresses of the host's uplink and of who is outside.
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x64];
const TIMEOUT: Duration = Duration::from_secs(20);

/// How packets go.
const WAYS: [(&str, Option<&str>); 3] = [
    ("kernel", None),
    ("netfast, tc", Some("xdp = \"off\"\n")),
    ("netfast, XDP", Some("xdp = \"on\"\n")),
];

/// A host of its own for each way. In the order of dropping: netfast before its namespace.
struct Bed {
    netfast: Option<NetfastProc>,
    /// Whoever listens, so that datagrams have somewhere to go; they are not read.
    _sink: UdpSocket,
    topo: Topo,
    ifindex: u32,
    frame: Vec<u8>,
}

impl Bed {
    fn new(config: Option<&str>, payload: usize) -> Result<Self> {
        let topo = Topo::new(&topo::Options {
            published: vec![Published {
                host_port: HOST_PORT,
                container: (0, 0),
                port: PORT,
            }],
            ..topo::Options::default()
        })?;
        let container = &topo.container(0, 0);
        topo.host().sh(&format!("busybox ping -c1 -W5 {}", container.ip))?;
        topo.host().sh(&format!("busybox ping -c1 -W5 {LAN_IP}"))?;
        // A card takes frames whether or not there is a program on it; a veth needs NAPI for that.
        topo.host().run(|| let_take_frames("eth0"))??;
        let sink = container.ns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        let start = |config: &str| {
            let options = Options {
                config: Some(config.into()),
                ..Options::no_runtime()
            };
            NetfastProc::start(topo.host(), options)
        };
        let netfast = config.map(start).transpose()?;
        let ifindex = topo.lan().run(|| if_nametoindex("eth0"))??;
        let frame = datagram((HOST_MAC, LAN_MAC), (LAN_IP, SENDER), (HOST_IP, HOST_PORT), payload);
        Ok(Self {
            netfast,
            _sink: sink,
            topo,
            ifindex,
            frame,
        })
    }

    /// Datagrams that have reached UDP in the container, whether or not there was room for them.
    fn received(&self) -> Result<u64> {
        let text = self.topo.container(0, 0).ns.sh("cat /proc/thread-self/net/snmp")?;
        let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, numbers) = (
            rows.next().context("UDP's names")?,
            rows.next().context("UDP's numbers")?,
        );
        let of = |name: &str| -> Result<u64> {
            let place = names.split(' ').position(|known| known == name).context("a counter")?;
            Ok(numbers.split(' ').nth(place).context("a number")?.parse()?)
        };
        Ok(of("InDatagrams")? + of("RcvbufErrors")?)
    }

    fn send(&self, times: u32) -> Result<()> {
        let send = || Injector::new(&self.frame)?.send(self.ifindex, times);
        Ok(self.topo.lan().run(send)??)
    }

    /// Sends until netfast carries nearly all. A datagram that comes alone is learned from: those of a batch take each step through
    /// the stack together (`ip_list_rcv`), and are not told apart.
    fn warm(&self) -> Result<()> {
        let Some(netfast) = &self.netfast else {
            return self.send(1000);
        };
        cmd::poll("the fast path", TIMEOUT, || {
            for _ in 0..8 {
                self.send(1).ok()?;
                thread::sleep(Duration::from_millis(10));
            }
            let before = netfast.totals().ok()?;
            self.send(1000).ok()?;
            let now = netfast.totals().ok()?.since(before);
            (now.fast_packets >= 990).then_some(())
        })
    }

    /// Datagrams per second.
    fn datagrams(&self, times: u32) -> Result<f64> {
        self.warm()?;
        let (before, begin) = (self.received()?, Instant::now());
        self.send(times)?;
        let took = begin.elapsed();
        let got = self.received()? - before;
        ensure!(got > u64::from(times) / 2, "only {got} of {times} datagrams arrived");
        Ok(got as f64 / took.as_secs_f64())
    }

    /// Gb/s of one TCP stream from outside to the container.
    fn stream(&self, seconds: f64) -> Result<f64> {
        let listener = self
            .topo
            .container(0, 0)
            .ns
            .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        let mut to = self.topo.lan().run(|| TcpStream::connect((HOST_IP, HOST_PORT)))??;
        let (mut from, _) = listener.accept()?;
        let reader = thread::spawn(move || {
            let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
            while let Ok(length) = from.read(&mut buffer)
                && length > 0
            {
                total += length;
            }
            total
        });
        let (data, begin) = (vec![0x5a; 256 << 10], Instant::now());
        while begin.elapsed().as_secs_f64() < seconds {
            to.write_all(&data)?;
        }
        drop(to);
        let total = reader.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))?;
        Ok(total as f64 * 8.0 / 1e9 / begin.elapsed().as_secs_f64())
    }
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds 0: at least one round is needed");
    interrupt::handle()?;
    setup::ensure(Scope::All)?;
    build::build_for_laboratory(true)?;
    ensure_bpffs()?;
    let beds = WAYS.map(|(_, config)| Bed::new(config, args.payload));
    let beds = beds.into_iter().collect::<Result<Vec<Bed>>>()?;
    let mut figures = vec![[Vec::new(), Vec::new()]; WAYS.len()];
    for round in 0..args.rounds {
        eprintln!("xdp: round {} of {}", round + 1, args.rounds);
        for (bed, figures) in beds.iter().zip(&mut figures) {
            figures[0].push(bed.datagrams(args.datagrams)?);
            figures[1].push(bed.stream(args.seconds)?);
        }
    }
    for (what, figure, unit) in [("datagrams per second", 0, 1000.0), ("TCP, one stream, Gb/s", 1, 1.0)] {
        let mut table = Table::default();
        table.row([what, "median (smallest-largest)", "of the kernel's", "of tc's"]);
        for ((name, _), own) in WAYS.iter().zip(&figures) {
            let ratio = |other: usize| {
                let pairs = own[figure].iter().zip(&figures[other][figure]);
                text(pairs.map(|(own, other)| own / other).collect(), 1.0)
            };
            let unit_name = if unit > 1.0 { "k" } else { "" };
            let value = text(own[figure].clone(), unit) + unit_name;
            table.row([(*name).to_owned(), value, ratio(0), ratio(1)]);
        }
        println!("\n{}", table.render());
    }
    println!(
        "{} rounds in turn, {} datagrams of {} bytes each; ratios are medians of the rounds' ratios.",
        args.rounds, args.datagrams, args.payload
    );
    Ok(())
}

fn text(values: Vec<f64>, unit: f64) -> String {
    let spread = Spread::of(values.into_iter().map(|value| value / unit).collect());
    spread.map_or_else(String::new, |Spread { median, min, max }| {
        format!("{median:.2} ({min:.2}-{max:.2})")
    })
}
