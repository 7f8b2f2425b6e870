#!/bin/sh
# `ip` as the test finds it: in each network namespace that it makes, a netfast is attached before the test goes on; before it
# takes the namespace away, what was counted there is written down. All else is iproute2's.
real=/usr/sbin/ip
state=/run/foreign/state

netfast() { # the namespace, or nothing for the test's own; then the command
    name=$1
    shift
    enter=
    [ -z "$name" ] || enter="nsenter --net=/run/netns/$name"
    $enter /run/foreign/netfast --pin-dir "/run/foreign/bpf/n-$name" --run-dir "$state/n-$name" "$@"
}

attach() {
    mkdir -p "$state"
    [ -e "$state/config" ] || printf 'metrics = ""\nflows = 4096\nlearn_after = 0\ntransit = true\n' >"$state/config"
    namespace=${1:+/run/netns/$1}
    # Replaced by the program, so that its number is the program's: see "netns pids".
    (
        exec nsenter "--net=${namespace:-/proc/self/ns/net}" /run/foreign/netfast --pin-dir "/run/foreign/bpf/n-$1" --run-dir "$state/n-$1" \
            run --runtime none --config "$state/config" >"/seen/daemon-$1.log" 2>&1 </dev/null
    ) &
    echo $! >"$state/pid-$1"
    tries=0
    until netfast "$1" status --json 2>/dev/null | grep -q '"in_sync": *true'; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then
            echo "$1 not-attached 0 0" >>/seen/counted
            return
        fi
        sleep 0.05
    done
}

leave() {
    [ -e "$state/pid-$1" ] || return 0
    netfast "$1" status --json 2>/dev/null |
        jq -r --arg name "$1" '[$name, "attached", .totals.fast_packets, .totals.slow_packets] | @tsv' >>/seen/counted
    netfast "$1" status --verbose >"/seen/status-$1" 2>&1
    netfast "$1" detach >/dev/null 2>&1
    rm -f "$state/pid-$1"
}

case "$1 $2" in
"netfast-attach "*)
    attach ""
    ;;
"netfast-leave-all "*)
    for file in "$state"/pid-*; do
        leave "${file#"$state"/pid-}"
    done
    ;;
"netns add")
    "$real" "$@" || exit
    attach "$3"
    ;;
"netns del" | "netns delete")
    leave "$3"
    exec "$real" "$@"
    ;;
"netns pids")
    # The test's own processes, which it may end.
    "$real" "$@" | grep -vxF "$(cat "$state"/pid-* 2>/dev/null)"
    ;;
*)
    exec "$real" "$@"
    ;;
esac
