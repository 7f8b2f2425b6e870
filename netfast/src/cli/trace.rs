//! `netfast trace`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use netfast_common::trace::{DEVICES, Traced};
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    apply::trace::{TraceError, Tracer},
    cli::{
        CliError, Exit, Fail as _, Global, TraceArgs,
        flows::interfaces_of,
        instance::{self, Instance},
        output,
    },
    report::{
        explain::{addresses, is_named},
        flows::DeviceName,
        pcapng::{self, Writer},
        trace::{
            self as report, PacketReport,
            filter::{Named, Selection},
        },
    },
};

/// How often the ring buffer is looked into: it has room for more than this at the highest rate that is allowed.
const LOOK: Duration = Duration::from_millis(10);
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_millis(500);

/// What a filter is made of.
const WORDS: &str = "Words are: tcp, udp, icmp, icmp6, fast, slow, reason NAME, and after src or dst or neither host ADDRESS|CONTAINER, \
                     net NETWORK, port NUMBER; joined by and, or, not and brackets.";

/// Shows packets until it is told to end.
pub fn run(args: &TraceArgs, global: &Global) -> Result<(), CliError> {
    let instance = Instance::open(&global.dirs)?;
    let mut names = instance.names();
    let selection = Selection::parse(&args.filter, |name| named(&instance, &names, name))
        .map_err(|error| CliError::new(Exit::Usage, error).remedy(WORDS))?;
    let mut kernel = selection.kernel;
    if let Some(container) = &args.container {
        let devices = interfaces_of(container, &names)?;
        if devices.len() > DEVICES {
            let message = format!(
                "{container} has {} interfaces, a trace can follow {DEVICES}",
                devices.len()
            );
            return Err(CliError::message(Exit::Failed, message).remedy("Use `host ADDRESS` instead of --container."));
        }
        if kernel.devices[0] != 0 {
            let message = "--container and a name without an address are one too many";
            return Err(CliError::message(Exit::Usage, message).remedy("Name it in one way only."));
        }
        for (place, device) in kernel.devices.iter_mut().zip(devices) {
            *place = device;
        }
    }
    kernel.sample = args.sample;
    kernel.limit = args.limit;
    if args.numeric {
        for name in names.values_mut() {
            name.container = None;
        }
    }
    let sink = Sink::open(args, global.json, names)?;
    let tracer = Tracer::start(&global.dirs.pin_dir, &global.dirs.run_dir, kernel).map_err(|error| {
        let remedy = matches!(error, TraceError::Busy).then_some("Stop that one first: there is one ring buffer.");
        let error = CliError::new(Exit::Failed, error);
        match remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    })?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(follow(args, tracer, &selection, sink))
}

/// What is known of a container: its addresses, and the interfaces that it is behind.
fn named(instance: &Instance, names: &BTreeMap<u32, DeviceName>, name: &str) -> Option<Named> {
    let networks = instance.state.iter().flat_map(|state| &state.networks);
    let endpoints = networks.flat_map(|network| &network.endpoints);
    let addresses = endpoints
        .filter(|endpoint| is_named(endpoint, name))
        .flat_map(addresses);
    let addresses: Vec<_> = addresses.collect();
    let devices = interfaces_of(name, names).unwrap_or_default();
    (!addresses.is_empty() || !devices.is_empty()).then_some(Named { addresses, devices })
}

async fn follow(args: &TraceArgs, mut tracer: Tracer, selection: &Selection, mut sink: Sink) -> Result<(), CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).or_exit(Exit::Failed)?;
    let mut terminate = signal(SignalKind::terminate()).or_exit(Exit::Failed)?;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (begin, mut renewed, mut shown) = (Instant::now(), Instant::now(), 0_u64);
    let limit = (args.count > 0).then_some(args.count);
    let mut ends = false;
    'follow: loop {
        tokio::select! {
            _ = interrupt.recv() => ends = true,
            _ = terminate.recv() => ends = true,
            _ = look.tick() => {}
        }
        ends |= args
            .seconds
            .is_some_and(|seconds| begin.elapsed().as_secs_f64() >= seconds);
        if ends {
            // What was shown until now is still to be read.
            tracer.end();
        }
        // Bounded, so that a flood cannot keep it from renewing the lease; at the end nothing comes any more.
        let most = if ends { usize::MAX } else { 10_000 };
        for _ in 0..most {
            let Some(packet) = tracer.take() else { break };
            if !selection.wants(&packet) {
                continue;
            }
            if !sink.put(&packet)? {
                break 'follow;
            }
            shown += 1;
            if Some(shown) == limit {
                break 'follow;
            }
        }
        if !sink.flush()? || ends {
            break;
        }
        if renewed.elapsed() >= RENEW {
            tracer.renew();
            renewed = Instant::now();
        }
    }
    sink.flush()?;
    let tally = tracer.tally().or_exit(Exit::Failed)?;
    drop(tracer);
    output::note(&report::summary(shown, &tally, args.sample));
    Ok(())
}

/// Where packets go.
struct Sink {
    names: BTreeMap<u32, DeviceName>,
    json: bool,
    pcap: Option<Writer<Box<dyn io::Write>>>,
    /// Whether packets go to the capture only.
    quiet: bool,
    /// When the programs' clock was zero, since 1970.
    epoch_ns: u64,
}

impl Sink {
    fn open(args: &TraceArgs, json: bool, names: BTreeMap<u32, DeviceName>) -> Result<Self, CliError> {
        let is_stdout = args.pcap.as_deref() == Some(Path::new("-"));
        if is_stdout && args.print {
            let message = "--print and --pcap - would both write to standard output";
            return Err(CliError::message(Exit::Usage, message));
        }
        let to: Option<Box<dyn io::Write>> = match &args.pcap {
            None => None,
            Some(_) if is_stdout => Some(Box::new(BufWriter::new(io::stdout()))),
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
                Some(Box::new(BufWriter::new(file)))
            }
        };
        Ok(Self {
            names,
            json,
            pcap: to.map(Writer::new).transpose().context("cannot write the capture")?,
            quiet: args.pcap.is_some() && !args.print,
            epoch_ns: epoch_ns(),
        })
    }

    /// Writes a packet; false if the reader is gone.
    fn put(&mut self, packet: &Traced) -> Result<bool, CliError> {
        let name = |ifindex: u32| {
            self.names
                .get(&ifindex)
                .cloned()
                .or_else(|| instance::stranger(ifindex))
        };
        let report = PacketReport::new(packet, self.epoch_ns, name);
        if let Some(pcap) = &mut self.pcap {
            let packet = pcapng::Packet {
                ifindex: packet.ifindex,
                time_ns: report.time_ns,
                length: packet.length,
                bytes: report::bytes(packet),
                comment: &report.verdict(),
            };
            if !goes_on(pcap.packet(&packet, || report.enters.device.clone()))? {
                return Ok(false);
            }
        }
        if self.quiet {
            return Ok(true);
        }
        let line = if self.json {
            serde_json::to_string(&report).context("cannot write the packet as JSON")?
        } else {
            report.to_string()
        };
        goes_on(writeln!(io::stdout(), "{line}"))
    }

    fn flush(&mut self) -> Result<bool, CliError> {
        let Some(pcap) = &mut self.pcap else { return Ok(true) };
        goes_on(pcap.flush())
    }
}

/// A reader that goes away early (`netfast trace | head`) ends it without an error.
fn goes_on(done: io::Result<()>) -> Result<bool, CliError> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write packets").into()),
    }
}

/// When the monotonic clock was zero, in nanoseconds since 1970.
fn epoch_ns() -> u64 {
    let read = |clock| {
        let time = clock_gettime(clock).map(Duration::from).unwrap_or_default();
        u64::try_from(time.as_nanos()).unwrap_or_default()
    };
    read(ClockId::CLOCK_REALTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}
