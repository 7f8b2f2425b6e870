//! What is forwarded between uplinks is fast by the operator's wish, while nothing judges it.

use super::{
    reasons::after,
    rules::{finding, way},
    *,
};

/// Whether the uplinks may pass on to each other, and what is said.
fn planned(change: &dyn Fn(&mut Host, &mut Config)) -> (bool, Option<Result<(), String>>) {
    let desired = after(|host, config, _| {
        config.transit = true;
        change(host, config);
    });
    let mut uplinks = desired.devices.values().filter(|spec| spec.kind == Kind::Uplink);
    let may = uplinks.all(|spec| spec.flags & Device::ANY_SOURCE != 0);
    (may, desired.transit)
}

#[test]
fn uplinks_pass_on_to_each_other_where_it_is_wanted() {
    assert_eq!(planned(&|_, _| {}), (true, Some(Ok(()))));
    assert_eq!(planned(&|_, config| config.transit = false), (false, None));
}

#[test]
fn whatever_keeps_others_slow_keeps_them_slow() {
    let refused = |change: &dyn Fn(&mut Host, &mut Config), why: &str| {
        let (may, said) = planned(change);
        let said = said.expect("it is wanted").expect_err("it is not to be");
        assert!(!may && said.contains(why), "{said}");
    };
    refused(
        &|host, _| host.served_mut().sysctls.conntrack_acct = Some(true),
        "nf_conntrack_acct",
    );
    refused(
        &|host, _| host.served_mut().ruleset.unreadable = Some("no".into()),
        "cannot be read (no)",
    );
    let rule = |way: Way, severity| {
        move |host: &mut Host, _: &mut Config| {
            host.served_mut().ruleset.findings.push(RuleFinding {
                ways: [way.clone()].into(),
                ..finding("FORWARD", severity)
            });
        }
    };
    let of_others = way(false, Some("eth0"), Some("eth1"));
    refused(&rule(of_others.clone(), Severity::SlowPath), "must see every packet");
    let of_pings = Way {
        icmp: true,
        ..of_others
    };
    refused(&rule(of_pings, Severity::SlowEcho), "must see every packet");
    let of_host = planned(&rule(way(true, None, None), Severity::SlowPath));
    assert_eq!(of_host, (true, Some(Ok(()))));
    let allowed = planned(&|host, config| {
        host.served_mut().sysctls.conntrack_acct = Some(true);
        host.served_mut().ruleset.unreadable = Some("no".into());
        (config.allow_accounting, config.allow_rate_rules) = (true, true);
    });
    assert_eq!(allowed, (true, Some(Ok(()))));
}
