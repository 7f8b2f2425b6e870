//! `netfast aliases`: names that several containers of a network share, and who was given to clients.

use std::net::IpAddr;

use netfast_common::alias::{MemberKey, Verdict};
use serde::Serialize;

use crate::{
    apply::aliases::Answers,
    config::AliasMode,
    plan::{AliasReport, MemberReport},
    report::{
        Style, Table,
        table::{Cell, Paint},
        units,
    },
};

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Aliases {
    /// The aliases, by network and name.
    pub aliases: Vec<Alias>,
    /// What became of resolvers' answers, those that occurred.
    pub answers: Vec<AnswerCount>,
}

/// An alias.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Alias {
    /// The name, in lower case.
    pub alias: String,
    /// The network's name.
    pub network: String,
    /// `rr` or `off`.
    pub mode: AliasMode,
    /// Why nothing is done.
    pub reason: Option<String>,
    /// Answers that were put in order.
    pub answers: u64,
    /// Answers of the member that was first least often, divided by those of the one that was most often; of members
    /// that clients are given. 1 is even.
    pub evenness: Option<f64>,
    /// Its members, by the container's name.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Member {
    /// The container's identifier.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
    /// `running` or `paused`.
    pub state: String,
    /// `none` (no health check), `starting`, `healthy` or `unhealthy`.
    pub health: String,
    /// Whether clients are given it.
    pub eligible: bool,
    /// Answers that named it first.
    pub first: u64,
}

/// How many answers had this verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswerCount {
    /// The verdict.
    pub verdict: String,
    /// What it means.
    pub text: String,
    /// Answers.
    pub answers: u64,
}

impl Aliases {
    /// Puts together what the daemon said and what the program has counted.
    pub fn gather(reports: &[AliasReport], counted: &Answers) -> Self {
        let said = Verdict::ALL.iter().filter_map(|verdict| {
            let answers = counted.verdicts.get(verdict).copied().filter(|count| *count != 0)?;
            Some(AnswerCount {
                verdict: verdict.name().into(),
                text: verdict.text().into(),
                answers,
            })
        });
        Self {
            aliases: reports.iter().map(|report| Alias::gather(report, counted)).collect(),
            answers: said.collect(),
        }
    }

    /// Only aliases of this name.
    #[must_use]
    pub fn select(mut self, name: &str) -> Self {
        self.aliases.retain(|alias| alias.alias.eq_ignore_ascii_case(name));
        self
    }

    /// One line each.
    pub fn render_list(&self, style: Style) -> String {
        if self.aliases.is_empty() {
            return "no name is shared by several containers of a network\n".into();
        }
        let mut table = Table::new(&["NETWORK", "ALIAS", "MODE", "MEMBERS", ">ANSWERS", ">EVENNESS", "REASON"]);
        for alias in &self.aliases {
            let well = alias.members.iter().filter(|member| member.eligible).count();
            table.row([
                alias.network.clone().into(),
                alias.alias.clone().into(),
                alias.mode_cell(),
                format!("{well}/{}", alias.members.len()).into(),
                units::count(alias.answers).into(),
                alias.evenness_text().into(),
                alias.reason.clone().unwrap_or_default().into(),
            ]);
        }
        table.render(style)
    }

    /// Everything that is known of each.
    pub fn render_details(&self, style: Style) -> String {
        let texts: Vec<_> = self.aliases.iter().map(|alias| alias.render(style)).collect();
        texts.join("\n")
    }
}

impl Alias {
    fn gather(report: &AliasReport, counted: &Answers) -> Self {
        let members: Vec<Member> = report
            .members
            .iter()
            .map(|member| Member::gather(member, counted))
            .collect();
        let first = || {
            members
                .iter()
                .filter(|member| member.eligible)
                .map(|member| member.first)
        };
        let evenness = first().min().zip(first().max().filter(|most| *most != 0));
        Self {
            alias: report.alias.clone(),
            network: report.network.clone(),
            mode: report.mode,
            reason: report.why.clone(),
            answers: members.iter().map(|member| member.first).sum(),
            evenness: evenness.map(|(least, most)| least as f64 / most as f64),
            members,
        }
    }

    fn mode_cell(&self) -> Cell {
        let paint = match self.mode {
            AliasMode::Rr => Paint::Green,
            AliasMode::Off => Paint::Yellow,
        };
        Cell::painted(self.mode.name(), paint)
    }

    fn evenness_text(&self) -> String {
        self.evenness
            .map_or_else(|| "-".into(), |evenness| format!("{evenness:.3}"))
    }

    fn render(&self, style: Style) -> String {
        let mut text = format!("{} on {}\n", self.alias, self.network);
        let mut facts = Table::bare(2).indent(2);
        facts.row(["mode".into(), self.mode_cell()]);
        if let Some(reason) = &self.reason {
            facts.row(["reason".into(), reason.clone().into()]);
        }
        facts.row(["answers".into(), units::count(self.answers).into()]);
        facts.row(["evenness".into(), self.evenness_text().into()]);
        text.push_str(&facts.render(style));
        text.push('\n');
        let headings = ["CONTAINER", "ADDRESSES", "STATE", "HEALTH", "GIVEN", ">FIRST"];
        let mut table = Table::new(&headings).indent(2);
        for member in &self.members {
            let addresses: Vec<_> = member.addresses.iter().map(ToString::to_string).collect();
            let given = if member.eligible {
                Cell::painted("yes", Paint::Green)
            } else {
                Cell::painted("no", Paint::Yellow)
            };
            table.row([
                member.container.clone().into(),
                addresses.join(" ").into(),
                member.state.clone().into(),
                member.health.clone().into(),
                given,
                units::count(member.first).into(),
            ]);
        }
        text.push_str(&table.render(style));
        text
    }
}

impl Member {
    fn gather(report: &MemberReport, counted: &Answers) -> Self {
        let count = |&(alias, address): &(u64, [u64; 2])| counted.given.get(&MemberKey { alias, address });
        let MemberReport {
            container_id,
            container,
            addresses,
            state,
            health,
            eligible,
            counted_by,
        } = report.clone();
        Self {
            container_id,
            container,
            addresses,
            state,
            health,
            eligible,
            first: counted_by.iter().filter_map(count).sum(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::golden::{assert_golden, assert_golden_json};

    /// Two aliases, one of which is off.
    pub(crate) fn example() -> Aliases {
        let member = |number: u8, health: &str| MemberReport {
            container_id: "c0ffee".repeat(10),
            container: format!("web-{number}"),
            addresses: vec![[172, 18, 0, number].into()],
            state: "running".into(),
            health: health.into(),
            eligible: health != "unhealthy",
            counted_by: vec![(7, [number.into(), 0])],
        };
        let reports = [
            AliasReport {
                alias: "web".into(),
                network: "shop".into(),
                mode: AliasMode::Rr,
                why: None,
                members: vec![member(2, "healthy"), member(3, "none"), member(4, "unhealthy")],
            },
            AliasReport {
                alias: "db".into(),
                network: "shop-backend".into(),
                mode: AliasMode::Off,
                why: Some("switched off by the label netfast.alias of the network".into()),
                members: vec![MemberReport {
                    counted_by: Vec::new(),
                    ..member(5, "none")
                }],
            },
        ];
        let given = [(2, 1234), (3, 1233), (4, 10)].map(|(number, count)| {
            let address = [number, 0];
            (MemberKey { alias: 7, address }, count)
        });
        let counted = Answers {
            given: given.into(),
            verdicts: BTreeMap::from([(Verdict::Rotated, 2477), (Verdict::NotAlias, 0), (Verdict::Few, 12)]),
        };
        Aliases::gather(&reports, &counted)
    }

    #[test]
    fn text_and_json_are_as_recorded() {
        let aliases = example();
        assert_golden("aliases.txt", &aliases.render_list(Style::default()));
        assert_golden(
            "aliases-details.txt",
            &aliases.clone().select("WEB").render_details(Style::default()),
        );
        assert_golden_json("aliases.json", &aliases);
    }

    #[test]
    fn evenness_is_of_those_that_are_given() {
        let aliases = example();
        let evenness = aliases.aliases[0].evenness.expect("answers");
        assert!((evenness - 1233.0 / 1234.0).abs() < 1e-9);
        assert_eq!((aliases.aliases[0].answers, aliases.aliases[1].evenness), (2477, None));
        assert_eq!(aliases.answers.len(), 2, "what never occurred is left out");
    }
}
