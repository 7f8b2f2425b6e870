//! The rules of a scenario, loaded in one go, and taken and given one by one.

use std::fmt::Write as _;

use netfast_tests::seeds::{
    keep::Part,
    names,
    rule::{Line, Rule},
    scenario::{Base, CONTAINER_PORT, PUBLISHED_PORT, Published, REAL_PORTS, Shape},
};

use super::arena::Arena;

/// Loads the engine's rules and those of the scenario in place of what was there, and empties conntrack.
pub fn load(arena: &mut Arena, part: &Part) -> Result<(), String> {
    let mut lines = engine(&part.scenario.shape, &part.scenario.base);
    let mut own = String::new();
    for (family, table) in arena.tables.drain(..) {
        // Made first, in case that it is not there any more.
        let _ = writeln!(own, "table {family} {table}; delete table {family} {table};");
    }
    for number in &part.rules {
        let rule = &part.scenario.rules[*number];
        lines.extend(
            rule.iptables()
                .into_iter()
                .map(|(table, chain, text)| (table, format!("-A {chain} {text}"))),
        );
        let table = table_of(*number);
        if let (Some(text), Some(family)) = (rule.nft(&table), rule.family()) {
            let _ = writeln!(own, "{text}");
            arena.tables.push((family, table));
        }
    }
    // An empty script is an error to nft.
    let mut others = String::new();
    let mut has_legacy = false;
    if arena.has_legacy {
        others.push_str("iptables-legacy -F FORWARD\n");
    }
    for rule in part.rules.iter().map(|number| &part.scenario.rules[*number]) {
        if let Some(line) = other(rule, Verb::Append) {
            others.push_str(&line);
            others.push('\n');
        }
        has_legacy |= rule.legacy().is_some();
        if rule.ebtables().is_some() {
            arena.tables.push((EBTABLES.0, EBTABLES.1.to_owned()));
        }
    }
    let own = if own.is_empty() {
        String::new()
    } else {
        format!("nft -f - <<'END'\n{own}END\n")
    };
    arena
        .sh(&format!(
            "set -e\niptables-restore -w <<'END'\n{}END\n{own}{others}conntrack -F 2>/dev/null",
            whole(&lines)
        ))
        .map(|()| arena.has_legacy = has_legacy)
}

/// The table that ebtables makes.
const EBTABLES: (&str, &str) = ("bridge", "filter");

/// What to do with a rule.
#[derive(Clone, Copy)]
enum Verb {
    Append,
    Insert,
    Delete,
}

/// A rule of iptables-legacy or ebtables as a shell line.
fn other(rule: &Rule, verb: Verb) -> Option<String> {
    let verb = match verb {
        Verb::Append => "-A",
        Verb::Insert => "-I",
        Verb::Delete => "-D",
    };
    let legacy = rule.legacy().map(|text| ("iptables-legacy -w", text));
    let (program, text) = legacy.or_else(|| Some(("ebtables-nft", rule.ebtables()?)))?;
    Some(format!("{program} {verb} FORWARD {text}"))
}

/// The name of the table of a rule of a user's own.
fn table_of(number: usize) -> String {
    format!("own{number}")
}

/// Adds a rule before all others; `number` names its table, if it has one of its own.
pub fn add(arena: &mut Arena, rule: &Rule, number: usize) -> Result<(), String> {
    if let Some(line) = other(rule, Verb::Insert) {
        if rule.ebtables().is_some() {
            arena.tables.push((EBTABLES.0, EBTABLES.1.to_owned()));
        } else {
            arena.has_legacy = true;
        }
        return arena.sh(&line);
    }
    let table = table_of(number);
    if let (Some(text), Some(family)) = (rule.nft(&table), rule.family()) {
        arena.tables.push((family, table));
        return arena.sh(&format!("nft '{text}'"));
    }
    let lines: Vec<(&str, String)> = in_order(rule.iptables());
    arena.sh(&format!("iptables-restore -w --noflush <<'END'\n{}END\n", some(&lines)))
}

/// Lines to insert, each after the one before it in the same chain.
fn in_order(lines: Vec<Line>) -> Vec<(&'static str, String)> {
    let mut at = std::collections::BTreeMap::new();
    let mut inserted = Vec::new();
    for (table, chain, text) in lines {
        let place = at.entry((table, chain)).or_insert(0);
        *place += 1;
        inserted.push((table, format!("-I {chain} {place} {text}")));
    }
    inserted
}

/// Removes a rule of the scenario.
pub fn remove(arena: &mut Arena, rule: &Rule, number: usize) -> Result<(), String> {
    if let Some(line) = other(rule, Verb::Delete) {
        return arena.sh(&line);
    }
    if let Some(family) = rule.family() {
        return arena.sh(&format!("nft delete table {family} {}", table_of(number)));
    }
    let lines: Vec<(&str, String)> = rule
        .iptables()
        .into_iter()
        .map(|(table, chain, text)| (table, format!("-D {chain} {text}")))
        .collect();
    arena.sh(&format!("iptables-restore -w --noflush <<'END'\n{}END\n", some(&lines)))
}

const TABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];

/// All tables anew.
fn whole(lines: &[(&str, String)]) -> String {
    let mut text = String::new();
    for table in TABLES {
        let _ = writeln!(text, "*{table}");
        let chains: &[&str] = match table {
            "nat" => &["DOCKER"],
            "filter" => &[
                "DOCKER",
                "DOCKER-USER",
                "DOCKER-ISOLATION-STAGE-1",
                "DOCKER-ISOLATION-STAGE-2",
            ],
            _ => &[],
        };
        for chain in chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        if table == "filter" {
            text.push_str(":FORWARD DROP [0:0]\n");
        }
        for (_, line) in lines.iter().filter(|(of, _)| *of == table) {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Those tables that have lines.
fn some(lines: &[(&str, String)]) -> String {
    let mut text = String::new();
    for table in TABLES {
        let of: Vec<_> = lines.iter().filter(|(of, _)| *of == table).collect();
        if of.is_empty() {
            continue;
        }
        let _ = writeln!(text, "*{table}");
        for (_, line) in of {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// What an engine with default options writes, options of the scenario included.
fn engine(shape: &Shape, base: &Base) -> Vec<(&'static str, String)> {
    let mut filter = vec![
        "-A FORWARD -j DOCKER-USER".to_owned(),
        "-A FORWARD -j DOCKER-ISOLATION-STAGE-1".to_owned(),
    ];
    let mut nat = vec![
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        format!(
            "-A OUTPUT {}-m addrtype --dst-type LOCAL -j DOCKER",
            if base.hairpin { "" } else { "! -d 127.0.0.0/8 " }
        ),
    ];
    for bridge in &base.internal {
        let (name, net) = (names::bridge(*bridge), names::network(*bridge));
        filter.push(format!("-A DOCKER-ISOLATION-STAGE-1 ! -s {net} -o {name} -j DROP"));
        filter.push(format!("-A DOCKER-ISOLATION-STAGE-1 ! -d {net} -i {name} -j DROP"));
    }
    for bridge in 0..shape.bridges.len() {
        let (name, net) = (names::bridge(bridge), names::network(bridge));
        let icc = if base.no_icc.contains(&bridge) {
            "DROP"
        } else {
            "ACCEPT"
        };
        filter.extend([
            format!("-A FORWARD -o {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            format!("-A FORWARD -o {name} -j DOCKER"),
            format!("-A FORWARD -i {name} ! -o {name} -j ACCEPT"),
            format!("-A FORWARD -i {name} -o {name} -j {icc}"),
            format!("-A DOCKER-ISOLATION-STAGE-1 -i {name} ! -o {name} -j DOCKER-ISOLATION-STAGE-2"),
            format!("-A DOCKER-ISOLATION-STAGE-2 -o {name} -j DROP"),
        ]);
        if !base.internal.contains(&bridge) {
            nat.push(format!("-A POSTROUTING -s {net} ! -o {name} -j MASQUERADE"));
        }
        if base.hairpin {
            nat.push(format!(
                "-A POSTROUTING -m addrtype --src-type LOCAL -o {name} -j MASQUERADE"
            ));
        }
    }
    for (number, port) in base.published.iter().enumerate() {
        publish(base, *port, u16::try_from(number).expect("few"), &mut filter, &mut nat);
    }
    if base.routes_between_uplinks {
        filter.push("-A FORWARD -i eth0 -o eth1 -j ACCEPT".to_owned());
        filter.push("-A FORWARD -i eth1 -o eth0 -j ACCEPT".to_owned());
    }
    let filter = filter.into_iter().map(|line| ("filter", line));
    filter.chain(nat.into_iter().map(|line| ("nat", line))).collect()
}

fn publish(base: &Base, published: Published, number: u16, filter: &mut Vec<String>, nat: &mut Vec<String>) {
    let Published {
        container: (bridge, index),
        address,
    } = published;
    let name = names::bridge(bridge);
    let ip = names::ip(netfast_tests::seeds::scenario::Place::Container(bridge, index));
    let address = address.map_or_else(String::new, |uplink| format!("-d {} ", names::uplink_ip(uplink)));
    let not_from = if base.hairpin {
        String::new()
    } else {
        format!("! -i {name} ")
    };
    for (protocol, more) in [("tcp", 0), ("udp", 0), ("tcp", REAL_PORTS), ("udp", REAL_PORTS)] {
        let (host, inside) = (PUBLISHED_PORT + number + more, CONTAINER_PORT + number + more);
        nat.push(format!(
            "-A DOCKER {address}{not_from}-p {protocol} --dport {host} -j DNAT --to {ip}:{inside}"
        ));
        filter.push(format!(
            "-A DOCKER -d {ip} {not_from}-o {name} -p {protocol} --dport {inside} -j ACCEPT"
        ));
        if base.hairpin {
            nat.push(format!(
                "-A POSTROUTING -s {ip} -d {ip} -p {protocol} --dport {inside} -j MASQUERADE"
            ));
        }
    }
}
