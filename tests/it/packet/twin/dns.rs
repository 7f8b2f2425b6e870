//! The program at the resolver's answers.

use netfast_common::alias::{Alias, AliasKey, MemberKey, Verdict};
use netfast_fuzz::dns::{self, Host, Machine, script};
use netfast_tests::packet::difference;

use super::{CASES, bytes_of_seed, kept_bytes, seeds};
use crate::packet::answers::{self, Lab};

/// Both machines; the script's words go to both.
struct Twins<'a> {
    kernel: &'a mut Lab,
    host: Host,
    runs: u64,
}

impl Machine for Twins<'_> {
    fn set_alias(&mut self, key: &AliasKey, alias: Option<Alias>) {
        self.host.set_alias(key, alias);
        match alias {
            Some(alias) => self.kernel.aliases.insert(key, alias, 0).expect("an entry"),
            // It may be gone already.
            None => drop(self.kernel.aliases.remove(key)),
        }
    }

    fn set_turn(&mut self, id: u64, turn: Option<u64>) {
        self.host.set_turn(id, turn);
        match turn {
            Some(turn) => self.kernel.turns.insert(id, turn, 0).expect("a turn"),
            None => drop(self.kernel.turns.remove(&id)),
        }
    }

    fn turn(&self, id: u64) -> Option<u64> {
        let turn = self.host.turn(id);
        assert_eq!(self.kernel.turns.get(&id, 0).ok(), turn);
        turn
    }

    fn set_given(&mut self, key: MemberKey, is_counted: bool) {
        self.host.set_given(key, is_counted);
        if is_counted {
            self.kernel.given.insert(key, 0, 0).expect("a count");
        } else {
            drop(self.kernel.given.remove(&key));
        }
    }

    fn given(&self, key: MemberKey) -> Option<u64> {
        let given = self.host.given(key);
        assert_eq!(self.kernel.given.get(&key, 0).ok(), given);
        given
    }

    fn run(&mut self, frame: &[u8], odds: script::Odds) -> Vec<u8> {
        self.runs += 1;
        let before = self.host.verdicts();
        let on_host = self.host.run(frame, odds);
        let after = self.host.verdicts();
        let (on_kernel, verdict) = self.kernel.pass(frame);
        let difference = difference(&on_host, &on_kernel);
        assert!(on_host == on_kernel, "host and kernel differ:\n{difference}");
        let counted = (0..)
            .zip(before.iter().zip(&after))
            .find(|(_, (before, after))| before != after);
        assert_eq!(verdict.map(Verdict::number), counted.map(|(number, _)| number));
        on_host
    }

    fn verdicts(&self) -> Vec<u64> {
        self.host.verdicts()
    }
}

#[test]
fn the_kernel_and_the_host_build_answer_alike() {
    answers::run(|lab| {
        let of_seeds = seeds(CASES).map(|seed| (format!("seed {seed}"), bytes_of_seed(seed)));
        let (mut scripts, mut runs) = (0, 0);
        for (name, bytes) in kept_bytes("dns").into_iter().chain(of_seeds) {
            // Told if it fails.
            println!("{name}");
            lab.forget();
            let mut twins = Twins {
                kernel: lab,
                host: Host::new(),
                runs: 0,
            };
            dns::play(&mut twins, &script::Script::of(&bytes).for_kernel());
            (scripts, runs) = (scripts + 1, runs + twins.runs);
        }
        assert!(runs > 0);
        println!("{scripts} scripts, {runs} answers on both");
    });
}
