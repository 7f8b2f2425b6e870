//! The smallest part of a scenario that still fails, or the smallest that was found in time.

use std::time::Instant;

use super::{keep::Keep, scenario::Scenario};

/// Leaves out conversations, steps and rules, in halves, quarters and so on down to single ones, for as long as what is
/// left still `fails`, until nothing more can be left out or the time is up.
pub fn shrink(whole: &Scenario, deadline: Instant, mut fails: impl FnMut(&Keep) -> bool) -> Keep {
    let mut best = Keep::all(whole);
    loop {
        let before = best.size();
        for list in [Keep::talks_mut, Keep::steps_mut, Keep::rules_mut] {
            pass(&mut best, list, deadline, &mut fails);
        }
        if best.size() == before || Instant::now() >= deadline {
            return best;
        }
    }
}

type List = fn(&mut Keep) -> &mut Vec<usize>;

fn pass(best: &mut Keep, list: List, deadline: Instant, fails: &mut impl FnMut(&Keep) -> bool) {
    let mut size = list(best).len().div_ceil(2);
    while size > 0 {
        // From the end: what comes last can mostly go.
        let mut end = list(best).len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let mut smaller = best.clone();
            list(&mut smaller).drain(start..end);
            if Instant::now() >= deadline {
                return;
            }
            if fails(&smaller) {
                *best = smaller;
            }
            end = start;
        }
        if size == 1 {
            return;
        }
        size = size.div_ceil(2);
    }
}

impl Keep {
    const fn talks_mut(&mut self) -> &mut Vec<usize> {
        &mut self.talks
    }

    const fn steps_mut(&mut self) -> &mut Vec<usize> {
        &mut self.steps
    }

    const fn rules_mut(&mut self) -> &mut Vec<usize> {
        &mut self.rules
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::seeds::generate::scenario;

    #[test]
    fn two_steps_that_belong_together_are_what_is_left() {
        let whole = scenario(5);
        let mut asked = 0;
        let found = shrink(&whole, Instant::now() + Duration::from_mins(1), |keep| {
            asked += 1;
            keep.steps.contains(&3) && keep.steps.contains(&7)
        });
        assert_eq!((found.steps, found.rules, found.talks), (vec![3, 7], vec![], vec![]));
        assert!(asked < 200, "{asked}");
    }

    #[test]
    fn the_time_is_kept() {
        let whole = scenario(5);
        let found = shrink(&whole, Instant::now(), |_| panic!("no time to ask"));
        assert_eq!(found, Keep::all(&whole));
    }
}
