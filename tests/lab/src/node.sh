# The first process of a node: gives it places of its own for everything that a node's software writes to.
#
# $1: the node's disk, which outlives a reboot. $2: `new` for a new boot id, as after a reboot of a machine; `same`
# for the old one, as after the restart of a node that is a container. $3: the node's name.
set -eu
disk=$1

if [ ! -d "$disk/etc" ]; then
    mkdir -p "$disk/opt/cni/bin" "$disk/var/lib" "$disk/var/log" "$disk/var/tmp"
    ln -s /run "$disk/var/run"
    cp -a /etc "$disk/etc"
    # This machine's may be a link into its own /run; containerd copies the file into each pod.
    rm -rf "$disk/etc/resolv.conf" "$disk/etc/cni"
    echo 'nameserver 192.168.77.1' >"$disk/etc/resolv.conf"
    mkdir -p "$disk/etc/cni/net.d" "$disk/etc/containerd"
fi
for directory in etc opt var; do
    mount --bind "$disk/$directory" /$directory
done
if [ "$2" = new ]; then
    cat /proc/sys/kernel/random/uuid >"$disk/boot_id"
fi
mount --bind "$disk/boot_id" /proc/sys/kernel/random/boot_id
# Last, as it hides the disks.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/tmp

# Whatever this machine's own settings are: a node starts as a fresh Debian does.
echo 0 >/proc/sys/net/ipv4/ip_forward
for scope in all default; do
    echo 0 >/proc/sys/net/ipv6/conf/$scope/disable_ipv6
done
ip link set lo up
hostname "$3"

echo ready
exec >/dev/null 2>&1
# Not exec'ed: this shell is the one that reaps what is orphaned on the node.
sleep infinity
