//! What a text begins with: addresses, identifiers, names.

use std::net::IpAddr;

/// Bytes of a MAC address as text.
const MAC_LENGTH: usize = 17;
/// The longest address of IPv6 as text, with one of IPv4 at its end.
const ADDRESS_LENGTH: usize = 45;

/// The words in a text, in lower case: letters without anything between them.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphabetic());
    words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

/// Letters and digits at the beginning.
pub(super) fn alphanumeric(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len())]
}

/// What may be the name of a container, a host or a file at the beginning, without marks at its end.
pub(super) fn name(text: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || "_.-".contains(c);
    let name = &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())];
    name.trim_end_matches(['.', '-', '_'])
}

/// The parts of a name that are letters and digits.
pub(super) fn runs(name: &str) -> impl Iterator<Item = &str> {
    name.split(['.', '-', '_']).filter(|run| !run.is_empty())
}

/// A MAC address at the beginning, in lower case with colons.
pub(super) fn mac(text: &str) -> Option<(usize, String)> {
    let mac = text.get(..MAC_LENGTH)?;
    let ends = !text[MAC_LENGTH..].chars().next().is_some_and(char::is_alphanumeric);
    let is_one = mac.bytes().enumerate().all(|(at, byte)| match at % 3 {
        2 => byte == b':' || byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    (is_one && ends).then(|| (MAC_LENGTH, mac.to_ascii_lowercase().replace('-', ":")))
}

/// An IP address at the beginning: the longest that nothing goes on after.
pub(super) fn address(text: &str) -> Option<(usize, IpAddr)> {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let run = text.bytes().take_while(is_part).take(ADDRESS_LENGTH).count();
    (2..=run).rev().find_map(|length| {
        let (address, rest) = text.split_at(length);
        let goes_on = rest.chars().next().is_some_and(char::is_alphanumeric);
        (!goes_on).then_some((length, address.parse().ok()?))
    })
}

/// Whether these letters and digits are an identifier as engines give them: hexadecimal, twelve digits or more. Digits
/// alone may be a number.
pub(super) fn is_identifier(run: &str) -> bool {
    run.len() >= super::ID_DIGITS
        && run.bytes().all(|byte| byte.is_ascii_hexdigit())
        && run.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether an address of IPv4 may be in a name, as providers make names of hosts: `ip-192-0-2-1`.
pub(super) fn is_dashed_address(name: &str) -> bool {
    let is_number = |run: &&str| run.bytes().all(|byte| byte.is_ascii_digit());
    name.contains(['-', '_']) && runs(name).filter(is_number).count() >= 4
}

/// Whether the kernel, the service manager or an engine gives such names to interfaces: `eth0`, `enp3s0f1`, `veth1a2b3c4`.
pub(super) fn is_interface(name: &str) -> bool {
    const MADE: [&str; 17] = [
        "eth", "veth", "docker", "podman", "cni", "flannel", "bond", "br", "lo", "wg", "tun", "tap", "vxlan", "virbr",
        "dummy", "cali", "vlan",
    ];
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 11 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if MADE
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .any(|rest| is_number(rest) && rest.bytes().any(|byte| byte.is_ascii_digit()))
    {
        return true;
    }
    // systemd.net-naming-scheme(7): letters, each with its number.
    let Some(place) = name.strip_prefix("en").or_else(|| name.strip_prefix("wl")) else {
        return false;
    };
    let bytes = place.as_bytes();
    let is_placed = |pair: &[u8]| !pair[0].is_ascii_alphabetic() || pair[1].is_ascii_digit();
    (2..=11).contains(&bytes.len())
        && bytes[0].is_ascii_alphabetic()
        && bytes[bytes.len() - 1].is_ascii_digit()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"opsfdniuvab".contains(byte))
        && bytes.windows(2).all(is_placed)
}
