//! Packet-filter rules that must see every packet.

use super::{Area, Level, Line};
use crate::host::{RuleFinding, Ruleset, Severity};

/// Judges the rules.
pub fn rules(ruleset: &Ruleset) -> Vec<Line> {
    let mut lines = vec![summary(ruleset)];
    if let Some(why) = &ruleset.unreadable {
        lines.push(Line::new(
            Area::Rules,
            Level::Note,
            "unread rules",
            format!("{why}: rules that must see every packet may have been overlooked"),
        ));
    }
    for queue in &ruleset.nfqueue_bound {
        lines.push(Line::new(
            Area::Rules,
            Level::Note,
            format!("NFQUEUE {queue}"),
            "a program listens on it; flows that go through it stay with the kernel",
        ));
    }
    lines.extend(ruleset.findings.iter().map(finding));
    lines
}

fn summary(ruleset: &Ruleset) -> Line {
    let chains = match ruleset.nft_chains.len() {
        0 => "no nftables chains".into(),
        1 => "1 nftables base chain".into(),
        number => format!("{number} nftables base chains"),
    };
    let legacy = match ruleset.legacy.len() {
        0 => String::new(),
        1 => ", 1 iptables-legacy table".into(),
        number => format!(", {number} iptables-legacy tables"),
    };
    let slow = ruleset
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::SlowPath);
    let verdict = if slow { "" } else { "; no rule must see every packet" };
    Line::new(Area::Rules, Level::Ok, "rules", format!("{chains}{legacy}{verdict}"))
}

fn finding(finding: &RuleFinding) -> Line {
    let level = match finding.severity {
        Severity::SlowPath => Level::Slow,
        Severity::Note | Severity::SelfExcluding | Severity::SlowUnreplied | Severity::SlowEcho => Level::Note,
    };
    let interfaces = match (&finding.iif, &finding.oif) {
        (None, None) => String::new(),
        (Some(iif), None) => format!(", from {iif}"),
        (None, Some(oif)) => format!(", to {oif}"),
        (Some(iif), Some(oif)) => format!(", from {iif} to {oif}"),
    };
    let place = finding.place();
    let few = match finding.severity {
        Severity::SlowUnreplied => "; it sees only what was not answered yet, so UDP that is never answered stays slow",
        Severity::SlowEcho if finding.ways.iter().any(|way| way.unreplied) => {
            "; it sees only ICMP and what was not answered yet, so ping and UDP that is never answered stay slow"
        }
        Severity::SlowEcho => "; it sees only ICMP, so ping stays slow",
        Severity::Note | Severity::SlowPath | Severity::SelfExcluding => "",
    };
    Line::new(
        Area::Rules,
        level,
        finding.what,
        format!("{place} ({}){interfaces}: {}{few}", finding.text, finding.reason),
    )
}
