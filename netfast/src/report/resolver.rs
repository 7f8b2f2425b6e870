//! Docker's rules for its resolver in containers, as all reports show them: in how many they are replaced, and why not in others.

use std::fmt::Write as _;

use crate::plan::ResolverReport;

/// In one line; `None`: nobody wants it.
pub fn summary<'a>(reports: impl IntoIterator<Item = &'a ResolverReport>) -> Option<String> {
    let all: Vec<&ResolverReport> = reports.into_iter().collect();
    let on = all.iter().filter(|report| report.on).count();
    let of = match (on, all.len()) {
        (_, 0) => return None,
        (on, all) if on == all => format!("replaced in all of {all} containers"),
        (on, all) => format!("replaced in {on} of {all} containers"),
    };
    let missing: Vec<&&ResolverReport> = all.iter().filter(|report| !report.on).collect();
    let mut text = of;
    for report in missing.iter().take(SHOWN) {
        let why = report.why.as_deref().unwrap_or("not done yet");
        let _ = write!(text, "; not in {}: {why}", report.container);
    }
    if missing.len() > SHOWN {
        let _ = write!(text, "; nor in {} others", missing.len() - SHOWN);
    }
    Some(text)
}

/// How many containers are named; the rest is in the JSON.
const SHOWN: usize = 2;

/// Of one container.
pub fn of_container(report: &ResolverReport) -> String {
    match (&report.why, report.on) {
        (_, true) => {
            "Docker's rules for its resolver are out of the way of its packets; netfast does what they did".into()
        }
        (Some(why), false) => format!("Docker's rules for its resolver stay in the way of its packets: {why}"),
        (None, false) => "Docker's rules for its resolver are still in the way of its packets".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(container: &str, why: Option<&str>) -> ResolverReport {
        ResolverReport {
            container: container.into(),
            networks: vec!["shop".into()],
            on: why.is_none(),
            why: why.map(Into::into),
        }
    }

    #[test]
    fn how_many_and_why_not_others() {
        assert_eq!(summary(&[]), None);
        let all = [report("a", None), report("b", None)];
        assert_eq!(summary(&all).as_deref(), Some("replaced in all of 2 containers"));
        let some = [
            report("a", None),
            report("b", Some("there is the nftables table inet mesh")),
            report("c", Some("x")),
            report("d", Some("y")),
        ];
        assert_eq!(
            summary(&some).as_deref(),
            Some(
                "replaced in 1 of 4 containers; not in b: there is the nftables table inet mesh; not in c: x; nor in 1 others"
            )
        );
    }
}
