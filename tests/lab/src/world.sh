# Around a lab: makes its namespaces, and removes the only thing that outlives them.
#
# Standard input is a pipe that the lab's owner holds open. When the owner ends, in whatever way, `cat` ends, with it
# the first process of the pid namespace, and the kernel kills all others, takes the mounts, links and namespaces
# down and frees the tmpfs with all files of the nodes. Cgroups are not namespaced: they are removed by name.
#
# $1: the name of the lab, unique on this machine.
set -u

# shellcheck disable=SC2016 # expanded by the inner shell
unshare --mount --net --pid --fork --kill-child --mount-proc sh -euc '
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/disks
    ip link set lo up
    ip link add underlay type bridge mcast_snooping 0
    ip address add 192.168.77.1/24 dev underlay
    ip address add fd00:77::1/64 dev underlay nodad
    ip link set underlay up
    echo ready
    exec >/dev/null 2>&1
    cat
' world
status=$?

# The kernel needs a moment to empty the cgroups of killed processes.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    left=$(find /sys/fs/cgroup -depth -type d -path "*/$1*" 2>/dev/null)
    [ -n "$left" ] || break
    echo "$left" | xargs rmdir 2>/dev/null || sleep 0.1
done
exit $status
