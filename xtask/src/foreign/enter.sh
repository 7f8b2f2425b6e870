# A test of others in namespaces and mounts of its own: nothing of the machine changes, and all of it goes with its end.
# $1: an empty directory for mounts; $2: the root; $3: the tests; $4: where what was seen goes; $5: the program, or nothing;
# $6: the test's directory below the tests; the rest: the test with its arguments.
set -e
dir=$1 lower=$2 tests=$3 seen=$4 program=$5 cwd=$6
shift 6
root=$dir/root
mkdir -p "$root" "$dir/layers"
mount -t tmpfs -o mode=755 tmpfs "$dir/layers"
mkdir "$dir/layers/upper" "$dir/layers/work"
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/layers/upper,workdir=$dir/layers/work" overlay "$root"
mkdir -p "$root/selftests" "$root/seen"
mount --bind "$tests" "$root/selftests"
mount --bind "$seen" "$root/seen"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    # Three words: name, kind, numbers.
    mknod -m 666 "$root/dev/${node%% *}" c ${node#* }
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir "$root/run/netns"
mkdir "$root/run/foreign"
path=/run/foreign:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if [ -e "$seen/ping" ]; then
    cp "$seen/ping" "$root/run/foreign/ping"
fi
if [ -n "$program" ]; then
    # Not in /sys, which `ip netns exec` mounts anew.
    mkdir "$root/run/foreign/bpf"
    mount -t bpf -o mode=700 bpf "$root/run/foreign/bpf"
    cp "$program" "$root/run/foreign/netfast"
    cp "$seen/ip" "$root/run/foreign/ip"
fi
run() {
    setpriv --bounding-set -sys_time,-sys_module,-sys_rawio \
        chroot "$root" env -i PATH="$path" HOME=/root TERM=dumb LC_ALL=C "$@"
}
run ip link set lo up
if [ -n "$program" ]; then
    run ip netfast-attach
fi
code=0
run sh -c 'cd "/selftests/$1" && shift && exec "$@"' test "$cwd" "$@" || code=$?
if [ -n "$program" ]; then
    run ip netfast-leave-all
fi
exit "$code"
