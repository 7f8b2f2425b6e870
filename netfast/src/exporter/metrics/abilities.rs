//! Metrics of what the host lets netfast do, and of updates that may have changed it.

use std::{collections::BTreeMap, fmt};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Labels, gauges, truth};
use crate::{
    abilities::{Part, Updated},
    report::status::HostAbilities,
};

pub fn encode(host: &HostAbilities, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauges(
        encoder,
        "netfast_version_info",
        "Always 1; the version of the kernel, of the container engine and of netfast, each by its part.",
        host.versions.iter().map(|(part, version)| -> (Labels<'_>, f64) {
            (vec![("part", part.name()), ("version", version.as_str())], 1.0)
        }),
    )?;
    gauges(
        encoder,
        "netfast_ability",
        "1 if this host lets netfast do it, else 0 (netfast status and netfast check say what is lost without it).",
        host.abilities.iter().map(|(name, ability)| -> (Labels<'_>, f64) {
            (vec![("ability", name.as_str())], truth(ability.possible))
        }),
    )?;
    // The newest of each part alone, so that the series stay few.
    let mut newest: BTreeMap<Part, (&Updated, u64)> = BTreeMap::new();
    for update in &host.updates {
        newest.extend(
            update
                .updated
                .iter()
                .map(|updated| (updated.part, (updated, update.at_ms))),
        );
    }
    gauges(
        encoder,
        "netfast_update_timestamp_seconds",
        "When the kernel, the container engine or netfast was last found to be another version than before, since the epoch of \
         Unix; absent if it never was.",
        newest.iter().map(|(part, (updated, at_ms))| -> (Labels<'_>, f64) {
            let labels = vec![
                ("part", part.name()),
                ("from", updated.from.as_str()),
                ("to", updated.to.as_str()),
            ];
            (labels, *at_ms as f64 / 1000.0)
        }),
    )
}
