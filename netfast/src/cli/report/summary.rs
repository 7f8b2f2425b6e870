//! The packet filter in numbers, with the rules that judge packets one by one by their kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    host::Ruleset,
    observe::rules::Counts,
    report::{Style, Table},
};

/// The text.
pub(super) fn of(counts: &Counts, ruleset: &Ruleset) -> String {
    let mut text = "RULES BY CHAIN\n".to_owned();
    let mut table = Table::new(&["FAMILY", "TABLE", "CHAIN", ">RULES", "HOOK", ">PRIORITY", "POLICY"]);
    let mut chains: BTreeMap<_, (usize, String, String, &str)> = BTreeMap::new();
    for (chain, number) in &counts.nft {
        chains.entry(chain.clone()).or_default().0 = *number;
    }
    for chain in &ruleset.nft_chains {
        let key = (chain.family.clone(), chain.table.clone(), chain.name.clone());
        let found = chains.entry(key).or_default();
        found.1 = format!("{} {}", chain.kind, chain.hook);
        found.2 = chain.priority.to_string();
        found.3 = if chain.policy_drop { "drop" } else { "accept" };
    }
    for ((family, name, chain), (number, hook, priority, policy)) in chains {
        table.row([
            family.into(),
            name.into(),
            chain.into(),
            number.to_string().into(),
            hook.into(),
            priority.into(),
            policy.into(),
        ]);
    }
    for (name, number) in &counts.legacy {
        table.row([
            "legacy".into(),
            name.clone().into(),
            "".into(),
            number.to_string().into(),
        ]);
    }
    for (name, bytes) in &counts.ebtables {
        let size = format!("{bytes} bytes");
        table.row(["legacy".into(), name.clone().into(), "".into(), size.into()]);
    }
    if table.is_empty() {
        text.push_str("  none\n");
    } else {
        text.push_str(&table.indent(2).render(Style::default()));
    }
    text.push_str("\nRULES THAT JUDGE BY THE PACKET, BY KIND\n");
    let mut kinds: BTreeMap<_, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for finding in &ruleset.findings {
        let kind = kinds.entry((finding.severity, finding.what)).or_default();
        kind.0 += 1;
        kind.1.insert(finding.reason);
    }
    if kinds.is_empty() {
        text.push_str("  none\n");
    }
    for ((severity, what), (number, reasons)) in kinds {
        let severity = format!("{severity:?}").to_lowercase();
        let reasons: Vec<_> = reasons.into_iter().collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {number} x {what} ({severity}): {}", reasons.join("; "));
    }
    let queues = ruleset.nfqueue_bound.len();
    let _ = writeln!(text, "\nprograms listen on queues of NFQUEUE: {queues}");
    if let Some(why) = &ruleset.unreadable {
        let _ = writeln!(text, "not read whole: {why}");
    }
    text
}
