//! In which order members are given: the contents of a service's slots.

use netfast_common::vip::{MAGLEV, MAX_SEQUENCE};

/// Round robin by weight, interleaved: nginx's smooth algorithm (`ngx_http_upstream_get_peer`). Returns the member at each
/// slot; within the sequence each member has as many slots as its weight, divided by what all weights have in common. Sums
/// over [`MAX_SEQUENCE`] are scaled down, and then are right within one slot of each member.
pub fn sequence(weights: &[u32]) -> Vec<usize> {
    let mut weights = reduced(weights);
    let sum: u64 = weights.iter().sum();
    let most = u64::from(MAX_SEQUENCE);
    if sum > most {
        let spare = most.saturating_sub(weights.len() as u64);
        for weight in weights.iter_mut().filter(|weight| **weight != 0) {
            *weight = 1 + (*weight - 1) * spare / sum;
        }
        weights = reduced_wide(&weights);
    }
    let total = i128::from(weights.iter().sum::<u64>());
    let mut current = vec![0_i128; weights.len()];
    let mut sequence = Vec::new();
    for _ in 0..total {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            current[index] += i128::from(*weight);
            if current[index] > current[best] {
                best = index;
            }
        }
        current[best] -= total;
        sequence.push(best);
    }
    sequence
}

/// Maglev's lookup table (Eisenbud and others, NSDI 2016, section 3.4) of [`MAGLEV`] slots: who has which slot depends
/// on the members' names alone, and when one comes or goes the others keep nearly all of theirs. A member of weight `w`
/// takes `w` slots in each round.
pub fn maglev(members: &[(u64, u32)]) -> Vec<usize> {
    let size = MAGLEV as usize;
    if members.iter().all(|(_, weight)| *weight == 0) {
        return Vec::new();
    }
    let weights = reduced(&members.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
    // Where each begins, and how far it goes on when a place is taken.
    let mut next: Vec<(usize, usize)> = members
        .iter()
        .map(|(name, _)| {
            let skip = below(size - 1, *name ^ 0x9e37_79b9_7f4a_7c15) + 1;
            (below(size, *name), skip)
        })
        .collect();
    let mut table = vec![None; size];
    let mut free = size;
    loop {
        for (index, weight) in weights.iter().enumerate() {
            for _ in 0..*weight {
                let (place, skip) = &mut next[index];
                while table[*place].is_some() {
                    *place = (*place + *skip) % size;
                }
                table[*place] = Some(index);
                free -= 1;
                if free == 0 {
                    return table.into_iter().flatten().collect();
                }
            }
        }
    }
}

/// A number less than `end` that depends on a name.
fn below(end: usize, name: u64) -> usize {
    usize::try_from(mix(name) % end as u64).expect("less than a usize")
}

/// Weights without what they have in common.
fn reduced(weights: &[u32]) -> Vec<u64> {
    reduced_wide(&weights.iter().copied().map(u64::from).collect::<Vec<_>>())
}

fn reduced_wide(weights: &[u64]) -> Vec<u64> {
    let common = weights.iter().fold(0, |common, weight| gcd(common, *weight)).max(1);
    weights.iter().map(|weight| weight / common).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The finalizer of splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn shares(slots: &[usize], members: usize) -> Vec<usize> {
        let mut shares = vec![0; members];
        for slot in slots {
            shares[*slot] += 1;
        }
        shares
    }

    #[test]
    fn equal_weights_are_strict_turns() {
        assert_eq!(sequence(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(sequence(&[7, 7, 7]), [0, 1, 2]);
        assert_eq!(sequence(&[5]), [0]);
        assert_eq!(sequence(&[]), [0; 0]);
        assert_eq!(sequence(&[0, 3, 0]), [1]);
        assert_eq!(sequence(&[0, 0]), [0; 0]);
    }

    #[test]
    fn weights_are_kept_exactly_and_interleaved() {
        assert_eq!(sequence(&[1, 2, 3]), [2, 1, 0, 2, 1, 2]);
        // nginx's own example.
        assert_eq!(sequence(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn great_sums_are_scaled_down() {
        let slots = sequence(&[1000, 999, 1]);
        assert!(slots.len() <= MAX_SEQUENCE as usize);
        let shares = shares(&slots, 3);
        assert!(shares[2] >= 1 && shares[0].abs_diff(shares[1]) <= 1, "{shares:?}");
    }

    proptest! {
        #[test]
        fn each_has_its_weight(weights in vec(0_u32..12, 0..40)) {
            let slots = sequence(&weights);
            let shares = shares(&slots, weights.len());
            let sum: u32 = weights.iter().sum();
            for (weight, share) in weights.iter().zip(shares) {
                // share / slots = weight / sum
                prop_assert_eq!(u64::from(*weight) * slots.len() as u64, share as u64 * u64::from(sum));
            }
        }

        #[test]
        fn maglev_is_even_and_disturbs_little(
            names in proptest::collection::btree_set(any::<u64>(), 2..12),
            gone in any::<prop::sample::Index>(),
        ) {
            let all: Vec<(u64, u32)> = names.iter().map(|name| (*name, 1)).collect();
            let table = maglev(&all);
            prop_assert_eq!(table.len(), MAGLEV as usize);
            for share in shares(&table, all.len()) {
                prop_assert!(share.abs_diff(MAGLEV as usize / all.len()) <= 1, "{share}");
            }
            let gone = gone.index(all.len());
            let rest: Vec<_> = all.iter().copied().enumerate().filter(|(index, _)| *index != gone).collect();
            let after = maglev(&rest.iter().map(|(_, member)| *member).collect::<Vec<_>>());
            let moved = table.iter().zip(&after).filter(|(before, after)| **before != gone && rest[**after].0 != **before);
            // The paper's figures are a few per cent of the slots; few slots and few members are somewhat worse.
            prop_assert!(moved.count() <= MAGLEV as usize / 5);
        }

        #[test]
        fn maglev_keeps_weights(weights in vec(1_u32..5, 2..6)) {
            let members: Vec<(u64, u32)> = weights.iter().enumerate().map(|(name, weight)| (name as u64, *weight)).collect();
            let sum: u32 = weights.iter().sum();
            for (weight, share) in weights.iter().zip(shares(&maglev(&members), weights.len())) {
                let fair = (MAGLEV * weight / sum) as usize;
                prop_assert!(share.abs_diff(fair) <= *weight as usize + 1, "{share} of {fair}");
            }
        }
    }
}
