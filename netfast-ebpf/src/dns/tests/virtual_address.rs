//! Answers that get an alias's virtual address.

use netfast_common::{
    alias::AliasKey,
    net::{AnyIp, Ip4, Ip6},
};

use super::*;
use crate::ctx::fake;

const VIP: [u8; 4] = [198, 18, 0, 2];
const VIP6: [u8; 16] = [0xfd, 0x6e, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn with_vip(alias: Alias) -> Alias {
    Alias {
        vip: AnyIp::v4(Ip4::from_bytes(VIP)),
        ..alias
    }
}

fn with_vip6(alias: Alias) -> Alias {
    Alias {
        vip: AnyIp::v6(Ip6::from_bytes(VIP6)),
        ..alias
    }
}

/// The message that becomes of a message, if it does.
fn replaced(answer: &Answer, alias: &Alias, may_shorten: bool) -> Option<Vec<u8>> {
    let mut scratch = reading(&answer.sent()).expect("an answer");
    scratch.alias = *alias;
    let done = replace(&nobody(), buffer(&mut scratch), may_shorten).expect("its set");
    done.then(|| scratch.message[..scratch.length as usize].to_vec())
}

/// The same answer with these addresses.
fn giving(answer: &Answer, addresses: Vec<Data>) -> Vec<u8> {
    let given = Answer {
        addresses,
        ..answer.clone()
    };
    let all: Vec<usize> = (0..given.addresses.len()).collect();
    given.bytes(&all, 0)
}

proptest! {
    #[test]
    fn it_takes_the_place_of_all_members(answer in answers(), single: bool, may_shorten: bool) {
        let mut answer = answer;
        if single {
            answer.addresses.truncate(1);
        }
        prop_assume!(answer.sent().len() < MESSAGE as usize);
        let alias = answer.alias(0);
        for (alias, family, vip) in [
            (with_vip(alias), RecordType::A, VIP.to_vec()),
            (with_vip6(alias), RecordType::Aaaa, VIP6.to_vec()),
        ] {
            // An answer of the other family has no records.
            let expected = match (answer.record_type == family, may_shorten) {
                (true, true) => Some(giving(&answer, vec![vip])),
                (true, false) => Some(giving(&answer, vec![vip; answer.addresses.len()])),
                (false, true) => Some(giving(&answer, Vec::new())),
                (false, false) => None,
            };
            prop_assert_eq!(replaced(&answer, &alias, may_shorten), expected);
        }
    }
}

/// The frame that becomes of an answer, and what it was counted as.
fn answered(sent: &Answer, alias: Option<Alias>, tcp: bool) -> (Vec<u8>, Vec<Verdict>) {
    fake::reset();
    let key = reading(&sent.sent()).expect("an answer").key;
    let marker = AliasKey { digest: 0, ..key };
    if let Some(alias) = alias {
        maps::ALIASES.insert(key, alias, 0).expect("room");
        maps::ALIASES.insert(marker, Alias::default(), 0).expect("room");
        maps::CURSORS.insert(alias.id, 0, 0).expect("room");
    }
    let skb = FakeSkb::new(&frame(&sent.sent(), tcp, 4000));
    assert_eq!(answer(&skb), NEXT);
    let counted = |verdict: &&Verdict| maps::ANSWERS.get(verdict.number()).is_some_and(|count| *count != 0);
    (skb.bytes(), Verdict::ALL.iter().filter(counted).copied().collect())
}

#[test]
fn a_single_record_is_few_unless_its_alias_has_a_virtual_address() {
    let answer = Answer::of(&[[10, 0, 0, 3]]);
    let alias = answer.alias(1);
    let same = frame(&answer.sent(), false, 4000);
    assert_eq!(answered(&answer, None, false), (same.clone(), vec![Verdict::Few]));
    assert_eq!(answered(&answer, Some(alias), false), (same, vec![Verdict::Few]));
    let expected = frame(&giving(&answer, vec![VIP.to_vec()]), false, 4000);
    assert_eq!(
        answered(&answer, Some(with_vip(alias)), false),
        (expected, vec![Verdict::Virtual])
    );
}

#[test]
fn checksums_and_lengths_follow() {
    for behind in [Vec::new(), OPT.to_vec()] {
        let mut answer = Answer::of(&[[10, 0, 0, 3], [10, 0, 0, 2], [10, 0, 0, 9]]);
        answer.behind = behind;
        let alias = with_vip(answer.alias(7));
        for (tcp, copies) in [(false, 1), (true, 3)] {
            let expected = frame(&giving(&answer, vec![VIP.to_vec(); copies]), tcp, 4000);
            assert_eq!(
                answered(&answer, Some(alias), tcp),
                (expected, vec![Verdict::Virtual]),
                "{tcp}"
            );
        }
    }
}

#[test]
fn another_set_is_left_alone() {
    let answer = Answer::of(&[[10, 0, 0, 3], [10, 0, 0, 2]]);
    let alias = Alias {
        members: 3,
        ..with_vip(answer.alias(3))
    };
    let same = frame(&answer.sent(), false, 4000);
    assert_eq!(answered(&answer, Some(alias), false), (same, vec![Verdict::OtherSet]));
}
