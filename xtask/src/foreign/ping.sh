#!/bin/sh
# `ping` for tests that send one echo and ask only whether it comes back: thirty in its place, so that there are packets which can be fast. One to
# everybody (-b) stays one.
real=/usr/bin/ping
for word; do
    [ "$word" != -b ] || exec "$real" "$@"
done
before=
for word; do
    shift
    case "$before $word" in
    "-c 1") word=30 ;;
    *" -c1") word=-c30 ;;
    esac
    before=$word
    set -- "$@" "$word"
done
exec "$real" -i 0.1 "$@"
