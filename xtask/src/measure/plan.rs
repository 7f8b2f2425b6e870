//! The order of measurements, and netfast's start and stop between them.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use netfast_tests::netfast_proc::Totals;
use nix::sys::signal::Signal;

use super::{
    lab::{Lab, Path},
    metric::{FIGURES, Metric, Tools, Values},
    sample::{Sample, Samples, Variant},
    table,
};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The ways through the host.
    pub paths: Vec<Path>,
    /// Who forwards.
    pub variants: Vec<Variant>,
    /// What is measured of each.
    pub metrics: Vec<Metric>,
    /// How often.
    pub rounds: usize,
    /// The other build of netfast, where that is one of the variants.
    pub before: Option<PathBuf>,
}

impl Plan {
    /// Measures all; progress goes to standard error. In every other round the order of variants is turned, so that
    /// none always comes first.
    pub fn run(&self, lab: &Lab, tools: &Tools) -> Result<Samples> {
        let mut samples = Samples::default();
        let total = self.rounds * self.paths.len() * self.variants.len() * self.metrics.len();
        let mut progress = Progress {
            start: Instant::now(),
            done: 0,
            total,
        };
        for round in 1..=self.rounds {
            for path in &self.paths {
                let mut variants = self.variants.clone();
                if round % 2 == 0 {
                    variants.reverse();
                }
                for variant in variants {
                    let sample = self
                        .sample(lab, tools, round, *path, variant, &mut progress)
                        .with_context(|| format!("{}, {}, round {round}", path.title(), variant.title()))?;
                    samples.0.push(sample);
                }
            }
        }
        Ok(samples)
    }

    fn sample(
        &self,
        lab: &Lab,
        tools: &Tools,
        round: usize,
        path: Path,
        variant: Variant,
        progress: &mut Progress,
    ) -> Result<Sample> {
        let ends = if variant == Variant::Direct {
            lab.direct()
        } else {
            lab.ends(path)?
        };
        let other = self.before.as_deref().filter(|_| variant == Variant::Before);
        let netfast = match variant {
            Variant::Netfast | Variant::Before => {
                let mut netfast = lab.prepare(path)?;
                if let Some(program) = other {
                    netfast.use_program(program);
                }
                netfast.launch()?;
                let far = lab.start_far(path, &netfast, other)?;
                if path == Path::Localhost {
                    // Its lease begins a moment after it is ready.
                    thread::sleep(Duration::from_secs(1));
                }
                Some((netfast, far))
            }
            Variant::Direct | Variant::Kernel => None,
        };
        // Its totals are also those of the outer packets, which nobody shortens.
        let counted = netfast.as_ref().filter(|(_, far)| far.is_none());
        let before = counted.map_or_else(|| Ok(Totals::default()), |(netfast, _)| netfast.totals())?;
        let mut sample = Sample {
            round,
            path,
            variant,
            values: Values::new(),
        };
        for metric in &self.metrics {
            progress.begin(&format!(
                "{:<10}  {:<11}  {:<20}",
                path.word(),
                variant.title(),
                metric.title()
            ));
            let values = tools.measure(*metric, &ends);
            say_result(values.as_ref().ok());
            sample.values.extend(values?);
            if *metric == Metric::UdpNew {
                lab.forget_connections()?;
            }
            // Sockets in close, softirq at rest: the next measurement begins as this one did.
            thread::sleep(Duration::from_millis(200));
        }
        if let Some((netfast, _)) = counted
            && let Some(share) = netfast.totals()?.since(before).fast_share()
        {
            sample.values.insert("fast_share".to_owned(), share * 100.0);
        }
        if let Some((netfast, far)) = netfast {
            for mut netfast in [Some(netfast), far].into_iter().flatten() {
                netfast.stop(Signal::SIGTERM)?;
                netfast.detach()?;
            }
        }
        Ok(sample)
    }
}

struct Progress {
    start: Instant,
    done: usize,
    total: usize,
}

impl Progress {
    fn begin(&mut self, what: &str) {
        self.done += 1;
        let seconds = self.start.elapsed().as_secs();
        eprint!(
            "[{:>2}/{} {}:{:02}] {what}  ",
            self.done,
            self.total,
            seconds / 60,
            seconds % 60
        );
    }
}

/// Completes the line of a measurement by its first figure.
fn say_result(values: Option<&Values>) {
    let first = FIGURES
        .iter()
        .find_map(|figure| Some((figure, values?.get(figure.name)?)));
    match first {
        Some((figure, value)) => eprintln!("{} {}", table::number(*value, figure), figure.unit),
        None => eprintln!("failed"),
    }
}
