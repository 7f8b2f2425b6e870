//! Answers that name one member alone.

use super::*;

proptest! {
    /// Only the one whose turn it is; where no record can be left out each of them is that one.
    #[test]
    fn one_is_named_in_turn(answer in answers(), eligible: u64, turn: u64, may_shorten: bool) {
        prop_assume!(answer.sent().len() < MESSAGE as usize && answer.addresses.len() > 1);
        let ascending = answer.ascending();
        let well: Vec<usize> = (0..ascending.len()).filter(|rank| eligible >> rank & 1 == 1).collect();
        let given = if well.is_empty() { (0..ascending.len()).collect() } else { well };
        let its_turn = given[usize::try_from(turn % given.len() as u64).expect("few")];
        let copies = if may_shorten { 1 } else { answer.addresses.len() };
        let expected = answer.bytes(&vec![ascending[its_turn]; copies], 0);
        let alias = Alias { flags: Alias::ONE, ..answer.alias(eligible) };
        prop_assert_eq!(rotated(&answer.sent(), &alias, turn, may_shorten), Ok(expected));
    }
}
