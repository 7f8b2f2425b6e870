//! The rules of a scenario, loaded in one go, and taken and given one by one.

use std::fmt::Write as _;

use netfast_tests::seeds::{
    family::Family,
    keep::Part,
    rule::{Line, Rule},
};

use super::{arena::Arena, engine::engine};

/// Loads the engine's rules and those of the scenario in place of what was there, and empties conntrack.
pub fn load(arena: &mut Arena, part: &Part) -> Result<(), String> {
    let mut own = String::new();
    for (family, table) in arena.tables.drain(..) {
        // Made first, in case that it is not there any more.
        let _ = writeln!(own, "table {family} {table}; delete table {family} {table};");
    }
    for number in &part.rules {
        let rule = &part.scenario.rules[*number];
        let table = table_of(*number);
        if let (Some(text), Some(family)) = (rule.nft(&table), rule.table_family()) {
            let _ = writeln!(own, "{text}");
            arena.tables.push((family, table));
        }
    }
    // An empty script is an error to nft.
    let mut others = String::new();
    let mut has_legacy = false;
    if arena.has_legacy {
        for family in arena.shape.families() {
            let _ = writeln!(others, "{}-legacy -F FORWARD", family.iptables());
        }
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
    let mut restored = String::new();
    for family in arena.shape.families() {
        let lines = whole(&lines(part, *family), arena.shape.six);
        let _ = writeln!(restored, "{}-restore -w <<'END'\n{lines}END", family.iptables());
    }
    arena
        .sh(&format!("set -e\n{restored}{own}{others}conntrack -F 2>/dev/null"))
        .map(|()| arena.has_legacy = has_legacy)
}

/// The lines of a family: the engine's, and the scenario's.
fn lines(part: &Part, family: Family) -> Vec<(&'static str, String)> {
    let mut lines = engine(&part.scenario.shape, &part.scenario.base, family);
    let rules = part.rules.iter().map(|number| &part.scenario.rules[*number]);
    let own = rules.filter(|rule| rule.family() == family).flat_map(Rule::iptables);
    lines.extend(own.map(|(table, chain, text)| (table, format!("-A {chain} {text}"))));
    lines
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
    let legacy = rule
        .legacy()
        .map(|text| (format!("{}-legacy -w", rule.family().iptables()), text));
    let (program, text) = legacy.or_else(|| Some(("ebtables-nft".to_owned(), rule.ebtables()?)))?;
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
    if let (Some(text), Some(family)) = (rule.nft(&table), rule.table_family()) {
        arena.tables.push((family, table));
        return arena.sh(&format!("nft '{text}'"));
    }
    let lines: Vec<(&str, String)> = in_order(rule.iptables());
    arena.sh(&restore(rule, &lines))
}

/// A shell line that has these lines done.
fn restore(rule: &Rule, lines: &[(&str, String)]) -> String {
    let program = rule.family().iptables();
    format!("{program}-restore -w --noflush <<'END'\n{}END\n", some(lines))
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
    if let Some(family) = rule.table_family() {
        return arena.sh(&format!("nft delete table {family} {}", table_of(number)));
    }
    let lines: Vec<(&str, String)> = rule
        .iptables()
        .into_iter()
        .map(|(table, chain, text)| (table, format!("-D {chain} {text}")))
        .collect();
    arena.sh(&restore(rule, &lines))
}

/// Chains of engines since 28.
const NEW: [&str; 3] = ["DOCKER-FORWARD", "DOCKER-CT", "DOCKER-BRIDGE"];

const TABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];

/// All tables anew; those of a newer engine have a few more chains.
fn whole(lines: &[(&str, String)], is_new: bool) -> String {
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
                "DOCKER-FORWARD",
                "DOCKER-CT",
                "DOCKER-BRIDGE",
            ],
            _ => &[],
        };
        for chain in chains {
            if is_new || !NEW.contains(chain) {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
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
