//! The list of targets.

use std::str;

use netfast::fuzz_entry;

use crate::{dns, parse, programs, vip};

/// Something to be fuzzed.
pub struct Target {
    /// Its name, and that of its file in tests/corpus.
    pub name: &'static str,
    /// Takes an input; panics if it finds something.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "parse",
        run: parse::parse_one,
    },
    Target {
        name: "programs",
        run: programs::fuzz,
    },
    Target {
        name: "dns",
        run: dns::fuzz,
    },
    Target {
        name: "vip",
        run: vip::fuzz,
    },
    Target {
        name: "config",
        run: |bytes| text(bytes, fuzz_entry::config),
    },
    Target {
        name: "engine",
        run: |bytes| text(bytes, fuzz_entry::engine),
    },
    Target {
        name: "rtnetlink",
        run: fuzz_entry::rtnetlink,
    },
    Target {
        name: "nftables",
        run: fuzz_entry::nftables,
    },
    Target {
        name: "conntrack",
        run: fuzz_entry::conntrack,
    },
    Target {
        name: "iptables",
        run: fuzz_entry::iptables,
    },
    Target {
        name: "ebtables",
        run: fuzz_entry::ebtables,
    },
];

fn text(bytes: &[u8], read: impl Fn(&str)) {
    if let Ok(text) = str::from_utf8(bytes) {
        read(text);
    }
}

#[cfg(test)]
mod tests {
    use netfast_tests::corpus;

    use super::*;

    /// What the fuzzer found once is found no more, and what it kept still covers its ground.
    #[test]
    fn the_kept_corpus_passes() {
        for target in &TARGETS {
            let kept = corpus::read(target.name).expect("the target has a corpus");
            assert!(!kept.is_empty(), "no input of {}", target.name);
            for (name, input) in &kept {
                // Told if the target panics.
                println!("cargo xtask fuzz {} --input {name}", target.name);
                (target.run)(&input.bytes);
            }
            println!("{}: {} inputs", target.name, kept.len());
        }
    }
}
