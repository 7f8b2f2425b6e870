//! Scripts in a row, where chance would take long.

use super::*;

/// Bytes from a seed.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = netfast_tests::seeds::rng::Rng::new(seed);
    (0..count)
        .map(|_| u8::try_from(rng.below(256)).expect("a byte"))
        .collect()
}

#[test]
fn scripts_of_seeds_hold_and_some_answers_are_changed() {
    let mut verdicts = vec![0; VERDICTS as usize];
    for seed in 0..400 {
        let mut host = Host::new();
        play(&mut host, &Script::of(&bytes(seed, 200)));
        for (sum, count) in verdicts.iter_mut().zip(host.verdicts()) {
            *sum += count;
        }
    }
    let changed = [Verdict::Rotated, Verdict::Shortened, Verdict::Virtual];
    let count: u64 = changed.iter().map(|verdict| verdicts[verdict.number() as usize]).sum();
    assert!(count > 0, "no answer is changed");
}
