# sockperf between two namespaces on a bridge of this one, as containers on a host with iptables' rules. $1: udp or tcp; $2: seconds.
# iproute2's own `ip`: in the containers no netfast is attached, as on a host.
set -e
ip=/usr/sbin/ip
$ip link add br0 type bridge
$ip addr add 10.77.0.1/24 dev br0
$ip link set br0 up
for name in a b; do
    $ip netns add "$name"
    $ip link add "veth-$name" type veth peer name eth0 netns "$name"
    $ip link set "veth-$name" master br0 up
    $ip -n "$name" link set eth0 up
done
$ip -n a addr add 10.77.0.2/24 dev eth0
$ip -n b addr add 10.77.0.3/24 dev eth0
iptables -P FORWARD DROP
iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i br0 -o br0 -j ACCEPT
iptables -t nat -A POSTROUTING -s 10.77.0.0/24 ! -o br0 -j MASQUERADE
tcp=
[ "$1" = udp ] || tcp=--tcp
$ip netns exec b sockperf server $tcp -i 10.77.0.3 -p 7000 >/dev/null 2>&1 &
sleep 1
$ip netns exec a ping -c 1 -W 2 10.77.0.3 >/dev/null
# The daemon knows of both by then, and the connections of the warm-up are learned.
sleep 1
$ip netns exec a sockperf ping-pong $tcp -i 10.77.0.3 -p 7000 -m 64 -t "$2" --full-rtt
