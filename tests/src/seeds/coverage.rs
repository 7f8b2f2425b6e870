//! What a run has hit: kinds of rules, kinds of events and packets, and netfast's reasons.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    family::Family,
    judge,
    keep::Part,
    rule::{
        Rule,
        sieve::{Form, Sieve},
        steady::Steady,
    },
    scenario::Scenario,
    step::Step,
};

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
    /// Kinds of steps that the kernel refused, each time; they are counted as played, too.
    pub in_vain: Counts,
    /// Packets by reason, with netfast on.
    pub reasons: Counts,
    /// Reasons that no traffic can cause: why, and where they are tested instead.
    pub beyond: BTreeMap<String, String>,
    /// Packets that took the fast path, with netfast on.
    pub fast_packets: u64,
    /// Datagrams of these that XDP has sent to containers.
    pub xdp_packets: u64,
    /// Conversations that were opened, and those that did not get through.
    pub opened: u64,
    /// See [`opened`](Self::opened).
    pub refused: u64,
}

impl Coverage {
    /// Counts what is played of a scenario.
    pub fn note(&mut self, part: &Part) {
        self.seeds += 1;
        let mut rules: Vec<&Rule> = part.rules.iter().map(|number| &part.scenario.rules[*number]).collect();
        for number in &part.steps {
            let step = &part.scenario.steps[*number];
            *self.steps.entry(step.kind().to_owned()).or_default() += 1;
            if let Some(kind) = six(&part.scenario, step) {
                *self.steps.entry(kind.to_owned()).or_default() += 1;
            }
            if let Step::AddRule(rule) = step {
                rules.push(rule);
            }
            if let Step::Attach(foreign) = step {
                *self.steps.entry(foreign.place().to_owned()).or_default() += 1;
            }
        }
        let kinds = rules.iter().map(|rule| rule.kind());
        let mut kinds: Vec<&str> = kinds.chain(rules.iter().filter_map(|rule| rule.place())).collect();
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
            (&mut self.in_vain, &other.in_vain),
            (&mut self.reasons, &other.reasons),
        ] {
            for (name, count) in others {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
        self.beyond
            .extend(other.beyond.iter().map(|(name, why)| (name.clone(), why.clone())));
        self.fast_packets += other.fast_packets;
        self.xdp_packets += other.xdp_packets;
        self.opened += other.opened;
        self.refused += other.refused;
    }

    /// Reasons that were hit fewer times than this, though traffic can cause them.
    pub fn rare(&self, least: u64) -> Vec<&str> {
        let reasons = self.reasons.iter();
        reasons
            .filter(|(name, count)| **count < least && !self.beyond.contains_key(*name))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Kinds of judges that occurred fewer times than this: rules that some packets of a flow are caught by, rules that
    /// nothing has to be slow for, and what is attached or switched. What the kernel refused did not occur.
    pub fn seldom(&self, least: u64) -> Vec<&'static str> {
        let rules = Sieve::ALL.map(Sieve::kind).into_iter();
        let rules = rules.chain(Form::KINDS).chain(Steady::KINDS);
        let rules = rules.map(|kind| (kind, self.rules.get(kind).copied().unwrap_or_default()));
        let steps = judge::KINDS.into_iter().map(|kind| {
            let played = self.steps.get(kind).copied().unwrap_or_default();
            (kind, played - self.in_vain.get(kind).copied().unwrap_or_default())
        });
        let all = rules.chain(steps);
        all.filter(|(_, count)| *count < least).map(|(kind, _)| kind).collect()
    }
}

/// What a step is counted as besides where it is about IPv6.
fn six(scenario: &Scenario, step: &Step) -> Option<&'static str> {
    let is_six = |family| family == Family::V6;
    if let Step::AddRule(rule) = step {
        return is_six(rule.family()).then_some("rule added, IPv6");
    }
    let talk = step.talk().map(|talk| scenario.talks[talk])?;
    let kind = if matches!(step, Step::Open(_)) {
        "open, IPv6"
    } else if matches!(step, Step::Transfer(..)) {
        "transfer, IPv6"
    } else if matches!(step, Step::Datagrams(..)) {
        "datagrams, IPv6"
    } else {
        return None;
    };
    is_six(talk.family).then_some(kind)
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds; {} conversations opened, {} refused; {} packets on the fast path, {} of them by XDP",
            self.seeds, self.opened, self.refused, self.fast_packets, self.xdp_packets
        )?;
        for (title, counts) in [
            ("rules (scenarios)", &self.rules),
            ("steps (times)", &self.steps),
            ("refused by the kernel (times)", &self.in_vain),
            ("reasons (packets)", &self.reasons),
        ] {
            writeln!(f, "\n{title}")?;
            for (name, count) in counts {
                writeln!(f, "  {name:<40} {count:>8}")?;
            }
        }
        for (name, why) in &self.beyond {
            writeln!(f, "\nno traffic causes {name}: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_is_told_unless_no_traffic_causes_it() {
        let mut table = Coverage::default();
        for (name, count) in [("seldom", 19), ("often", 20), ("never", 0)] {
            table.reasons.insert(name.to_owned(), count);
        }
        table.beyond.insert("never".to_owned(), "no memory".to_owned());
        let mut sum = Coverage::default();
        sum.add(&table);
        assert_eq!(sum.rare(20), ["seldom"]);
        assert!(sum.to_string().contains("no traffic causes never: no memory"));
        sum.add(&table);
        assert!(sum.rare(20).is_empty());
    }
}
