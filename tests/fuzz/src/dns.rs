//! The program at the resolver's answers on a faked kernel, and what must hold of whatever it does: a message that is
//! changed is the one that [`model`] makes, and everything else stays as it was, byte for byte.

use std::collections::BTreeMap;

use netfast_common::alias::{Alias, AliasKey, MemberKey, VERDICTS, Verdict};
use netfast_ebpf::{
    ctx::fake::{self, FakeSkb},
    dns,
    state::maps,
};
use netfast_tests::packet::{check_checksums, difference};

use crate::machine::NEXT;

pub mod model;
pub mod script;

use model::Message;
use script::{Known, Odds, Script, Step, Which, number};

/// Something that runs the program: the faked kernel, or the real one.
pub trait Machine {
    /// Writes the alias of a key, or removes it.
    fn set_alias(&mut self, key: &AliasKey, alias: Option<Alias>);
    /// Sets an alias's turn, or removes it.
    fn set_turn(&mut self, id: u64, turn: Option<u64>);
    /// An alias's turn.
    fn turn(&self, id: u64) -> Option<u64>;
    /// Begins to count how often a member was given first, or ceases to.
    fn set_given(&mut self, key: MemberKey, is_counted: bool);
    /// How often that was.
    fn given(&self, key: MemberKey) -> Option<u64>;
    /// Runs the program; returns the frame afterwards.
    fn run(&mut self, frame: &[u8], odds: Odds) -> Vec<u8>;
    /// Answers by verdict.
    fn verdicts(&self) -> Vec<u64>;
}

/// A script on the faked kernel.
pub fn fuzz(bytes: &[u8]) {
    play(&mut Host::new(), &Script::of(bytes));
}

/// Plays a script; returns the frames that came out.
pub fn play(machine: &mut impl Machine, script: &Script) -> Vec<Vec<u8>> {
    let mut player = Player {
        machine,
        known: BTreeMap::new(),
    };
    script.steps.iter().filter_map(|step| player.step(step)).collect()
}

/// The faked kernel of this thread.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// With empty maps.
    #[expect(clippy::new_without_default, reason = "it empties the thread's maps")]
    pub fn new() -> Self {
        fake::reset();
        Self
    }
}

impl Machine for Host {
    fn set_alias(&mut self, key: &AliasKey, alias: Option<Alias>) {
        match alias {
            Some(alias) => maps::ALIASES.insert(key, alias, 0).expect("room"),
            // It may be gone already.
            None => {
                let _ = maps::ALIASES.remove(key);
            }
        }
    }

    fn set_turn(&mut self, id: u64, turn: Option<u64>) {
        match turn {
            Some(turn) => maps::CURSORS.insert(id, turn, 0).expect("room"),
            None => {
                let _ = maps::CURSORS.remove(id);
            }
        }
    }

    fn turn(&self, id: u64) -> Option<u64> {
        // SAFETY: copied at once, and no program runs.
        unsafe { maps::CURSORS.get(id) }.copied()
    }

    fn set_given(&mut self, key: MemberKey, is_counted: bool) {
        if is_counted {
            maps::FIRST_NAMED.insert(key, 0, 0).expect("room");
        } else {
            let _ = maps::FIRST_NAMED.remove(key);
        }
    }

    fn given(&self, key: MemberKey) -> Option<u64> {
        // SAFETY: as above.
        unsafe { maps::FIRST_NAMED.get(key) }.copied()
    }

    fn run(&mut self, frame: &[u8], odds: Odds) -> Vec<u8> {
        let mut skb = FakeSkb::new(frame);
        if let Some(linear) = odds.linear {
            skb = skb.with_linear(linear.into());
        }
        (skb.no_memory, skb.partial) = (odds.no_memory(), odds.is_partial);
        assert_eq!(dns::answer(&skb), NEXT);
        assert_eq!((skb.sent.get(), skb.mark.get(), skb.priority.get()), (None, 0, 0));
        skb.bytes()
    }

    fn verdicts(&self) -> Vec<u64> {
        (0..VERDICTS)
            .map(|number| *maps::ANSWERS.get(number).expect("an element"))
            .collect()
    }
}

/// What plays a script, and judges.
struct Player<'a, M> {
    machine: &'a mut M,
    /// What the daemon has written.
    known: BTreeMap<AliasKey, Known>,
}

impl<M: Machine> Player<'_, M> {
    fn step(&mut self, step: &Step) -> Option<Vec<u8>> {
        match step {
            Step::Known(known) => {
                self.learn(known);
                None
            }
            Step::Sent(sent) => Some(self.pass(&sent.frame(), sent.odds)),
        }
    }

    /// As the daemon writes an alias: with a marker for its name.
    fn learn(&mut self, known: &Known) {
        let Some(key) = known.which.key(known.addresses()) else {
            return;
        };
        let marker = AliasKey { digest: 0, ..key };
        self.machine.set_alias(&marker, Some(Alias::default()));
        self.machine.set_alias(&key, known.alias());
        self.machine
            .set_turn(known.which.id(), known.has_turn().then_some(u64::MAX - 3));
        for address in known.addresses() {
            self.machine
                .set_given(member(known.which, &address), known.has_counts());
        }
        self.known.insert(key, *known);
    }

    fn pass(&mut self, frame: &[u8], odds: Odds) -> Vec<u8> {
        let ids = Which::all().map(Which::id);
        let turns: BTreeMap<u64, Option<u64>> = ids.map(|id| (id, self.machine.turn(id))).collect();
        let given = self.given();
        let before = self.machine.verdicts();
        let out = self.machine.run(frame, odds);
        let verdict = counted(&before, &self.machine.verdicts());
        let change = self.expected(frame, &turns);
        if let Some(Verdict::Rotated | Verdict::Shortened | Verdict::One | Verdict::Virtual) = verdict {
            let change = change.expect("a message that is changed is an answer for a known alias");
            assert_eq!(verdict, Some(change.verdict));
            judge_frame(frame, &out, &change, odds);
            let mut wanted = given;
            if let Some(count) = change.first.and_then(|first| wanted.get_mut(&first)) {
                *count += 1;
            }
            assert_eq!(self.given(), wanted, "who was given first is counted");
            return out;
        }
        let difference = difference(frame, &out);
        assert!(frame == out, "changed, and counted as {verdict:?}:\n{difference}");
        assert_eq!(self.given(), given);
        // What is as it should be is left alone only where the kernel has no memory, or the source cannot be read directly.
        let is_hampered = odds.no_memory() || odds.linear.is_some_and(|bytes| bytes < 34);
        assert!(
            change.is_none() || is_hampered,
            "left alone, and counted as {verdict:?}"
        );
        out
    }

    /// Counts of all members.
    fn given(&self) -> BTreeMap<MemberKey, u64> {
        let members = self.known.values().flat_map(|known| {
            let addresses = known.addresses().into_iter();
            addresses.map(|address| member(known.which, &address))
        });
        members
            .filter_map(|key| Some((key, self.machine.given(key)?)))
            .collect()
    }

    /// What must become of a frame; `None`: nothing.
    fn expected(&self, frame: &[u8], turns: &BTreeMap<u64, Option<u64>>) -> Option<Change> {
        let (offset, is_udp) = model::place(frame)?;
        let valid = FakeSkb::new(frame).parsed().is_ok() && frame.len() - offset < MOST;
        let message = Message::read(&frame[offset..]).filter(|_| valid)?;
        let addresses = message.addresses();
        let (_, known) = self.known.iter().find(|(key, known)| {
            let name = &key.name[..message.name.len().saturating_sub(1).min(key.name.len())];
            let mut sets = [known.addresses(), addresses.clone()];
            for set in &mut sets {
                set.sort();
            }
            message.name.strip_suffix(&[0]) == Some(name)
                && key.name[name.len()..].iter().all(|byte| *byte == 0)
                && key.record_type == u32::from(message.record_type)
                && sets[0] == sets[1]
        })?;
        let alias = known.alias()?;
        // No more can be told apart, and nobody needs to be chosen of one.
        let is_virtual = !alias.vip.is_none();
        let few = if is_virtual { 1 } else { 2 };
        if !(few..=64).contains(&addresses.len()) || alias.members as usize != addresses.len() {
            return None;
        }
        if is_virtual && let Some(message) = message.with_virtual(&alias, is_udp) {
            return Some(Change {
                offset,
                message,
                verdict: Verdict::Virtual,
                first: None,
            });
        }
        let turn = turns.get(&alias.id).copied().flatten()?;
        let (message, first, is_short) = message.in_turn(&alias, turn, is_udp);
        Some(Change {
            offset,
            message,
            verdict: match is_short {
                _ if alias.flags & Alias::ONE != 0 => Verdict::One,
                true => Verdict::Shortened,
                false => Verdict::Rotated,
            },
            first: Some(member(known.which, &first)),
        })
    }
}

/// Messages this long are not looked at.
const MOST: usize = netfast_common::alias::MESSAGE as usize;

/// What must become of a frame.
struct Change {
    offset: usize,
    message: Vec<u8>,
    verdict: Verdict,
    first: Option<MemberKey>,
}

fn member(which: Which, address: &[u8]) -> MemberKey {
    MemberKey {
        alias: which.id(),
        address: number(address),
    }
}

/// What a packet was counted as: once at most.
fn counted(before: &[u64], after: &[u64]) -> Option<Verdict> {
    let mut counted = before.iter().zip(after).enumerate().filter(|(_, (a, b))| a != b);
    let (place, (before, after)) = counted.next()?;
    assert!(counted.next().is_none() && *after == before + 1, "counted once");
    Some(Verdict::of(u32::try_from(place).expect("small")).expect("a verdict"))
}

/// The new message in the old packet, with lengths and checksums that are right if they were.
fn judge_frame(before: &[u8], after: &[u8], change: &Change, odds: Odds) {
    let wanted = model::with_message(before, change.offset, &change.message);
    let blank = model::without_checksums;
    let difference = difference(&blank(&wanted), &blank(after));
    assert!(blank(&wanted) == blank(after), "not as it should be:\n{difference}");
    let at = model::checksum_at(before);
    let checksum = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if odds.is_partial {
        // All ones and zero are the same sum.
        let sum = |frame: &[u8]| model::partial_checksum(frame).map(|sum| sum % 0xffff);
        if sum(before) == Some(checksum(before) % 0xffff) {
            let is_none = before[23] == 17 && checksum(before) == 0;
            assert!(
                is_none || sum(after) == Some(checksum(after) % 0xffff),
                "the pseudo header's sum is wrong"
            );
        }
    } else if before[23] == 17 && checksum(before) == 0 {
        assert_eq!(checksum(after), 0, "no checksum stays none");
    } else {
        let (was, is) = (check_checksums(before), check_checksums(after));
        assert_eq!(was.is_ok(), is.is_ok(), "was {was:?}, is {is:?}");
    }
}

#[cfg(test)]
mod tests;
