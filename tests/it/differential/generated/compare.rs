//! What must be the same with netfast off and on, and what differs by design: each with its reason, and no wider than
//! the reason goes.
//!
//! More is excluded by what is done to both hosts:
//! - `nf_conntrack_tcp_be_liberal` is set in both, or else all segments are in their windows, see
//!   [`Shape::strict`](netfast_tests::seeds::scenario::Shape::strict);
//! - after a change netfast gets the time to hear of it, see [`settle`](super::settle);
//! - packets that are sent in one go may overtake each other, see `say_all` of [`play`](super::play).

use std::collections::BTreeSet;

use super::{
    super::{
        runner::difference,
        world::{CONNTRACK, Step as Noted},
    },
    play::Record,
};

/// What differs.
pub struct Difference {
    /// The steps.
    pub titles: BTreeSet<String>,
    /// For people.
    pub text: String,
}

/// What differs; `None` if nothing does.
pub fn compare(off: &Record, on: &Record) -> Option<Difference> {
    let (off, on) = (read(off), read(on));
    if off == on {
        return None;
    }
    // What was the same is long and tells nothing.
    let differs = |number: usize| off.get(number) != on.get(number);
    let keep = |steps: &[Noted]| -> Vec<Noted> {
        let numbered = steps.iter().enumerate();
        numbered
            .filter(|(number, _)| differs(*number))
            .map(|(_, step)| step.clone())
            .collect()
    };
    let (off, on) = (keep(&off), keep(&on));
    Some(Difference {
        titles: off.iter().map(|step| step.title.clone()).collect(),
        text: difference(&off, &on),
    })
}

fn read(record: &Record) -> Vec<Noted> {
    let mut steps = record.steps.clone();
    for line in steps.iter_mut().flat_map(|step| &mut step.lines) {
        *line = with_known_ports(line, &record.ports);
        *line = without_cookies(line, &record.cookies);
    }
    for step in steps.iter_mut().filter(|step| step.title == CONNTRACK) {
        for line in step.lines.iter_mut().filter(|line| line.starts_with("tcp 6 ")) {
            if is_of(line, &record.resets) {
                *line = without_state(line);
            }
            // A connection that conntrack picks up in the middle is called assured at its third packet that
            // conntrack sees, which with netfast is the first revalidation.
            if is_of(line, &record.loose) {
                *line = line.replace(" [ASSURED]", "");
            }
        }
        step.lines.sort();
    }
    steps
}

/// conntrack takes a RST at once only if its number is the last acknowledged one, which it need not have seen; else the
/// connection keeps its name, and the entry goes as soon. What follows from the next packets depends on that name.
fn without_state(line: &str) -> String {
    let words = line
        .split(' ')
        .enumerate()
        .map(|(at, word)| if at == 2 { "reset" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// A port that translation has chosen, since the wanted one was taken, is chosen by chance (`nf_nat_l4proto_unique_tuple`).
fn with_known_ports(line: &str, known: &BTreeSet<u16>) -> String {
    let name = |text: &str| match text.parse::<u16>() {
        Ok(port) if port != 0 && !known.contains(&port) => "chosen".to_owned(),
        _ => text.to_owned(),
    };
    let mut is_ports = false;
    let words = line.split(' ').map(|word| {
        let after = std::mem::replace(&mut is_ports, word == "tcp" || word == "udp");
        for key in ["sport=", "dport="] {
            if let Some(port) = word.strip_prefix(key) {
                return format!("{key}{}", name(port));
            }
        }
        match word.split_once('>') {
            Some((from, to)) if after => format!("{}>{}", name(from), name(to)),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// SYNPROXY's own sequence numbers are SYN cookies, which depend on the minute (`tcp_cookie_time`).
fn without_cookies(line: &str, cookies: &BTreeSet<u32>) -> String {
    let words = line.split(' ').map(|word| {
        let Some((name, number)) = word.split_once('=').filter(|(name, _)| ["seq", "ack"].contains(name)) else {
            return word.to_owned();
        };
        let number: Option<u32> = number.parse().ok();
        let distances = cookies.iter().filter_map(|cookie| Some(number?.wrapping_sub(*cookie)));
        // No script sends as much on one connection.
        let distance = distances.filter(|distance| *distance < 1 << 20).min();
        distance.map_or_else(|| word.to_owned(), |distance| format!("{name}=cookie+{distance}"))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether an entry is of a connection from one of these ports, or to one: what conntrack picks up in the middle may be
/// the server's packet.
fn is_of(line: &str, ports: &BTreeSet<u16>) -> bool {
    let numbers = line
        .split(' ')
        .filter_map(|word| word.strip_prefix("sport=").or_else(|| word.strip_prefix("dport=")));
    numbers
        .filter_map(|number| number.parse().ok())
        .any(|port| ports.contains(&port))
}
