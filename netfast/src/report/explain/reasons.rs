//! `netfast explain --reason`: the reasons of the data path and the causes of the plan, in words.

use std::fmt::Write as _;

use netfast_common::reason::Reason;
use serde::Serialize;

use super::advice::{self, Kind};
use crate::{
    plan::report::{Path, Why},
    report::{Style, path::PathState, table::wrap},
};

/// Reasons in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reasons {
    /// Those that were asked for.
    pub reasons: Vec<Explained>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// Its name.
    pub name: String,
    /// Its number, if it is a reason of the data path: then packets are counted by it.
    pub number: Option<u32>,
    /// One line.
    pub text: &'static str,
    /// Whether there is something to do about it; `None` of a cause that netfast does not see in packets.
    pub kind: Option<Kind>,
    /// What it means, and what to do.
    pub advice: Option<&'static str>,
}

impl Reasons {
    /// All of them, those of the data path first.
    pub fn all() -> Self {
        let counted = Reason::ALL.iter().map(|reason| {
            let advice = advice::of_reason(*reason);
            Explained {
                name: reason.name().into(),
                number: Some(reason.number()),
                text: reason.text(),
                kind: Some(advice.kind),
                advice: Some(advice.text),
            }
        });
        let planned = Why::ALL.iter().map(|why| Explained {
            name: PathState::from(&Path::slow(*why)).why.unwrap_or_default(),
            number: None,
            text: why.text(),
            kind: None,
            advice: advice::of_why(*why),
        });
        Self {
            reasons: counted.chain(planned).collect(),
        }
    }

    /// One by its name; "all" for all.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::all();
        if name != "all" {
            all.reasons.retain(|reason| reason.name == name);
        }
        (!all.reasons.is_empty()).then_some(all)
    }

    /// The text.
    pub fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for reason in &self.reasons {
            if !text.is_empty() {
                text.push('\n');
            }
            let number = reason.number.map_or_else(String::new, |number| format!(" ({number})"));
            let _ = writeln!(text, "{}{number}", reason.name);
            let kind = reason.kind.map_or("", Kind::words);
            for paragraph in [reason.text, kind, reason.advice.unwrap_or_default()] {
                let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(2).max(20));
                for line in wrap(paragraph, room).into_iter().filter(|line| !line.is_empty()) {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        text
    }
}

impl Kind {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Expected => "Expected: part of how the fast path works.",
            Self::ByNature => "By nature: such packets are never accelerated.",
            Self::Changeable => "Changeable: something on the host or in the container.",
            Self::Suspicious => "Suspicious: it should not last.",
        }
    }
}
