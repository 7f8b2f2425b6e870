//! Scripts in a row, where chance would take long.

use super::*;

/// Bytes from a seed.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = netfast_tests::seeds::rng::Rng::new(seed);
    (0..count)
        .map(|_| u8::try_from(rng.below(256)).expect("a byte"))
        .collect()
}

/// After answers for known aliases, which chance seldom makes, whatever comes of the seeds.
#[test]
fn scripts_of_seeds_hold_and_some_answers_are_changed() {
    let mut verdicts = vec![0; VERDICTS as usize];
    for seed in 0..400 {
        let mut host = Host::new();
        let mut script = script::known_and_sent(&bytes(!seed, 16));
        script.steps.extend(Script::of(&bytes(seed, 200)).steps);
        play(&mut host, &script);
        for (sum, count) in verdicts.iter_mut().zip(host.verdicts()) {
            *sum += count;
        }
    }
    for verdict in [Verdict::Rotated, Verdict::Shortened, Verdict::One, Verdict::Virtual] {
        assert_ne!(verdicts[verdict.number() as usize], 0, "no answer is {verdict:?}");
    }
}
