//! `netfast top`: reads, draws, listens to keys.

use std::{
    env,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use crate::{
    cli::{
        CliError, Exit, Global, TopArgs,
        instance::{self, Instance},
    },
    report::{
        flows::Busiest,
        top::{Look, Top, draw::Screen},
    },
    snapshot,
};

/// Flows that are remembered from one look to the next: more than anybody scrolls through.
const FLOWS: usize = 1000;

/// Runs until it is told to end.
pub fn run(args: &TopArgs, global: &Global) -> Result<(), CliError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let message = "standard input and output must be a terminal";
        return Err(CliError::message(Exit::Failed, message).remedy("For programs there is `netfast status --json`."));
    }
    // What is wrong at the start is said on a usable screen.
    let first = look(args, global, Instant::now())?;
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let done = show(&mut terminal, args, global, first);
    ratatui::restore();
    done
}

fn show(terminal: &mut DefaultTerminal, args: &TopArgs, global: &Global, first: Look) -> Result<(), CliError> {
    let begin = Instant::now();
    let interval = Duration::from_secs_f64(args.interval);
    let mut screen = Screen {
        color: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        ..Screen::default()
    };
    let mut top = Top::between(&first, &first);
    let mut last = first;
    // The first rates come soon: nobody likes to look at zeros.
    let mut due = begin + interval.min(Duration::from_millis(500));
    loop {
        terminal.draw(|frame| screen.draw(frame, &top)).context("cannot draw")?;
        let wait = due.saturating_duration_since(Instant::now());
        if event::poll(wait).context("cannot read keys")? {
            if let Event::Key(key) = event::read().context("cannot read keys")?
                && key.kind != KeyEventKind::Release
                && !press(key, &mut screen, &top)
            {
                return Ok(());
            }
            continue;
        }
        due = Instant::now() + interval;
        if screen.paused {
            continue;
        }
        match look(args, global, begin) {
            Ok(now) => {
                top = Top::between(&last, &now);
                last = now;
            }
            Err(error) => top.problem = Some(format!("{:#}", error.error)),
        }
        screen.offset = screen.offset.min(screen.page.rows(&top).saturating_sub(1));
    }
}

/// What a key does; false ends.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
fn press(key: KeyEvent, screen: &mut Screen, top: &Top) -> bool {
    let last = screen.page.rows(top).saturating_sub(1);
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('p' | ' ') => screen.paused = !screen.paused,
        KeyCode::Tab => {
            screen.page = screen.page.next();
            screen.offset = 0;
        }
        KeyCode::Home => screen.offset = 0,
        KeyCode::Down => screen.offset = (screen.offset + 1).min(last),
        KeyCode::PageDown => screen.offset = (screen.offset + 10).min(last),
        KeyCode::Up => screen.offset = screen.offset.saturating_sub(1),
        KeyCode::PageUp => screen.offset = screen.offset.saturating_sub(10),
        _ => {}
    }
    true
}

/// One look. The tables are opened anew each time: a daemon that was started again may have made new ones.
fn look(args: &TopArgs, global: &Global, begin: Instant) -> Result<Look, CliError> {
    let instance = Instance::open(&global.dirs)?;
    let status = snapshot::status(
        instance.state.as_ref(),
        instance.running,
        &instance.tables,
        &instance.flows,
        &instance.sandboxes,
    )
    .map_err(|error| CliError::new(Exit::Failed, error))?;
    let names = instance.names();
    let now = instance::monotonic_ns();
    // Those that are idle have no rate, and the table may hold millions.
    let recent = u64::try_from(Duration::from_secs_f64(args.interval * 2.0).as_nanos()).unwrap_or(u64::MAX);
    let mut busiest = Busiest::new(FLOWS);
    instance
        .flows
        .for_each(|key, flow, usable| {
            if usable && now.saturating_sub(flow.used_ns) < recent {
                busiest.push(*key, *flow, usable);
            }
        })
        .context("cannot read the flow table")?;
    let flows = busiest.report(now, |ifindex| {
        names.get(&ifindex).cloned().or_else(|| instance::stranger(ifindex))
    });
    Ok(Look {
        at: begin.elapsed(),
        status,
        flows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::top::draw::Page;

    #[test]
    fn keys_do_what_the_foot_says() {
        let top = Top::default();
        let mut screen = Screen::default();
        let mut press = |code| press(KeyEvent::from(code), &mut screen, &top);
        assert!(press(KeyCode::Char('x')) && press(KeyCode::Down));
        assert!(!press(KeyCode::Char('q')) && !press(KeyCode::Esc));
        assert!(press(KeyCode::Tab) && press(KeyCode::Char('p')));
        assert_eq!((screen.page, screen.paused, screen.offset), (Page::Endpoints, true, 0));
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(!super::press(control_c, &mut screen, &top));
    }
}
