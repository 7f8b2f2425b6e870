//! What a run of a test said: how it ended, how many of its cases were well, why it was not run.

/// kselftest's exit code of a test that this machine cannot run.
const SKIPPED: i32 = 4;
/// timeout(1)'s.
const TOO_LONG: i32 = 124;
/// How much of a reason is shown.
const MAX_REASON: usize = 90;

/// How one run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None`: it was killed.
    code: Option<i32>,
    /// Cases that it says were well, and that were not.
    well: usize,
    failed: usize,
    /// Why it was skipped or failed, in its words.
    reason: String,
    /// What the netfasts counted.
    pub counted: Counted,
}

/// What the netfasts of one run counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Network namespaces that one was attached in.
    pub namespaces: usize,
    /// Packets on the fast path.
    pub fast: u64,
    /// Packets that it saw and left to the kernel.
    pub slow: u64,
}

impl Outcome {
    /// From its exit code, what it printed, and the lines of ip.sh (namespace, how it is, fast and slow packets).
    pub fn new(code: Option<i32>, output: &str, counted: &str) -> Self {
        let mut this = Self {
            code,
            counted: Counted::of(counted),
            ..Self::default()
        };
        // A test that speaks TAP, too, tells each case twice.
        let speaks_tap = output.lines().any(is_tap);
        for line in output.lines().filter(|line| !speaks_tap || is_tap(line)) {
            match verdict(line) {
                Some(true) => this.well += 1,
                Some(false) => this.failed += 1,
                None => {}
            }
        }
        if code != Some(0) {
            this.reason = reason(output);
        }
        this
    }

    /// Whether it ended worse, or with fewer cases well.
    pub fn is_worse_than(&self, plain: &Self) -> bool {
        let rank = |code: Option<i32>| match code {
            Some(0) => 0,
            Some(SKIPPED) => 1,
            _ => 2,
        };
        rank(self.code) > rank(plain.code) || self.well < plain.well || self.failed > plain.failed
    }

    /// As a cell of the table.
    pub fn words(&self) -> String {
        let cases = match (self.well, self.failed) {
            (0, 0) => String::new(),
            (well, 0) => format!(", {well} ok"),
            (well, failed) => format!(", {well} ok, {failed} not"),
        };
        let reason = if self.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", self.reason)
        };
        match self.code {
            Some(0) => format!("passes{cases}"),
            Some(SKIPPED) => format!("skips{cases}{reason}"),
            Some(TOO_LONG) | None => format!("takes too long{cases}"),
            Some(_) => format!("fails{cases}{reason}"),
        }
    }
}

impl Counted {
    /// From the lines of ip.sh.
    pub fn of(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            let [_, "attached", fast, slow] = words[..] else {
                continue;
            };
            this.namespaces += 1;
            this.fast += fast.parse().unwrap_or(0);
            this.slow += slow.parse().unwrap_or(0);
        }
        this
    }
}

/// Whether a line tells of a case as the Test Anything Protocol does: `ok 1 - name`, `not ok 2 - name`.
fn is_tap(line: &str) -> bool {
    let line = line.trim();
    let rest = line.strip_prefix("not ").unwrap_or(line).strip_prefix("ok ");
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Whether a line says of one case that it is well, or that it is not: in the forms that the kernel's tests have.
fn verdict(line: &str) -> Option<bool> {
    let line = line.trim();
    let is_any = |words: &[&str], ends: bool| {
        words.iter().any(|word| {
            if ends {
                line.ends_with(word)
            } else {
                line.starts_with(word)
            }
        })
    };
    if is_any(&["[FAIL]", "[fail]", "[ FAIL ]", "failed"], true)
        || is_any(&["not ok ", "FAIL:", "FAIL ", "ERROR:"], false)
    {
        return Some(false);
    }
    let is_well = is_any(&["[ OK ]", "[OK]", "[ ok ]", "[ OK  ]", " ok"], true)
        || is_any(&["ok ", "PASS:", "PASS ", "OK:"], false);
    is_well.then_some(true)
}

/// The last line that tells why, or the last one at all.
fn reason(output: &str) -> String {
    let tells = [
        "SKIP",
        "skip",
        "FAIL",
        "ERROR",
        "not found",
        "not supported",
        "Unknown",
        "Could not",
    ];
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    let found = lines()
        .find(|line| tells.iter().any(|word| line.contains(word)))
        .or_else(|| lines().next_back());
    let words = found
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    words.replace('|', "/").chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_in_all_their_forms() {
        let output = "TEST: ping                                [ OK ]\nTEST: ping6  [FAIL]\n\tping failed because\nPASS: nat\n\
                      ERROR: no route\nFAIL: z\nWords.\n";
        let outcome = Outcome::new(Some(1), output, "");
        assert_eq!((outcome.well, outcome.failed), (2, 3));
        assert_eq!(outcome.words(), "fails, 2 ok, 3 not: TEST: ping6 [FAIL]");
        // mptcp_connect.sh tells each twice.
        let output = "ns1 MPTCP -> ns2 MPTCP\t(duration   83ms) [ OK ]\nns1 TCP -> ns2 [FAIL]\nok 1 - x # time=83ms\nnot ok 2 - y\n";
        let outcome = Outcome::new(Some(1), output, "");
        assert_eq!((outcome.well, outcome.failed), (1, 1));
    }

    #[test]
    fn fewer_cases_are_worse_and_a_skipped_test_is_not() {
        let of = |code, output| Outcome::new(Some(code), output, "");
        assert!(of(0, "PASS: a").is_worse_than(&of(0, "PASS: a\nPASS: b")));
        assert!(of(1, "").is_worse_than(&of(0, "")));
        assert!(of(4, "").is_worse_than(&of(0, "")));
        assert!(!of(4, "SKIP: no vrf").is_worse_than(&of(4, "SKIP: no vrf")));
        assert!(!of(0, "PASS: a").is_worse_than(&of(1, "FAIL: a")));
        assert_eq!(of(4, "SKIP: no vrf").words(), "skips: SKIP: no vrf");
    }

    #[test]
    fn what_was_counted_is_summed() {
        let counted = Counted::of("ns0\tattached\t7\t9\nns1\tattached\t1\t1\nns2 not-attached 0 0\n");
        assert_eq!((counted.namespaces, counted.fast, counted.slow), (2, 8, 10));
    }
}
