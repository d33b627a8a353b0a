//! What each page assumes of the node that its reader is on, in shell.

/// A page with commands for a node.
pub(super) struct Page {
    pub document: &'static str,
    /// What is done before a line is typed, with the line; with "" what comes before all of them.
    pub before: &'static [(&'static str, &'static str)],
    /// Lines that end with status 1, as the page says.
    pub fails: &'static [&'static str],
    /// What must be so in the end.
    pub after: &'static str,
}

impl Page {
    pub(super) fn before(&self, line: &str) -> &'static str {
        self.before.iter().find(|(wanted, _)| *wanted == line).map_or("", |(_, script)| script)
    }
}

/// A node of the documents, and what the pages do to it. systemd has no place in a namespace: only that it is called is
/// noted.
pub(super) const COMMON: &str = r#"
exec >printed
export PATH=$PWD/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
printf '#!/bin/sh\necho "$*" >>%s/systemctl\n' "$PWD" >bin/systemctl
chmod +x bin/systemctl
rm -rf /etc/cni
sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=1
# None of type veth, which pods have; and it takes any packet.
ip link add eth0 type ifb
ip address add 192.168.1.11/24 dev eth0
ip address add fd00:1::11/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 192.168.1.1

# The conflist of this repository, changed by a filter of jq.
install_ferrule() {
    install -D dist/ferrule /opt/cni/bin/ferrule
    install -D dist/ferrulectl /usr/local/bin/ferrulectl
    mkdir -p /etc/cni/net.d
    jq "$1" conf/10-ferrule.conflist >/etc/cni/net.d/10-ferrule.conflist
    conf=$(jq -c '.plugins[0] + {name, cniVersion: "1.1.0"}' /etc/cni/net.d/10-ferrule.conflist)
}
# The variables of a pod: namespace/name, container id.
with_pod() {
    export CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0
    export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=${1%/*};K8S_POD_NAME=${1#*/}"
}
pod() {
    ip netns add "$2"
    (with_pod "$@"; echo "$conf" | CNI_COMMAND=ADD /opt/cni/bin/ferrule)
}
# A pod ends without a word to anybody. The kernel removes its link in its own time.
end_pod() {
    ip netns del "$1"
    while ip link show dev "$2"; do sleep 0.01; done
}
# Pods of ferrule's.
end_pods() {
    for name in "$@"; do
        link=$(jq -r .hostLink "/var/lib/cni/ferrule/"*"/by-id/$name@eth0")
        end_pod "$name" "$link"
    done
}
# A network of bridge and host-local, as flannel has it, and a pod of it that the runtime remembers.
old='{"cniVersion": "1.0.0", "name": "cbr0", "type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}'
old_pod() {
    ip netns add "$2"
    mkdir -p /var/lib/cni/results
    result=$(with_pod "$@"; echo "$old" | CNI_COMMAND=ADD CNI_PATH=/usr/lib/cni /usr/lib/cni/bridge) ||
        { echo "$result" >&2; exit 1; }
    jq --arg id "$2" --arg namespace "${1%/*}" --arg name "${1#*/}" '{
            kind: "cniCacheV1", containerId: $id, config: "e30=", ifName: "eth0", networkName: "cbr0",
            netns: "/run/netns/\($id)", cniArgs: [["K8S_POD_NAMESPACE", $namespace], ["K8S_POD_NAME", $name]],
            result: .}' <<<"$result" >"/var/lib/cni/results/cbr0-$2-eth0"
}
"#;

/// The two other nodes of the documents, for `install_ferrule`.
macro_rules! with_peers {
    () => {
        r#"
peers='.plugins[0] += {nodeIPs: ["192.168.1.11", "fd00:1::11"], peers: [
    {node: "node-b", podCIDRs: ["10.244.2.0/24"], nodeIPs: ["192.168.1.12"]},
    {node: "node-c", podCIDRs: ["10.244.3.0/24"], nodeIPs: ["192.168.1.13"]}]}'
both_families='.plugins[0].ipam |= (.ranges += [[{subnet: "fd00:10:244:1::/64"}]] | .routes += [{dst: "::/0"}])'
"#
    };
}

pub(super) const PAGES: &[Page] = &[
    Page {
        document: "README.md",
        before: &[],
        fails: &[],
        after: "[ \"$(jq -r .name /etc/cni/net.d/*)\" = podnet ] && [ -x /opt/cni/bin/ferrule ]",
    },
    Page {
        document: "docs/cli.md",
        before: &[
            (
                "",
                concat!(
                    with_peers!(),
                    "
install_ferrule \"$peers | $both_families\"
pod default/web-7d9c-x2x8q 4f0c6d1f2ab93
pod kube-system/coredns-5d78c 9b8e13c0d5524
pod default/job-28391-9kd2p c3a7f0e6b1d84
end_pods c3a7f0e6b1d84
ip route del 10.244.3.0/24"
                ),
            ),
            (
                "ferrulectl import --from /var/lib/cni/networks/cbr0",
                "
end_pods 4f0c6d1f2ab93 9b8e13c0d5524
ferrulectl uninstall
install_ferrule '.name = \"cbr0\"'
old_pod default/web-7d9c-x2x8q 4f0c6d1f2ab93
old_pod kube-system/coredns-5d78c 9b8e13c0d5524
old_pod default/job-28391-9kd2p c3a7f0e6b1d84
end_pod c3a7f0e6b1d84 \"$(jq -r '.result.interfaces[1].name' /var/lib/cni/results/cbr0-c3a7f0e6b1d84-eth0)\"
touch /var/lib/cni/networks/cbr0/10.244.1.9",
            ),
            (
                "ferrulectl uninstall",
                "
end_pods 4f0c6d1f2ab93 9b8e13c0d5524
ferrulectl uninstall
ip link del cni0
sysctl -qw net.ipv4.ip_forward=0
rm /usr/local/bin/ferrulectl
install_ferrule \"$peers | $both_families\"
pod default/web 4f0c6d1f2ab93
end_pods 4f0c6d1f2ab93",
            ),
        ],
        fails: &["ferrulectl doctor"],
        after: "",
    },
    Page {
        document: "docs/configuration.md",
        before: &[(
            "",
            "
install_ferrule .
conf=$(jq -c '.runtimeConfig.bandwidth = ({ingressRate: 1e7, egressRate: 1e7}
    | .ingressBurst = 2147483647 | .egressBurst = 2147483647)' <<<\"$conf\")
pod default/web 4f0c6d1f2ab93",
        )],
        fails: &[],
        after: "",
    },
    Page {
        document: "docs/install.md",
        before: &[(
            "ip route flush table all proto 102",
            "
install_ferrule .
pod default/web web
end_pods web",
        )],
        fails: &[],
        after: "
[ -z \"$(ip route show table all proto 102; nft list tables)\" ]
[ -z \"$(ls /var/lib/cni)\" ]",
    },
    Page {
        document: "docs/migration.md",
        before: &[
            (
                "",
                "
install_ferrule '.name = \"cbr0\"'
mkdir /etc/cni/ferrule
mv /etc/cni/net.d/10-ferrule.conflist /etc/cni/ferrule
jq '{cniVersion, name, plugins: [del(.cniVersion, .name)]}' <<<\"$old\" >/etc/cni/net.d/10-old.conflist
old_pod default/web web
network=cbr0 dir=/var/lib/cni/networks/cbr0",
            ),
            // What import says is to be done; the page explains it further below.
            (
                "ferrulectl import --from $dir",
                "sysctl -w net.ipv4.conf.cni0.proxy_arp=1 net.ipv4.neigh.cni0.proxy_delay=0",
            ),
        ],
        fails: &[],
        after: "
[ \"$(tr '\\n' ' ' <systemctl)\" = 'stop kubelet start kubelet start kubelet ' ]
[ \"$(ls /etc/cni/net.d)\" = 10-old.conflist ]",
    },
    Page {
        document: "docs/multi-node.md",
        before: &[
            (
                "",
                concat!(
                    with_peers!(),
                    "
install_ferrule \"$peers\"
pod default/web web
iptables -P FORWARD DROP
install_ferrule \"$peers | .plugins[0].forwardAccept = true\""
                ),
            ),
            ("ferrulectl doctor", "iptables -F FORWARD\ninstall_ferrule \"$peers\""),
        ],
        fails: &[],
        after: "",
    },
    Page {
        document: "docs/troubleshooting.md",
        before: &[(
            "",
            "
install_ferrule .
ip netns add try
with_pod default/web try",
        )],
        fails: &[
            r#"echo "$conf" | jq -c '.ipam.ranges=[[{"subnet":"10.244.1.5/24"}]] | .mtu="1500"' | CNI_COMMAND=ADD /opt/cni/bin/ferrule"#,
        ],
        after: "",
    },
    Page {
        document: "docs/design/store.md",
        before: &[(
            "",
            "
install_ferrule .
ip netns add try
export CNI_CONTAINERID=try CNI_NETNS=/run/netns/try CNI_IFNAME=eth0
echo \"$conf\" | CNI_COMMAND=ADD /opt/cni/bin/ferrule",
        )],
        fails: &[],
        after: "",
    },
];
