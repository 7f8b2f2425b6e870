//! Rules by which one packet changes what the next one meets.

use super::*;

/// `ct mark set ct mark and MASK xor FLIP`, with an operation of `NFTA_BITWISE_OP`.
fn mark_set(kept: [u8; 4], flip: [u8; 4], op: u32) -> Vec<Vec<u8>> {
    let change = [
        (1, be(1)),
        (2, be(1)),
        (3, be(4)),
        value(4, &kept),
        value(5, &flip),
        (6, be(op)),
    ];
    vec![
        expression("ct", &[(1, be(1)), (2, be(3))]),
        expression("bitwise", &change),
        expression("ct", &[(2, be(3)), (4, be(1))]),
    ]
}

fn slow(expressions: &[Vec<u8>]) -> Vec<&'static str> {
    let found = findings(expressions);
    let slow = found.iter().filter(|finding| finding.severity == Severity::SlowPath);
    slow.map(|finding| finding.what).collect()
}

#[test]
fn marks_that_are_another_each_time() {
    let all = [0xff; 4];
    assert_eq!(slow(&mark_set(all, [1, 0, 0, 0], 0)), ["toggle"], "xor 1");
    assert_eq!(
        slow(&mark_set([0xfe, 0xff, 0xff, 0xff], [1, 0, 0, 0], 0)),
        [""; 0],
        "or 1"
    );
    assert_eq!(slow(&mark_set([0xf0; 4], [0; 4], 0)), [""; 0], "and");
    assert_eq!(slow(&mark_set(all, [0; 4], 1)), ["toggle"], "shifted");
    // Compared, it decides by what it was.
    let compared = [
        &mark_set(all, [1, 0, 0, 0], 0)[..2],
        &[cmp(1, 0, &[1, 0, 0, 0]), drop()],
    ]
    .concat();
    assert_eq!(slow(&compared), [""; 0]);
}

#[test]
fn sets_that_packets_add_to() {
    let statement = |more: &[(u16, Vec<u8>)]| {
        let own = [(1, b"ok\0".to_vec()), (4, be(1))];
        vec![
            load(Header::Ip4, 12, 4, 1),
            expression("dynset", &[&own, more].concat()),
        ]
    };
    let time = |milliseconds: u64| (6, milliseconds.to_be_bytes().to_vec());
    assert_eq!(slow(&statement(&[(3, be(1)), time(500)])), ["brief set"], "update");
    assert_eq!(slow(&statement(&[(3, be(0)), time(2000)])), ["brief set"], "add");
    assert_eq!(slow(&statement(&[(3, be(1)), time(2001)])), [""; 0]);
    assert_eq!(slow(&statement(&[(3, be(1))])), [""; 0], "for as long as the set says");
    assert_eq!(slow(&statement(&[(3, be(2))])), ["toggle"], "delete");
}
