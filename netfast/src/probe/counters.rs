//! Whether a container's interface counts the packets that `bpf_redirect_peer` delivers to it.
//!
//! A veth once showed as received what its other end had sent, and so nothing of what came by that helper (024ee930cb3c,
//! Linux 6.7). Stable kernels have that too, and no version tells; but with it came a type of the kernel's
//! (34d21de99cea), which all of them have that count.

use aya::Btf;
use aya_obj::btf::BtfKind;

use super::{ProbeError, Tried, kernel::Release};

/// What [`try_redirected`] calls it.
pub(super) const WHAT: &str = "counting of redirected packets";
const PURPOSE: &str = "count in the receiving container what the fast path delivers";
/// How devices of a driver count, as the driver says it since then.
const TYPE: &str = "netdev_stat_type";

/// Looks for it in the kernel's own type information.
pub(super) fn try_redirected(release: Release, types: Option<&Btf>) -> Tried {
    let found = types.is_some_and(|types| types.id_by_type_name_kind(TYPE, BtfKind::Enum).is_ok());
    tried(found, release)
}

fn tried(found: bool, release: Release) -> Tried {
    let missing = || ProbeError::Kernel {
        release,
        what: WHAT,
        purpose: PURPOSE,
        found_in: "Linux 6.7 and later, in 6.6 since December 2023 and in 6.1 since October 2024",
    };
    Tried {
        what: WHAT,
        without: Some(
            "received packets and bytes of containers (docker stats, netfast's metrics) lack most of what is on the fast path",
        ),
        outcome: if found {
            Ok(format!("to {PURPOSE}"))
        } else {
            Err(missing())
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_whose_veths_do_not_count_redirected_packets_is_told_with_what_lacks() {
        let release = Release { major: 5, minor: 15 };
        let lacking = tried(false, release);
        assert!(lacking.without.is_some_and(|lost| lost.contains("docker stats")));
        let error = lacking.outcome.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("kernel 5.15 has no counting of redirected packets")
        );
        assert!(error.remedy().contains("6.7"), "{}", error.remedy());
        assert!(tried(true, release).outcome.is_ok());
        assert!(
            try_redirected(release, None).outcome.is_err(),
            "without types nothing is known"
        );
    }
}
