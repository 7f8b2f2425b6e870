use std::{
    env, fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use proptest::prelude::*;

use super::*;

fn redacted(text: &str) -> String {
    let mut redactor = Redactor::default();
    redactor.know(Kind::Container, "web");
    redactor.know(Kind::Network, "acme_prod");
    redactor.redact(text)
}

#[test]
fn what_is_harmless_stays_and_the_rest_gets_pseudonyms() {
    for (text, wanted) in [
        // Its own words, numbers, private addresses, interfaces as they are made.
        ("in sync: 12 endpoints, 3.5 s", "in sync: 12 endpoints, 3.5 s"),
        (
            "10.1.2.3 -> 172.17.0.2:80, eth0, veth1a2b3c4",
            "10.1.2.3 -> 172.17.0.2:80, eth0, veth1a2b3c4",
        ),
        (
            "enp3s0f1 and docker0; 255.255.240.0",
            "enp3s0f1 and docker0; 255.255.240.0",
        ),
        // Names that are known, also within longer ones, but not within other words.
        (
            "web, WEB and acme_prod-web",
            "container-1, container-1 and network-1-container-1",
        ),
        // Names that nobody knows.
        ("container frobnicator-7 is gone", "container word-1 is gone"),
        ("/home/zaphod/netfast.toml", "/home/word-1/netfast.toml"),
        ("tcp://db.zaphod.example:2375", "tcp://word-1:2375"),
        ("zaphod@beeblebrox", "word-1@word-2"),
        ("ip-203-0-113-9.internal", "word-1"),
        ("größe", "word-1"),
        // Addresses, in each form once.
        (
            "203.0.113.9:443 203.0.113.9/24 [2001:db8::1]:80",
            "ipv4-1:443 ipv4-1/24 [ipv6-1]:80",
        ),
        (
            "2001:DB8:0::1: refused; ::1; fe80::42%eth0",
            "ipv6-1: refused; ::1; ipv6-2%eth0",
        ),
        (
            "02:42:AC:11:00:02 02-42-ac-11-00-02 ff:ff:ff:ff:ff:ff",
            "mac-1 mac-1 ff:ff:ff:ff:ff:ff",
        ),
        ("cmp 0x01020304", "cmp word-1"),
        // Identifiers, short and long.
        ("br-0123456789ab 0123456789abcdef0123456789abcdef", "br-id-1 id-1"),
    ] {
        assert_eq!(redacted(text), wanted, "{text}");
    }
}

#[test]
fn the_same_thing_has_the_same_pseudonym_in_all_texts() {
    let mut redactor = Redactor::default();
    let first = redactor.redact("zaphod at 198.51.100.1");
    let second = redactor.redact("trillian, 198.51.100.1, Zaphod");
    assert_eq!(
        (first.as_str(), second.as_str()),
        ("word-1 at ipv4-1", "word-2, ipv4-1, word-1")
    );
}

#[test]
fn names_that_everybody_has_stay() {
    let mut redactor = Redactor::default();
    for name in ["bridge", "host", "none", "netfast"] {
        redactor.know(Kind::Network, name);
    }
    for value in ["true", "1", "60s"] {
        redactor.know(Kind::Label, value);
    }
    assert_eq!(redactor.names(), 0);
    assert_eq!(redactor.redact("bridge, host, netfast"), "bridge, host, netfast");
}

/// A secret with what it is, and whether it is made known.
#[derive(Clone, Debug)]
struct Secret {
    text: String,
    kind: Option<Kind>,
}

fn public4() -> impl Strategy<Value = String> {
    let is_public = |ip: &Ipv4Addr| !is_nobodys((*ip).into());
    any::<u32>()
        .prop_map(Ipv4Addr::from)
        .prop_filter("a private address stays", is_public)
        .prop_map(|ip| ip.to_string())
}

fn secrets() -> impl Strategy<Value = Vec<Secret>> {
    let known = |kind| move |text| Secret { text, kind: Some(kind) };
    let unknown = |text| Secret { text, kind: None };
    // Docker's rule for names; any of them may be a word of netfast's.
    let names = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}[a-zA-Z0-9]";
    // What nobody makes known has to have a part that is no word of the messages.
    let is_no_word = |name: &String| !is_interface(name) && scan::runs(name).any(|run| !is_harmless(run));
    let mac = any::<[u8; 6]>().prop_map(|bytes| bytes.map(|byte| format!("{byte:02x}")).join(":"));
    let is_somebodys = |mac: &String| !["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"].contains(&mac.as_str());
    let one = prop_oneof![
        names.prop_map(known(Kind::Container)),
        names.prop_map(known(Kind::Network)),
        names.prop_map(known(Kind::Host)),
        "\\PC{1,12}[a-z]"
            .prop_map(|text: String| text.trim().to_owned())
            .prop_map(known(Kind::Label)),
        names.prop_filter("words stay", is_no_word).prop_map(unknown),
        public4().prop_map(unknown),
        any::<u128>()
            .prop_filter("loopback", |bits| *bits > 1)
            .prop_map(move |bits| unknown(Ipv6Addr::from(bits).to_string())),
        mac.prop_filter("everybody's", is_somebodys).prop_map(unknown),
        "[0-9a-f]{11}[a-f]([0-9a-f]{52})?".prop_map(unknown),
    ];
    let is_secret = |secret: &Secret| {
        let name = secret.text.to_ascii_lowercase();
        let is_word = secret.kind == Some(Kind::Label) && is_harmless(&name);
        !is_word && !NOBODYS.contains(&name.as_str())
    };
    prop::collection::vec(one.prop_filter("everybody has it", is_secret), 1..8)
}

/// How texts go on around names: whatever is no letter, digit, or part of a longer name or address.
const AROUND: [(&str, &str); 8] = [
    ("cannot attach to ", ": No such device"),
    ("\"", "\""),
    ("container ", " is gone\n"),
    ("[", "]:80"),
    ("from ", ", to the host"),
    ("(", ")"),
    ("network=", " in sync"),
    ("/", "/24"),
];

/// Whether it is there as itself, and not as part of a longer word: a container may be called `a`.
fn has(text: &str, secret: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let secret = secret.to_ascii_lowercase();
    let is_apart = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
    text.match_indices(&secret)
        .any(|(at, _)| is_apart(text[..at].chars().next_back()) && is_apart(text[at + secret.len()..].chars().next()))
}

/// What a redactor itself says: a container that is called `container`, or `2`, cannot be told from it.
fn is_of_pseudonyms(secret: &str) -> bool {
    let secret = secret.to_ascii_lowercase();
    scan::runs(&secret).all(|run| {
        run.bytes().all(|byte| byte.is_ascii_digit())
            || [
                "container",
                "network",
                "alias",
                "host",
                "label",
                "id",
                "ipv4",
                "ipv6",
                "mac",
                "word",
            ]
            .contains(&run)
    })
}

proptest! {
    #[test]
    fn nothing_secret_is_in_any_part(secrets in secrets(), places in prop::collection::vec((0..8_usize, 0..8_usize), 1..24)) {
        let mut redactor = Redactor::default();
        for secret in &secrets {
            if let Some(kind) = secret.kind {
                redactor.know(kind, &secret.text);
            }
        }
        // Several parts, each with some of the secrets.
        let parts = places.chunks(6).map(|places| {
            let texts = places.iter().map(|(which, around)| {
                let (before, after) = AROUND[*around];
                format!("{before}{}{after}", secrets[which % secrets.len()].text)
            });
            redactor.redact(&texts.collect::<String>())
        });
        let parts: Vec<String> = parts.collect();
        for secret in secrets.iter().filter(|secret| !is_of_pseudonyms(&secret.text)) {
            for part in &parts {
                prop_assert!(!has(part, &secret.text), "{secret:?} is in {part:?}");
            }
        }
    }
}

/// The strings in a source, without comments and tests: enough of Rust's syntax for that.
fn strings(source: &str) -> String {
    let source = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = String::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        // Every second part is within quotes; a line that only has the end of a string counts as one.
        let line = line.replace("\\\"", " ").replace("'\"'", " ");
        let parts: Vec<&str> = line.split('"').collect();
        if parts.len() == 1 && !line.contains("::") && !line.trim_end().ends_with([';', '{', '}', ',', ')']) {
            found.push_str(&line);
        }
        for part in parts.iter().skip(1).step_by(2) {
            found.push_str(part);
            found.push(' ');
        }
        if parts.len() == 2 && !line.trim_end().ends_with('\\') {
            found.push_str(parts[0]);
        }
        found.push(' ');
    }
    found
}

fn sources(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            found.extend(scan::words(&strings(&fs::read_to_string(&path).expect("a source"))));
        }
    }
}

/// A word that is missing makes reports less readable, not less safe: so a few may be, until somebody writes them down.
#[test]
fn the_words_are_those_of_the_messages() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for dir in ["src", "../netfast-common/src"] {
        sources(&package.join(dir), &mut found);
    }
    found.retain(|word| word.len() > 1);
    if env::var_os("NETFAST_WRITE_TABLES").is_some() {
        let lines = found.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        fs::write(package.join("src/report/redact/words.txt"), lines + "\n").expect("written");
        return;
    }
    let written: BTreeSet<String> = scan::words(OWN_WORDS).collect();
    let missing: Vec<_> = found.difference(&written).collect();
    let stale: Vec<_> = written.difference(&found).collect();
    assert!(
        missing.len() + stale.len() < found.len() / 20,
        "NETFAST_WRITE_TABLES=1 writes them; missing {missing:?}, stale {stale:?}"
    );
}
