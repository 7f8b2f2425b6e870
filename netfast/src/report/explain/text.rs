//! The answer as text.

use std::fmt::Write as _;

use super::{Explanation, Flows, Step, Verdict};
use crate::report::{
    Style,
    table::{Cell, Paint, Table, wrap},
    units::{bytes, count},
};

impl Verdict {
    const fn words(self, is_general: bool) -> &'static str {
        match self {
            Self::Fast if is_general => "accelerated: conversations that the kernel lets through go fast",
            Self::Fast => "fast, once both directions of a conversation were seen",
            Self::Direct => "fast from the first packet on, whatever protocol it is of",
            Self::Slow => "slow: every packet takes the kernel's path",
            Self::KernelDecides => {
                "the host's rules decide: permitted packets take the fast path, unless a line below says otherwise"
            }
            Self::Inside => "stays in the container",
            Self::Depends => "depends on where the packets go",
        }
    }

    const fn paint(self) -> Paint {
        match self {
            Self::Fast | Self::Direct | Self::Inside | Self::KernelDecides => Paint::Green,
            Self::Slow | Self::Depends => Paint::Yellow,
        }
    }
}

/// What is slow on every fast path.
const ALWAYS: &str = "Always on the kernel's path: the first packets of each conversation, TCP's SYN, FIN and RST, about \
                      one packet per second and direction (so every ping at its usual pace), and whatever is neither TCP, UDP nor \
                      ICMP echo.";

impl Explanation {
    /// The text.
    pub fn render(&self, style: Style) -> String {
        let to = self
            .destination
            .as_ref()
            .map_or_else(String::new, |to| format!(" to {to}"));
        let verdict = self
            .verdict
            .paint()
            .on(self.verdict.words(self.destination.is_none()), style);
        let mut text = format!("{}{to}: {verdict}\n", self.container);
        push_steps(&mut text, &self.host, style);
        for way in &self.ways {
            if self.ways.len() > 1 {
                let verdict = way
                    .verdict
                    .paint()
                    .on(way.verdict.words(self.destination.is_none()), style);
                let _ = writeln!(text, "\nby {}: {verdict}", way.network);
            }
            push_steps(&mut text, &way.steps, style);
            if !matches!(way.verdict, Verdict::Inside | Verdict::Direct) {
                let mut table = Table::bare(2).indent(2);
                table.row(["now".into(), way.flows.words().into()]);
                text.push_str(&table.render(style));
            }
        }
        if matches!(self.verdict, Verdict::Fast | Verdict::KernelDecides | Verdict::Depends) {
            text.push('\n');
            for line in style.width.map_or_else(|| vec![ALWAYS], |width| wrap(ALWAYS, width)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Flows {
    fn words(self) -> String {
        let Self {
            usable,
            stale,
            waiting,
            packets,
            bytes: octets,
            ..
        } = self;
        if usable + stale + waiting == 0 {
            return "no flows".into();
        }
        let mut text = format!("flows: {} on the fast path", count(usable));
        if usable > 0 {
            let _ = write!(text, " ({} packets, {})", count(packets), bytes(octets));
        }
        if stale > 0 {
            let _ = write!(text, ", {} that must ask the kernel first", count(stale));
        }
        if waiting > 0 {
            let _ = write!(text, ", {} waiting for the other direction", count(waiting));
        }
        text
    }
}

fn push_steps(text: &mut String, steps: &[Step], style: Style) {
    let mut table = Table::bare(2).indent(2);
    for step in steps {
        table.row([
            step.about.clone().into(),
            Cell::painted(step.text.clone(), step.path.paint()),
        ]);
        if let Some(remedy) = &step.remedy {
            table.row(["".into(), remedy.clone().into()]);
        }
    }
    text.push_str(&table.render(style));
}
