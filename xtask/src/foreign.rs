//! `cargo xtask foreign`: tests that others wrote (the kernel's own, from Debian's package of its sources), each plain and with
//! a netfast attached in every network namespace that it makes, and a table of what they say.
//!
//! They run in a root of Debian's with the tools that they call, in namespaces of their own. What this kernel cannot do, the
//! plain run tells.

mod emulated;
mod outcome;
mod play;
mod sockperf;
mod sources;

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::leftovers;

use self::{outcome::Outcome, play::Bench};
use crate::{
    build, interrupt, roots,
    setup::{self, Scope},
    vm,
    workspace::root,
};

/// The release whose kernel's tests and tools are taken: its sources are not newer than the kernels of the other tests.
const SUITE: &str = "trixie";
/// What the tests are built with, and what they call.
const PACKAGES: &str = "bridge-utils,conntrack,ebtables,ethtool,gcc,gcc-bpf,iperf3,iproute2,iptables,iputils-arping,\
iputils-ping,iputils-tracepath,jq,kmod,libbpf-dev,libc6-dev,libmnl-dev,libnetfilter-queue-dev,linux-source,lksctp-tools,mtools,\
ndisc6,netcat-openbsd,netsniff-ng,nftables,procps,psmisc,python3,smcroute,socat,sockperf,tcpdump,traceroute,xz-utils";
/// Where the tables are kept, between lines with their names.
const DOCUMENT: &str = "docs/foreign.md";

/// A test below tools/testing/selftests of the kernel's sources.
struct Test {
    /// Its directory.
    dir: &'static str,
    /// Its program.
    name: &'static str,
    arguments: &'static [&'static str],
    /// It sends single echoes and does not count them: it gets a `ping` that sends thirty in the place of one.
    pings: bool,
}

/// A test without arguments.
const fn test(dir: &'static str, name: &'static str) -> Test {
    Test {
        dir,
        name,
        arguments: &[],
        pings: false,
    }
}

impl Test {
    const fn with(mut self, arguments: &'static [&'static str]) -> Self {
        self.arguments = arguments;
        self
    }

    const fn pinging(mut self) -> Self {
        self.pings = true;
        self
    }
}

/// What is run on this machine's kernel: what bridges, routes, translates or follows connections. Not `nft_flowtable`: another fast path.
const TESTS: [Test; 24] = [
    test("net/mptcp", "mptcp_connect.sh").with(&["-d", "0", "-l", "0", "-r", "0"]),
    test("net", "pmtu.sh").with(&[
        "pmtu_ipv4_exception",
        "pmtu_ipv4_dscp_icmp_exception",
        "pmtu_ipv4_br_vxlan4_exception",
    ]),
    test("net/netfilter", "br_netfilter.sh"),
    test("net/netfilter", "br_netfilter_queue.sh"),
    test("net/netfilter", "bridge_brouter.sh").pinging(),
    test("net/netfilter", "conntrack_icmp_related.sh"),
    test("net/netfilter", "conntrack_reverse_clash.sh"),
    test("net/netfilter", "conntrack_sctp_collision.sh"),
    test("net/netfilter", "conntrack_tcp_unreplied.sh"),
    test("net/netfilter", "nf_nat_edemux.sh"),
    test("net/netfilter", "nft_conntrack_helper.sh"),
    test("net/netfilter", "nft_fib.sh"),
    test("net/netfilter", "nft_meta.sh"),
    test("net/netfilter", "nft_nat.sh"),
    test("net/netfilter", "nft_synproxy.sh"),
    test("net/netfilter", "nft_tproxy_tcp.sh"),
    test("net/netfilter", "nft_tproxy_udp.sh"),
    test("net/netfilter", "rpath.sh"),
    test("net/netfilter", "xt_string.sh"),
    test("net", "fib_nexthop_multiprefix.sh"),
    test("net", "icmp_redirect.sh"),
    test("net", "route_localnet.sh"),
    test("net", "udpgro.sh"),
    test("net", "udpgro_fwd.sh"),
];

/// What is run under another kernel: bridges' tests, whose hosts are VRFs. Few: emulated, each takes minutes.
const EMULATED: [Test; 3] = [
    test("net/forwarding", "bridge_vlan_unaware.sh"),
    test("net/forwarding", "bridge_port_isolation.sh"),
    test("net/forwarding", "router_bridge.sh"),
];

/// Options of `foreign`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only tests whose name contains one of these.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds that one run of one test may take.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Under the newest kernel of this series, in an emulated machine (slowly): tests of what this machine's kernel may not have.
    #[arg(long, value_name = "SERIES", value_parser = vm::kernels::parse)]
    kernel: Option<String>,
    /// Write the tables into docs/foreign.md.
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

/// One test, both ways.
struct Row {
    name: String,
    plain: Outcome,
    with: Outcome,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    interrupt::handle()?;
    leftovers::sweep_dead();
    setup::ensure(Scope::All)?;
    // The programs that packets meet are optimised in every build.
    let built = build::build(false)?;
    let root = roots::debian(SUITE, PACKAGES)?;
    let bench = Bench {
        tests: sources::built(&root)?,
        root,
        program: built.netfast,
        seconds: args.seconds,
    };
    let is_wanted =
        |test: &&Test| args.only.is_empty() || args.only.iter().any(|only| test.name.contains(only.as_str()));
    let (mark, rows, more) = if let Some(series) = &args.kernel {
        let tests: Vec<&Test> = EMULATED.iter().filter(is_wanted).collect();
        ("emulated", emulated::rows(&bench, series, &tests)?, String::new())
    } else {
        let mut rows = Vec::new();
        for test in TESTS.iter().filter(is_wanted) {
            let row = both(&bench, test)?;
            println!("{}", line(&row));
            rows.push(row);
        }
        let is_wanted = args.only.is_empty() || args.only.iter().any(|only| "sockperf".contains(only.as_str()));
        let more = if is_wanted {
            sockperf::table(&bench)?
        } else {
            String::new()
        };
        ("tests", rows, more)
    };
    let tables = table(&rows) + &more;
    ensure!(!tables.is_empty(), "no test is named like that");
    println!("\n{tables}");
    if args.write {
        write(mark, &tables)?;
    }
    let differing: Vec<&str> = rows
        .iter()
        .filter(|row| row.differs())
        .map(|row| row.name.as_str())
        .collect();
    ensure!(
        differing.is_empty(),
        "with netfast these end otherwise than without: {}; their output is in {}",
        differing.join(", "),
        play::seen()?.display()
    );
    Ok(())
}

/// Runs a test both ways; again, up to twice, where they differ: some depend on time.
fn both(bench: &Bench, test: &Test) -> Result<Row> {
    let name = format!("{}/{}", test.dir, test.name);
    let mut row = None;
    for _ in 0..3 {
        let found = Row {
            name: name.clone(),
            plain: bench.play(test, false)?,
            with: bench.play(test, true)?,
        };
        let is_done = !found.differs();
        row = Some(found);
        if is_done {
            break;
        }
    }
    row.context("it was run")
}

impl Row {
    /// Whether netfast made a difference that is one for the worse.
    fn differs(&self) -> bool {
        self.with.is_worse_than(&self.plain)
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "| test | plain | with netfast | attached in | packets on the fast path | on the kernel's |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(row));
    }
    text
}

fn line(row: &Row) -> String {
    let counted = &row.with.counted;
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        row.name,
        row.plain.words(),
        row.with.words(),
        counted.namespaces,
        counted.fast,
        counted.slow
    )
}

/// Puts the tables between the marks of that name in the document.
fn write(mark: &str, tables: &str) -> Result<()> {
    let path = root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let text = with_tables(&text, mark, tables).with_context(|| format!("{DOCUMENT} has no place for {mark}"))?;
    fs::write(&path, text).with_context(|| format!("cannot write {DOCUMENT}"))
}

/// The document with these tables in the place of those between the marks of that name; `None` if it has none.
fn with_tables(text: &str, mark: &str, tables: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {mark}: begin -->\n"), format!("<!-- {mark}: end -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{tables}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_between_their_marks() {
        let text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\n<!-- y: begin -->\nkept\n<!-- y: end -->\n";
        let new = with_tables(text, "x", "| new |\n").expect("a place");
        assert_eq!(new, text.replace("old\n", "\n| new |\n\n"));
        assert_eq!(with_tables(&new, "x", "| new |\n").as_deref(), Some(new.as_str()));
        assert_eq!(with_tables(text, "z", ""), None);
        let document = fs::read_to_string(root().join(DOCUMENT)).expect("the document");
        for mark in ["tests", "emulated"] {
            with_tables(&document, mark, "").expect(mark);
        }
    }

    #[test]
    fn a_row_tells_both_ends_and_what_was_carried() {
        let of = |output, counted| Outcome::new(Some(0), output, counted);
        let row = Row {
            name: "net/x.sh".to_owned(),
            plain: of("PASS: a", ""),
            with: of("", "n1\tattached\t5\t6\n"),
        };
        assert!(row.differs());
        assert_eq!(line(&row), "| net/x.sh | passes, 1 ok | passes | 1 | 5 | 6 |");
    }
}
