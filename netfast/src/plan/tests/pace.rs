//! When flows ask the kernel.

use super::reasons::after;
use crate::host::Sysctls;

#[test]
fn flows_ask_before_conntrack_forgets_them() {
    let every = |udp: Option<u32>, stream: Option<u32>| {
        let desired = after(|host, _, _| {
            host.served_mut().sysctls.conntrack_udp_timeout = udp;
            host.served_mut().sysctls.conntrack_udp_timeout_stream = stream;
        });
        desired.pace.revalidate_ns / 1_000_000
    };
    assert_eq!(every(Some(30), Some(120)), 1000);
    assert_eq!(every(None, None), 1000);
    assert_eq!(every(Some(30), Some(1)), 333);
    assert_eq!(every(Some(2), Some(120)), 666);
    for set in [
        |sysctls: &mut Sysctls| sysctls.conntrack_icmp_timeout = Some(2),
        |sysctls: &mut Sysctls| sysctls.conntrack_icmpv6_timeout = Some(2),
    ] {
        let desired = after(|host, _, _| set(&mut host.served_mut().sysctls));
        assert_eq!(desired.pace.revalidate_ns / 1_000_000, 666);
    }
    // Then nobody's conversation outlives its packet.
    assert_eq!(every(Some(0), Some(120)), 1000);
}
