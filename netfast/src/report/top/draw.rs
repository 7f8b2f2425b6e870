//! How `netfast top` looks: a pure function from rates to a screen. Made for 80 columns and 24 lines; more of both
//! shows more.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::Top;
use crate::report::units::{count, duration, share};

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// A bit of everything.
    #[default]
    Overview,
    /// Endpoints only.
    Endpoints,
    /// Flows only.
    Flows,
    /// Reasons only.
    Reasons,
}

/// The state of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// What is shown.
    pub page: Page,
    /// Rows that were scrolled away; of a page with one list.
    pub offset: usize,
    /// Nothing is read at the moment.
    pub paused: bool,
    /// Whether colours may be used.
    pub color: bool,
}

impl Page {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Overview => Self::Endpoints,
            Self::Endpoints => Self::Flows,
            Self::Flows => Self::Reasons,
            Self::Reasons => Self::Overview,
        }
    }

    /// How many rows there are to scroll through.
    pub fn rows(self, top: &Top) -> usize {
        match self {
            Self::Overview => 0,
            Self::Endpoints => top.endpoints.len(),
            Self::Flows => top.flows.len(),
            Self::Reasons => top.reasons.len(),
        }
    }
}

impl Screen {
    /// Draws everything.
    pub fn draw(&self, frame: &mut Frame<'_>, top: &Top) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(3), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(top)), head);
        match self.page {
            Page::Overview => {
                let [endpoints, flows, reasons] =
                    Layout::vertical([Constraint::Fill(4), Constraint::Fill(3), Constraint::Fill(3)])
                        .spacing(1)
                        .areas(body);
                self.endpoints(frame, endpoints, top, 0);
                Self::flows(frame, flows, top, 0);
                Self::reasons(frame, reasons, top, 0);
            }
            Page::Endpoints => self.endpoints(frame, body, top, self.offset),
            Page::Flows => Self::flows(frame, body, top, self.offset),
            Page::Reasons => Self::reasons(frame, body, top, self.offset),
        }
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn head(&self, top: &Top) -> Text<'static> {
        let daemon = &top.daemon;
        let state = match (daemon.running, daemon.in_sync, daemon.using) {
            (false, ..) => (
                "the daemon does not run; its fast path works on".to_owned(),
                Color::Yellow,
            ),
            (true, _, false) => ("no flow is used: everything is slow".to_owned(), Color::Red),
            (true, false, true) => ("catching up".to_owned(), Color::Yellow),
            (true, true, true) => ("in sync".to_owned(), Color::Green),
        };
        let state = match (&top.problem, &daemon.learning_off) {
            (Some(problem), _) => (problem.clone(), Color::Red),
            (None, Some(why)) => (format!("learns nothing: {why}"), Color::Yellow),
            (None, None) => state,
        };
        let uptime = daemon
            .uptime_ms
            .map_or_else(String::new, |ms| format!(" up {}", duration(Duration::from_millis(ms))));
        let flows = format!(
            "{} of {} flows",
            count(top.totals.flows),
            count(top.totals.flow_capacity)
        );
        let first = Line::from(vec![
            Span::styled(format!("netfast {}", daemon.version), Modifier::BOLD),
            Span::raw(format!("{uptime}  ")),
            self.paint(state.0, state.1),
            Span::raw(format!("  {flows}")),
        ]);
        let all = top.fast.packets + top.slow.packets;
        let fast = share_of(top.fast.packets, all);
        let second = Line::from(vec![
            Span::raw("fast "),
            self.paint(format!("{fast:>8}"), Color::Green),
            Span::raw(format!(
                "  {:>9} pkt/s  {:>9}/s   slow  {:>9} pkt/s  {:>9}/s",
                number(top.fast.packets),
                bits(top.fast.bits),
                number(top.slow.packets),
                bits(top.slow.bits)
            )),
        ]);
        Text::from(vec![first, second, Line::default()])
    }

    fn endpoints(&self, frame: &mut Frame<'_>, area: Rect, top: &Top, offset: usize) {
        let rows = top.endpoints.iter().skip(offset).map(|endpoint| {
            let sent = endpoint.sent_fast.packets + endpoint.sent_slow.packets;
            let path = if endpoint.path.is_fast() {
                Color::Green
            } else {
                Color::Yellow
            };
            let mut cells = vec![
                Cell::from(endpoint.name.clone()),
                Cell::from(endpoint.network.clone()),
                Cell::from(self.paint(endpoint.path.path.to_owned(), path)),
            ];
            if endpoint.path.is_fast() {
                cells.extend([
                    right(number(endpoint.sent_fast.packets)),
                    right(number(endpoint.sent_slow.packets)),
                    right(share_of(endpoint.sent_fast.packets, sent)),
                    right(number(endpoint.received_fast.packets)),
                    right(bits(
                        endpoint.sent_fast.bits + endpoint.sent_slow.bits + endpoint.received_fast.bits,
                    )),
                ]);
            } else {
                cells.extend([(); 5].map(|()| right("-".into())));
            }
            cells
        });
        let columns = [
            Column::new("CONTAINER", Constraint::Fill(3), 12, 0),
            Column::new("NETWORK", Constraint::Fill(2), 8, 5),
            Column::new("PATH", Constraint::Length(4), 4, 3),
            Column::number("SENT FAST", 9, 4),
            Column::number("SENT SLOW", 9, 6),
            Column::number("SHARE", 7, 1),
            Column::number("RECV FAST", 9, 7),
            Column::number("BITS/S", 9, 2),
        ];
        Self::table(frame, area, &columns, rows.collect(), "no endpoints");
    }

    fn flows(frame: &mut Frame<'_>, area: Rect, top: &Top, offset: usize) {
        let rows = top.flows.iter().skip(offset).map(|(flow, rate)| {
            let who = |side: &crate::report::flows::Side| match (&side.container, side.host) {
                (Some(container), _) => container.clone(),
                (None, true) => "host".into(),
                (None, false) => side.device.clone(),
            };
            vec![
                // The addresses tell the family of ICMP.
                Cell::from(flow.protocol.clone()),
                Cell::from(flow.ends(&flow.enters)),
                Cell::from(format!("{} > {}", who(&flow.enters), who(&flow.leaves))),
                right(number(rate.packets)),
                right(bits(rate.bits)),
            ]
        });
        let columns = [
            Column::new("FLOW", Constraint::Length(4), 4, 2),
            Column::new("FROM > TO, AS IT ENTERS", Constraint::Length(37), 37, 4),
            Column::new("ENTERS > LEAVES", Constraint::Fill(1), 12, 0),
            Column::number("PACKETS/S", 9, 3),
            Column::number("BITS/S", 9, 1),
        ];
        Self::table(frame, area, &columns, rows.collect(), "no flow was used");
    }

    fn reasons(frame: &mut Frame<'_>, area: Rect, top: &Top, offset: usize) {
        let rows = top.reasons.iter().skip(offset).map(|(reason, rate)| {
            vec![
                right(number(rate.packets)),
                Cell::from(reason.name),
                Cell::from(reason.text),
            ]
        });
        let columns = [
            Column::number("PACKETS/S", 9, 2),
            Column::new("WHY SLOW", Constraint::Length(17), 17, 0),
            Column::new("MEANING", Constraint::Fill(1), 12, 3),
        ];
        Self::table(frame, area, &columns, rows.collect(), "no packet took the slow path");
    }

    fn table(frame: &mut Frame<'_>, area: Rect, columns: &[Column], rows: Vec<Vec<Cell<'_>>>, nothing: &'static str) {
        let shown = Column::that_fit(columns, area.width);
        let header = shown.iter().map(|column| {
            let Column { heading, is_right, .. } = columns[*column];
            let line = Line::from(heading);
            Cell::from(if is_right { line.right_aligned() } else { line })
        });
        let style = Style::new().add_modifier(Modifier::BOLD);
        let is_empty = rows.is_empty();
        let rows = rows.into_iter().map(|cells| {
            let cells = cells.into_iter().enumerate();
            Row::new(cells.filter_map(|(column, cell)| shown.contains(&column).then_some(cell)))
        });
        let widths = shown.iter().map(|column| columns[*column].width);
        let table = Table::new(rows, widths).header(Row::new(header).style(style));
        frame.render_widget(table, area);
        if is_empty && area.height > 1 {
            let below = Rect {
                y: area.y + 1,
                height: 1,
                ..area
            };
            frame.render_widget(Paragraph::new(nothing), below);
        }
    }

    fn foot(&self) -> Line<'static> {
        let pause = if self.paused { "p go on" } else { "p pause" };
        let page = match self.page {
            Page::Overview => "tab endpoints",
            Page::Endpoints => "tab flows  up/down scroll",
            Page::Flows => "tab reasons  up/down scroll",
            Page::Reasons => "tab overview  up/down scroll",
        };
        let mut spans = vec![Span::raw(format!("q quit  {pause}  {page}"))];
        if self.paused {
            spans.push(self.paint("  PAUSED".into(), Color::Yellow));
        }
        Line::from(spans).style(Modifier::DIM)
    }

    fn paint(&self, text: String, color: Color) -> Span<'static> {
        if self.color {
            Span::styled(text, color)
        } else {
            Span::raw(text)
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
struct Column {
    heading: &'static str,
    is_right: bool,
    width: Constraint,
    /// With less it says nothing.
    least: u16,
    /// Where there is no room for all, those with the highest go first; names have the lowest.
    rank: u8,
}

impl Column {
    const fn new(heading: &'static str, width: Constraint, least: u16, rank: u8) -> Self {
        Self {
            heading,
            is_right: false,
            width,
            least,
            rank,
        }
    }

    const fn number(heading: &'static str, width: u16, rank: u8) -> Self {
        Self {
            is_right: true,
            ..Self::new(heading, Constraint::Length(width), width, rank)
        }
    }

    /// The places of those that there is room for, each with a gap to the next.
    fn that_fit(columns: &[Self], width: u16) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..columns.len()).collect();
        while shown.len() > 1 && shown.iter().map(|column| columns[*column].least + 1).sum::<u16>() > width + 1 {
            let ranks = shown.iter().map(|column| columns[*column].rank);
            let highest = ranks.max().unwrap_or_default();
            shown.retain(|column| columns[*column].rank != highest);
        }
        shown
    }
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn share_of(part: f64, whole: f64) -> String {
    // Tenths of packets, so that less than one a second is not nothing.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are small and not negative"
    )]
    let tenths = |rate: f64| (rate * 10.0).round() as u64;
    share(tenths(part), tenths(whole))
}

/// Packets a second: `0`, `0.3`, `812`, `812,345`, `12.3M`.
fn number(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are small and not negative"
    )]
    let whole = rate.round() as u64;
    match rate {
        r if r <= 0.0 => "0".into(),
        r if r < 9.95 => format!("{r:.1}"),
        r if r < 9_999_999.5 => count(whole),
        r => format!("{:.1}M", r / 1e6),
    }
}

/// Bits a second with three digits and a decimal unit, as links are sold: `0`, `812b`, `9.41Gb`.
fn bits(rate: f64) -> String {
    const UNITS: [&str; 5] = ["b", "kb", "Mb", "Gb", "Tb"];
    if rate <= 0.0 {
        return "0".into();
    }
    let mut value = rate;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        let texts = [0.0, 0.26, 9.94, 9.96, 812.4, 812_345.0, 12_345_678.0].map(number);
        assert_eq!(texts, ["0", "0.3", "9.9", "10", "812", "812,345", "12.3M"]);
        let texts = [0.0, 7.0, 812.0, 1_234.0, 9_410_000_000.0, 99_960_000.0, 1e15].map(bits);
        assert_eq!(texts, ["0", "7b", "812b", "1.23kb", "9.41Gb", "100Mb", "1000Tb"]);
    }

    #[test]
    fn pages_come_round() {
        let mut page = Page::default();
        for _ in 0..4 {
            page = page.next();
        }
        assert_eq!(page, Page::default());
    }
}
