//! Samples, and what is computed of them.

use serde::{Deserialize, Serialize};

use super::{lab::Path, metric::Values};

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Nobody: a veth pair between client and server, the limit.
    Direct,
    /// The kernel, netfast off.
    Kernel,
    /// Another build of netfast.
    Before,
    /// netfast.
    Netfast,
}

impl Variant {
    /// What tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct pair",
            Self::Kernel => "kernel",
            Self::Before => "before",
            Self::Netfast => "netfast",
        }
    }
}

/// The figures of one path in one variant in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// From 1.
    pub round: usize,
    /// Which way the packets took; the direct pair is measured anew beside each path.
    pub path: Path,
    /// Who forwarded.
    pub variant: Variant,
    /// Figures by name.
    pub values: Values,
}

/// Median, smallest and largest of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// All samples.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Samples(pub Vec<Sample>);

impl Samples {
    /// A figure of one path and variant over all rounds.
    pub fn spread(&self, path: Path, variant: Variant, figure: &str) -> Option<Spread> {
        let all = self
            .0
            .iter()
            .filter(|sample| sample.path == path && sample.variant == variant);
        Spread::of(all.filter_map(|sample| sample.values.get(figure).copied()).collect())
    }

    /// The figure of netfast divided by that of `other`.
    pub fn ratio(&self, path: Path, other: Variant, figure: &str) -> Option<Spread> {
        self.ratio_of(path, [Variant::Netfast, other], figure)
    }

    /// The figure of the first variant divided by that of the second, round by round, and then the median of these: what changes
    /// slowly on the machine hits both of a pair.
    pub fn ratio_of(&self, path: Path, [ours, theirs]: [Variant; 2], figure: &str) -> Option<Spread> {
        let value = |variant, round| {
            self.0
                .iter()
                .find(|sample| sample.path == path && sample.variant == variant && sample.round == round)
                .and_then(|sample| sample.values.get(figure).copied())
        };
        let rounds = self.0.iter().map(|sample| sample.round).max().unwrap_or(0);
        let ratios = (1..=rounds).filter_map(|round| {
            let (ours, theirs) = (value(ours, round)?, value(theirs, round)?);
            (theirs > 0.0).then_some(ours / theirs)
        });
        Spread::of(ratios.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: usize, variant: Variant, value: f64) -> Sample {
        Sample {
            round,
            path: Path::User,
            variant,
            values: [("x".to_owned(), value)].into(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let samples = Samples(vec![
            sample(1, Variant::Kernel, 10.0),
            sample(1, Variant::Netfast, 20.0),
            sample(2, Variant::Netfast, 400.0),
            sample(2, Variant::Kernel, 100.0),
            sample(3, Variant::Kernel, 1.0),
        ]);
        let ratio = samples.ratio(Path::User, Variant::Kernel, "x").expect("two pairs");
        assert_eq!(
            ratio,
            Spread {
                median: 3.0,
                min: 2.0,
                max: 4.0
            }
        );
        assert_eq!(samples.ratio(Path::User, Variant::Direct, "x"), None);
        let kernel = samples.spread(Path::User, Variant::Kernel, "x");
        assert_eq!(
            kernel,
            Some(Spread {
                median: 10.0,
                min: 1.0,
                max: 100.0
            })
        );
        assert_eq!(samples.spread(Path::Host, Variant::Kernel, "x"), None);
    }
}
