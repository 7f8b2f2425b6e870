//! Reasons that several rows give, for people.

pub const RATE: &str =
    "judges by the rate of packets; on the fast path it would see about one packet per second and flow";
pub const RANDOM: &str =
    "judges packets at random or in rotation; the verdict on one packet says nothing about the next";
pub const AMOUNT: &str = "judges by the amount of traffic; most packets of a flow on the fast path are not counted";
pub const CONTENT: &str = "judges by the content or size of each packet";
pub const VARIES: &str = "judges by something in which the packets of one flow may differ";
pub const LOGGED: &str = "sees only the packets on the slow path: about one per second and flow";
pub const COUNTED: &str = "counts packets for accounting; most packets of a flow on the fast path are not counted";
pub const NOTICE: &str = "judges by something besides the packet that may change at any time without notice";
pub const REWRITTEN: &str =
    "changes header fields that a flow on the fast path may not differ in; such flows are not learned";
pub const OVERWRITTEN: &str = "changes header fields in which the packets of one flow may differ";
pub const HANDSHAKE: &str = "answers handshakes itself and shifts sequence numbers; such flows are not learned";
pub const TRACKING: &str =
    "sets a connection tracking helper, zone or timeout, or keeps the traffic from being tracked";
pub const MARKS: &str = "sets a mark or priority on each packet; packets on the fast path do not carry it further than the \
                     rules that they skip";
pub const SECURITY: &str =
    "sets what a security module judges each packet by; packets on the fast path do not carry it";
pub const ADDRESSES: &str = "addresses, and what the host knows of them, are the same for all packets of a flow";
pub const CONNECTION: &str =
    "what conntrack knows of the connection; a change takes effect within the revalidation interval";
pub const DEVICES: &str = "interfaces are part of the flow";
pub const OWNER: &str = "the socket that sends or receives; all packets of a flow have the same";
pub const HEADERS: &str = "fast packets have no IP options and no extension headers";
pub const PROTOCOLS: &str = "neither TCP, UDP nor ICMP";
pub const MECHANICS: &str = "operates on registers; what they hold is classified where it is loaded";
pub const VERDICT: &str = "a verdict";
pub const TRANSLATION: &str = "decided by a connection's first packet; the translation is part of the flow";
pub const SETS: &str = "adds addresses to a set from packets; on the fast path they are refreshed about once per second and \
                    flow";
pub const BRIEF: &str =
    "keeps what packets add to a set for so short that about one packet per second and flow does not keep it there";
pub const TOGGLES: &str =
    "changes what the next packet meets; on the fast path it would see about one packet per second and flow";
pub const TIME: &str = "judges by the time of day; a change takes effect within the revalidation interval";
pub const CONNECTIONS: &str = "counts connections; those are still established on the slow path";
pub const HELPER: &str = "a connection tracking helper reads the payload of this traffic";
