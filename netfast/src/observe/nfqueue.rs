//! Which NFQUEUE queues a program listens on.

use std::collections::BTreeSet;
use std::{fs, io};

/// The queues of the calling thread's namespace, from /`proc/net/netfilter/nfnetlink_queue`: one line per queue, which
/// begins with its number. Empty when the kernel has no `nfnetlink_queue`.
pub fn bound() -> io::Result<BTreeSet<u16>> {
    match fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue") {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> BTreeSet<u16> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded() {
        let text = "    0  31337     0 2 65531     0     0        0  1\n65535   4711     0 1    80     0     0       12  1\n\n";
        assert_eq!(parse(text), BTreeSet::from([0, 65535]));
        assert_eq!(parse(""), BTreeSet::new());
        assert_eq!(parse("gibberish\n70000 1\n"), BTreeSet::new());
    }
}
