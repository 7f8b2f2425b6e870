//! What a run has hit: kinds of rules, kinds of events and packets, and netfast's reasons.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{keep::Part, rule::Rule, step::Step};

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// The table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    /// Seeds.
    pub seeds: u64,
    /// Kinds of rules, by scenarios that have one.
    pub rules: Counts,
    /// Kinds of steps, each time that one was played.
    pub steps: Counts,
    /// Packets by reason, with netfast on.
    pub reasons: Counts,
    /// Packets that took the fast path, with netfast on.
    pub fast_packets: u64,
    /// Conversations that were opened, and those that did not get through.
    pub opened: u64,
    /// See [`opened`](Self::opened).
    pub refused: u64,
}

impl Coverage {
    /// Counts what is played of a scenario.
    pub fn note(&mut self, part: &Part) {
        self.seeds += 1;
        let mut kinds: Vec<&str> = part
            .rules
            .iter()
            .map(|number| part.scenario.rules[*number].kind())
            .collect();
        for number in &part.steps {
            let step = &part.scenario.steps[*number];
            *self.steps.entry(step.kind().to_owned()).or_default() += 1;
            if let Step::AddRule(rule) = step {
                kinds.push(Rule::kind(rule));
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            *self.rules.entry(kind.to_owned()).or_default() += 1;
        }
    }

    /// Adds another table.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        for (mine, others) in [
            (&mut self.rules, &other.rules),
            (&mut self.steps, &other.steps),
            (&mut self.reasons, &other.reasons),
        ] {
            for (name, count) in others {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
        self.fast_packets += other.fast_packets;
        self.opened += other.opened;
        self.refused += other.refused;
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds; {} conversations opened, {} refused; {} packets on the fast path",
            self.seeds, self.opened, self.refused, self.fast_packets
        )?;
        for (title, counts) in [
            ("rules (scenarios)", &self.rules),
            ("steps (times)", &self.steps),
            ("reasons (packets)", &self.reasons),
        ] {
            writeln!(f, "\n{title}")?;
            for (name, count) in counts {
                writeln!(f, "  {name:<40} {count:>8}")?;
            }
        }
        Ok(())
    }
}
