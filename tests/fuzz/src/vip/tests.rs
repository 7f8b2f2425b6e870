//! Scripts in a row, where chance would take long.

use netfast_common::vip::Verdict;

use super::*;

#[test]
fn scripts_of_seeds_hold_and_some_packets_are_translated() {
    let mut verdicts = [vec![0; VERDICTS as usize], vec![0; VERDICTS as usize]];
    for seed in 0..400 {
        let mut rng = netfast_tests::seeds::rng::Rng::new(seed);
        let bytes: Vec<u8> = (0..400)
            .map(|_| u8::try_from(rng.below(256)).expect("a byte"))
            .collect();
        let mut host = Host::new();
        play(&mut host, &Script::of(&bytes));
        let four = host.verdicts();
        let mut host = Six(Host::new());
        play(&mut host, &Script::of(&bytes).for_kernel());
        for (sums, counts) in verdicts.iter_mut().zip([four, host.verdicts()]) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }
    let wanted = [
        Verdict::Chosen,
        Verdict::Kept,
        Verdict::Returned,
        Verdict::Hairpin,
        Verdict::IcmpError,
        Verdict::Refused,
    ];
    for verdict in wanted {
        for counts in &verdicts {
            assert!(counts[verdict.number() as usize] > 0, "nothing is {}", verdict.name());
        }
    }
}
