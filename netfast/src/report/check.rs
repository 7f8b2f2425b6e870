//! `netfast check`: what was looked at, how it is, what to do about it.

use serde::{Serialize, ser::SerializeStruct as _};

use crate::{
    exit::Exit,
    probe::Tried,
    report::{
        Style, Table,
        table::{Cell, Paint},
    },
};

mod host;
mod interfaces;
mod networks;
mod programs;
mod rules;

pub use host::{host, no_runtime, runtime};
pub use interfaces::{interfaces, uplinks};
pub use networks::{networks, published, resolvers};
pub use programs::{fail as fail_programs, programs};
pub use rules::rules;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but something stays on the slow path.
    Slow,
    /// netfast would not start.
    Fail,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Kernel features, privileges and directories.
    Kernel,
    /// The host's switches.
    Host,
    /// The container runtime.
    Runtime,
    /// Networks and their endpoints.
    Networks,
    /// What is attached to interfaces.
    Interfaces,
    /// The packet filter.
    Rules,
}

impl Area {
    const ALL: [Self; 6] = [
        Self::Kernel,
        Self::Host,
        Self::Runtime,
        Self::Networks,
        Self::Interfaces,
        Self::Rules,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Kernel => "KERNEL AND PRIVILEGES",
            Self::Host => "HOST",
            Self::Runtime => "CONTAINER RUNTIME",
            Self::Networks => "NETWORKS",
            Self::Interfaces => "INTERFACES",
            Self::Rules => "PACKET FILTER",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is about.
    pub area: Area,
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub detail: String,
    /// What to do about it, if there is anything to do.
    pub remedy: Option<String>,
}

impl Line {
    /// A line without a remedy.
    pub fn new(area: Area, level: Level, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            area,
            level,
            subject: subject.into(),
            detail: detail.into(),
            remedy: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Everything that was looked at.
    pub lines: Vec<Line>,
    /// What `netfast run` would exit with, if it would not start.
    pub fails_with: Option<Exit>,
}

impl Check {
    /// Adds what was tried of the kernel.
    pub fn add_tried(&mut self, tried: &Tried) {
        let line = match (&tried.outcome, tried.without) {
            (Ok(found), _) => Line::new(Area::Kernel, Level::Ok, tried.what, found.clone()),
            (Err(lack), Some(without)) => Line::new(
                Area::Kernel,
                Level::Note,
                tried.what,
                format!("{lack}; without it, {without}"),
            )
            .remedy(lack.remedy()),
            (Err(lack), None) => {
                self.fail(if lack.is_about_privileges() {
                    Exit::Privileges
                } else {
                    Exit::Unsupported
                });
                Line::new(Area::Kernel, Level::Fail, tried.what, lack.to_string()).remedy(lack.remedy())
            }
        };
        self.lines.push(line);
    }

    /// Notes what `netfast run` would exit with; the first thing that fails decides, as it does there.
    pub fn fail(&mut self, exit: Exit) {
        self.fails_with.get_or_insert(exit);
    }

    /// Whether a line of this subject is of this level.
    pub fn has(&self, level: Level, subject: &str) -> bool {
        self.lines
            .iter()
            .any(|line| line.level == level && line.subject == subject)
    }

    /// How many lines are of a level.
    fn count(&self, level: Level) -> usize {
        self.lines.iter().filter(|line| line.level == level).count()
    }

    /// The text.
    pub fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for area in Area::ALL {
            let mut table = Table::bare(3).indent(2);
            for line in self.lines.iter().filter(|line| line.area == area) {
                let mut found = line.detail.clone();
                if let Some(remedy) = &line.remedy {
                    found.push_str("\n→ ");
                    found.push_str(remedy);
                }
                table.row([level_cell(line.level), line.subject.clone().into(), found.into()]);
            }
            if !table.is_empty() {
                text.push_str(area.title());
                text.push('\n');
                text.push_str(&table.render(style));
                text.push('\n');
            }
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    fn summary(&self) -> String {
        let mut parts = Vec::new();
        for (level, one, many) in [
            (Level::Slow, "on the slow path", "on the slow path"),
            (Level::Note, "note", "notes"),
        ] {
            match self.count(level) {
                0 => {}
                1 => parts.push(format!("1 {one}")),
                number => parts.push(format!("{number} {many}")),
            }
        }
        let rest = if parts.is_empty() {
            String::new()
        } else {
            format!(" ({})", parts.join(", "))
        };
        match self.fails_with {
            None => format!("netfast can run here{rest}."),
            Some(exit) => format!(
                "netfast cannot run here: `netfast run` would exit with {}{rest}.",
                exit.code()
            ),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Check", 3)?;
        report.serialize_field("can_run", &self.fails_with.is_none())?;
        report.serialize_field("exit_code", &self.fails_with.map_or(0, Exit::code))?;
        report.serialize_field("lines", &self.lines)?;
        report.end()
    }
}

fn level_cell(level: Level) -> Cell {
    match level {
        Level::Ok => Cell::painted("ok", Paint::Green),
        Level::Note => Cell::painted("note", Paint::Dim),
        Level::Slow => Cell::painted("slow", Paint::Yellow),
        Level::Fail => Cell::painted("fail", Paint::Red),
    }
}

#[cfg(test)]
mod tests;
