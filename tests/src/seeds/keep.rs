//! A part of a seed's scenario, as it is typed: `rules:0 talks:1,2 steps:0,3-5`.

use std::{fmt, str::FromStr};

use super::scenario::Scenario;

/// What is kept of a scenario: rules, conversations and steps by their numbers in the whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Rules that are there from the beginning.
    pub rules: Vec<usize>,
    /// Conversations; steps of others are left out, too.
    pub talks: Vec<usize>,
    /// Steps.
    pub steps: Vec<usize>,
}

impl Keep {
    /// Everything.
    pub fn all(scenario: &Scenario) -> Self {
        Self {
            rules: (0..scenario.rules.len()).collect(),
            talks: (0..scenario.talks.len()).collect(),
            steps: (0..scenario.steps.len()).collect(),
        }
    }

    /// The scenario with nothing else in it. Numbers of conversations stay as they are, so that a step means the same.
    pub fn of(&self, whole: &Scenario) -> Part {
        let steps = self.steps.iter().copied().filter(|number| {
            let step = whole.steps.get(*number);
            step.is_some_and(|step| step.talk().is_none_or(|talk| self.talks.contains(&talk)))
        });
        Part {
            scenario: whole.clone(),
            rules: self.rules.clone(),
            steps: steps.collect(),
        }
    }

    /// How much it is.
    pub fn size(&self) -> usize {
        self.rules.len() + self.talks.len() + self.steps.len()
    }
}

/// A scenario of which only a part is played.
#[derive(Clone, Debug)]
pub struct Part {
    /// The whole one.
    pub scenario: Scenario,
    /// The rules that are there, by number.
    pub rules: Vec<usize>,
    /// The steps that are played, by number.
    pub steps: Vec<usize>,
}

impl Part {
    /// All of a scenario.
    pub fn whole(scenario: &Scenario) -> Self {
        Keep::all(scenario).of(scenario)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario {
            seed,
            shape,
            base,
            rules,
            talks,
            steps,
        } = &self.scenario;
        writeln!(f, "seed {seed}: {shape:?}\n  {base:?}")?;
        for number in &self.rules {
            writeln!(f, "  rule {number}: {:?}", rules[*number])?;
        }
        for (number, talk) in talks.iter().enumerate() {
            if self.steps.iter().any(|step| steps[*step].talk() == Some(number)) {
                writeln!(f, "  talk {number}: {talk:?}")?;
            }
        }
        for number in &self.steps {
            writeln!(f, "  step {number}: {:?}", steps[*number])?;
        }
        Ok(())
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("rules", &self.rules), ("talks", &self.talks), ("steps", &self.steps)];
        for (at, (name, numbers)) in lists.into_iter().enumerate() {
            let numbers: Vec<String> = ranges(numbers)
                .iter()
                .map(|(first, last)| range(*first, *last))
                .collect();
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}:{}", numbers.join(","))?;
        }
        Ok(())
    }
}

fn range(first: usize, last: usize) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// Runs of successive numbers.
fn ranges(numbers: &[usize]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keep = Self {
            rules: Vec::new(),
            talks: Vec::new(),
            steps: Vec::new(),
        };
        for word in text.split_whitespace() {
            let wrong = || format!("{word}: want rules:N,N-M, talks:… and steps:…");
            let (name, numbers) = word.split_once(':').ok_or_else(wrong)?;
            let list = match name {
                "rules" => &mut keep.rules,
                "talks" => &mut keep.talks,
                "steps" => &mut keep.steps,
                _ => return Err(wrong()),
            };
            for part in numbers.split(',').filter(|part| !part.is_empty()) {
                let (first, end) = part.split_once('-').unwrap_or((part, part));
                let parse = |text: &str| text.parse::<usize>().map_err(|_| wrong());
                list.extend(parse(first)?..=parse(end)?);
            }
        }
        Ok(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::generate::scenario;

    #[test]
    fn what_is_printed_can_be_typed() {
        for text in ["rules: talks:0 steps:1", "rules:0,2 talks:0-3 steps:1,3-5,9"] {
            let keep: Keep = text.parse().expect("right");
            assert_eq!(keep.to_string(), text);
        }
        for wrong in ["rules", "rules:x", "rulez:1"] {
            wrong.parse::<Keep>().expect_err("wrong");
        }
    }

    #[test]
    fn steps_of_conversations_that_are_not_kept_are_left_out() {
        let whole = scenario(3);
        let mut keep = Keep::all(&whole);
        keep.talks.retain(|talk| *talk != 0);
        let part = keep.of(&whole);
        assert!(!part.steps.is_empty() && part.steps.len() < whole.steps.len());
        assert!(part.steps.iter().all(|step| whole.steps[*step].talk() != Some(0)));
        assert_eq!(Part::whole(&whole).steps.len(), whole.steps.len());
    }
}
