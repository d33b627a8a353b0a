/*
 * The floor under an ADD: the smallest program that makes the kernel objects which one ADD of ferrule makes for a
 * dual-stack pod. It reads no configuration, remembers nothing, checks nothing and answers nothing, so what ferrule
 * needs beyond its time is what ferrule's own work costs.
 *
 *     floor add NETNS NUMBER [served]    the pod's network; names, MACs and addresses follow from NUMBER (0 to 60,000);
 *                                        `served`: with masquerade, and with port 5000 + NUMBER of the node for its 80
 *     floor del NUMBER [served]          lets the elements of nftables expire (Linux 6.12 or later), and deletes the
 *                                        host's end, and with it everything else: what a DEL cannot avoid
 *
 * Run in the node's network namespace, where NODE_V4 and NODE_V6 must be on some link, and where ferrule has made its
 * table. The list of objects is in add(), at the end; when ferrule makes another object, it is added there and nowhere
 * else.
 *
 * It may do what no plugin should: it fixes the addresses at compile time, and asks the kernel to acknowledge only the
 * last message of a batch (a failed one answers unasked), so that a batch is one send and one receive.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define NODE_V4 "192.168.0.1"
#define NODE_V6 "fd00:1::1"
#define POD_CIDR_V4 "10.204.0.0" /* /16 */
#define POD_CIDR_V6 "fd00:10:204::" /* /64 */
#define ROUTE_PROTOCOL 102
#define LINK_GROUP 0x66000000
#define MTU 1500
#define NFT_TABLE "ferrule"
#define FIRST_HOST_PORT 5000

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A batch of netlink messages, built in place. */
static struct {
    int socket;
    char bytes[8192];
    size_t length;
    struct nlmsghdr *last;
} batch;

static void *append(const void *data, size_t length)
{
    void *at = batch.bytes + batch.length;
    memcpy(at, data, length);
    batch.length += NLMSG_ALIGN(length);
    if (batch.last)
        batch.last->nlmsg_len = batch.bytes + batch.length - (char *)batch.last;
    return at;
}

static void message(int type, int flags, const void *family_header, size_t length)
{
    struct nlmsghdr header = { .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags };
    batch.last = NULL;
    batch.last = append(&header, sizeof(header));
    append(family_header, length);
}
#define MESSAGE(type, flags, ...) message(type, flags, &(__VA_ARGS__), sizeof(__VA_ARGS__))

static struct rtattr *attribute(int type, const void *data, size_t length)
{
    struct rtattr header = { .rta_type = type, .rta_len = RTA_LENGTH(length) };
    struct rtattr *at = append(&header, sizeof(header));
    if (length)
        append(data, length);
    return at;
}

static void text(int type, const char *value) { attribute(type, value, strlen(value) + 1); }
static void number(int type, unsigned value) { attribute(type, &value, sizeof(value)); }
static struct rtattr *nest(int type) { return attribute(type, NULL, 0); }
static void end(struct rtattr *nested) { nested->rta_len = batch.bytes + batch.length - (char *)nested; }

static void address(int type, int family, const char *value)
{
    struct in6_addr bytes;
    if (inet_pton(family, value, &bytes) != 1)
        fail(value);
    attribute(type, &bytes, family == AF_INET ? 4 : 16);
}

static void start(int protocol)
{
    batch.socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (batch.socket < 0)
        fail("netlink socket");
}

static void exchange(const char *what)
{
    char reply[1024];
    const struct nlmsghdr *header = (void *)reply;
    const struct nlmsgerr *error = NLMSG_DATA(header);

    if (send(batch.socket, batch.bytes, batch.length, 0) < 0 || recv(batch.socket, reply, sizeof(reply), 0) < 0)
        fail(what);
    errno = header->nlmsg_type == NLMSG_ERROR ? -error->error : EPROTO;
    if (errno)
        fail(what);
    batch.length = 0;
    batch.last = NULL;
}

static void submit(const char *what)
{
    batch.last->nlmsg_flags |= NLM_F_ACK;
    exchange(what);
}

static int index_of(const char *link)
{
    struct ifreq request = { 0 };
    strncpy(request.ifr_name, link, IFNAMSIZ - 1);
    if (ioctl(batch.socket, SIOCGIFINDEX, &request) < 0)
        fail(link);
    return request.ifr_ifindex;
}

static int open_sysctl(int mode, const char *format, va_list arguments)
{
    char path[128];
    vsnprintf(path, sizeof(path), format, arguments);
    int file = open(path, mode | O_CLOEXEC);
    if (file < 0)
        fail(path);
    return file;
}

static void sysctl(const char *value, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int file = open_sysctl(O_WRONLY, format, arguments);
    va_end(arguments);
    if (write(file, value, strlen(value)) < 0)
        fail(format);
    close(file);
}

static void must_be(char expected, const char *format, ...)
{
    char value = 0;
    va_list arguments;
    va_start(arguments, format);
    int file = open_sysctl(O_RDONLY, format, arguments);
    va_end(arguments);
    if (read(file, &value, 1) != 1)
        fail(format);
    close(file);
    errno = EINVAL;
    if (value != expected)
        fail(format);
}

/* The objects, each with its `ip` command. */

/* ip link add HOST address .. mtu .. group .. type veth peer name eth0 address .. mtu .. netns FD */
static void veth(const char *host, const unsigned char *host_mac, const unsigned char *pod_mac, int pod)
{
    struct ifinfomsg any = { 0 };
    MESSAGE(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, any);
    text(IFLA_IFNAME, host);
    attribute(IFLA_ADDRESS, host_mac, 6);
    number(IFLA_MTU, MTU);
    number(IFLA_GROUP, LINK_GROUP);
    struct rtattr *info = nest(IFLA_LINKINFO);
    text(IFLA_INFO_KIND, "veth");
    struct rtattr *data = nest(IFLA_INFO_DATA);
    struct rtattr *peer = nest(VETH_INFO_PEER);
    append(&any, sizeof(any));
    text(IFLA_IFNAME, "eth0");
    attribute(IFLA_ADDRESS, pod_mac, 6);
    number(IFLA_MTU, MTU);
    number(IFLA_NET_NS_FD, pod);
    end(peer);
    end(data);
    end(info);
}

/*
 * ip link set dev INDEX [alias ..] addrgenmode none, and sysctl net.ipv4.conf.LINK.rp_filter=1 .forwarding=1
 * [.route_localnet=1]
 *
 * Not through /proc/sys: a write to addr_gen_mode there spins for as long as anybody holds the RTNL lock, sixteen of
 * them on all cores. Not in the message that sets the link up either, which acts on the flag first.
 */
static void configure(int link, const char *alias, int rp_filter, bool route_localnet)
{
    const unsigned char none = IN6_ADDR_GEN_MODE_NONE;
    MESSAGE(RTM_NEWLINK, 0, (struct ifinfomsg){ .ifi_index = link });
    if (alias)
        attribute(IFLA_IFALIAS, alias, strlen(alias));
    struct rtattr *families = nest(IFLA_AF_SPEC);
    struct rtattr *v6 = nest(AF_INET6);
    attribute(IFLA_INET6_ADDR_GEN_MODE, &none, sizeof(none));
    end(v6);
    if (rp_filter) {
        struct rtattr *v4 = nest(AF_INET);
        struct rtattr *conf = nest(IFLA_INET_CONF);
        number(IPV4_DEVCONF_RP_FILTER, rp_filter);
        number(IPV4_DEVCONF_FORWARDING, 1);
        if (route_localnet)
            number(IPV4_DEVCONF_ROUTE_LOCALNET, 1);
        end(conf);
        end(v4);
    }
    end(families);
}

/* ip link set dev INDEX up */
static void up(int link)
{
    MESSAGE(RTM_NEWLINK, 0, (struct ifinfomsg){ .ifi_index = link, .ifi_flags = IFF_UP, .ifi_change = IFF_UP });
}

/* ip address add ADDRESS/LENGTH dev INDEX nodad */
static void assign(int link, int family, const char *value, int length, int scope)
{
    MESSAGE(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
            (struct ifaddrmsg){ .ifa_family = family, .ifa_prefixlen = length, .ifa_index = link, .ifa_scope = scope,
                                .ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0 });
    address(IFA_LOCAL, family, value);
    address(IFA_ADDRESS, family, value);
}

/* ip neighbour replace ADDRESS lladdr MAC nud permanent dev INDEX */
static void neighbour(int link, int family, const char *value, const unsigned char *mac)
{
    MESSAGE(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
            (struct ndmsg){ .ndm_family = family, .ndm_ifindex = link, .ndm_state = NUD_PERMANENT });
    address(NDA_DST, family, value);
    attribute(NDA_LLADDR, mac, 6);
}

/* ip route replace TO/LENGTH [dev INDEX] [via GATEWAY onlink] [src SOURCE] proto 102, or `unreachable` without a link */
static void route(int link, int family, const char *to, int length, const char *gateway, const char *source)
{
    MESSAGE(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
            (struct rtmsg){ .rtm_family = family, .rtm_dst_len = length, .rtm_table = RT_TABLE_MAIN,
                            .rtm_protocol = ROUTE_PROTOCOL, .rtm_type = link ? RTN_UNICAST : RTN_UNREACHABLE,
                            .rtm_scope = link && !gateway && family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
                            .rtm_flags = gateway ? RTNH_F_ONLINK : 0 });
    if (to)
        address(RTA_DST, family, to);
    if (link)
        number(RTA_OIF, link);
    if (gateway)
        address(RTA_GATEWAY, family, gateway);
    if (source)
        address(RTA_PREFSRC, family, source);
}

/* ip -6 route add local ADDRESS dev INDEX table local proto 102: the address is in effect before the kernel's own route */
static void local(int link, const char *to)
{
    MESSAGE(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
            (struct rtmsg){ .rtm_family = AF_INET6, .rtm_dst_len = 128, .rtm_table = RT_TABLE_LOCAL,
                            .rtm_protocol = ROUTE_PROTOCOL, .rtm_type = RTN_LOCAL });
    address(RTA_DST, AF_INET6, to);
    number(RTA_OIF, link);
}

struct pod {
    char host_link[IFNAMSIZ], alias[160], comment[96], v4[INET_ADDRSTRLEN], v6[INET6_ADDRSTRLEN], link_local[INET6_ADDRSTRLEN];
    unsigned char host_mac[6], pod_mac[6];
};

static struct pod pod_of(unsigned n)
{
    struct pod pod = { .host_mac = { 0x0e, 0xf1, 0, 0, n >> 8, n }, .pod_mac = { 0x0a, 0xf1, 0, 0, n >> 8, n } };
    snprintf(pod.host_link, sizeof(pod.host_link), "veth%011x", n);
    /* As long as a real one: a network, 64 digits of container id, an interface, a namespace and a pod. */
    snprintf(pod.alias, sizeof(pod.alias), "ferrule:benchnet/%064x/eth0 default/pod-%u", n, n);
    snprintf(pod.comment, sizeof(pod.comment), "floor default/pod-%u", n);
    snprintf(pod.v4, sizeof(pod.v4), "10.204.%u.%u", (n + 2) >> 8 & 255, (n + 2) & 255);
    snprintf(pod.v6, sizeof(pod.v6), "fd00:10:204::%x", n + 2);
    snprintf(pod.link_local, sizeof(pod.link_local), "fe80::%x", n + 2);
    return pod;
}

/* A key or data of a set: fields one after another, each filled up to four bytes. */
struct fields {
    char bytes[64];
    size_t length;
};

static void field(struct fields *fields, const void *data, size_t length)
{
    memcpy(fields->bytes + fields->length, data, length);
    fields->length += NLMSG_ALIGN(length);
}

static void address_field(struct fields *fields, int family, const char *value)
{
    struct in6_addr bytes;
    if (inet_pton(family, value, &bytes) != 1)
        fail(value);
    field(fields, &bytes, family == AF_INET ? 4 : 16);
}

static void value(int type, const struct fields *fields)
{
    struct rtattr *outer = nest(type);
    attribute(NFTA_DATA_VALUE, fields->bytes, fields->length);
    end(outer);
}

/* nft add element inet ferrule SET { KEY [timeout 10ms] [: DATA] comment ".." } */
static void element(bool expires, const char *set, const struct fields *key, const struct fields *data, const char *comment)
{
    MESSAGE(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM, NLM_F_CREATE,
            (struct nfgenmsg){ .nfgen_family = NFPROTO_INET });
    text(NFTA_SET_ELEM_LIST_TABLE, NFT_TABLE);
    text(NFTA_SET_ELEM_LIST_SET, set);
    struct rtattr *list = nest(NFTA_SET_ELEM_LIST_ELEMENTS);
    struct rtattr *entry = nest(NFTA_LIST_ELEM);
    value(NFTA_SET_ELEM_KEY, key);
    /* As nft writes it: type, length, text. */
    char userdata[130] = { 0, strlen(comment) + 1 };
    strcpy(userdata + 2, comment);
    if (data)
        value(NFTA_SET_ELEM_DATA, data);
    attribute(NFTA_SET_ELEM_USERDATA, userdata, strlen(comment) + 3);
    if (expires) {
        uint64_t milliseconds = htobe64(10);
        attribute(NFTA_SET_ELEM_TIMEOUT, &milliseconds, sizeof(milliseconds));
        attribute(NFTA_SET_ELEM_EXPIRATION, &milliseconds, sizeof(milliseconds));
    }
    end(entry);
    end(list);
}

/* All elements of a pod, in one transaction. Removing them would be waited for; those that expire are not. */
static void elements(bool expire, const struct pod *pod, unsigned n, bool served)
{
    const struct nfgenmsg control = { .res_id = htons(NFNL_SUBSYS_NFTABLES) };
    struct fields link = { 0 }, sources[2], any = { 0 }, targets[2] = { 0 };
    const unsigned char tcp = IPPROTO_TCP;
    const uint16_t host_port = htons(FIRST_HOST_PORT + n), port = htons(80);

    field(&link, pod->host_link, IFNAMSIZ);
    sources[0] = sources[1] = link;
    address_field(&sources[0], AF_INET, pod->v4);
    address_field(&sources[1], AF_INET6, pod->v6);
    field(&any, &tcp, sizeof(tcp));
    field(&any, &host_port, sizeof(host_port));
    address_field(&targets[0], AF_INET, pod->v4);
    address_field(&targets[1], AF_INET6, pod->v6);
    field(&targets[0], &port, sizeof(port));
    field(&targets[1], &port, sizeof(port));

    start(NETLINK_NETFILTER);
    MESSAGE(NFNL_MSG_BATCH_BEGIN, 0, control);
    element(expire, "pods", &link, NULL, pod->comment);
    element(expire, "sources4", &sources[0], NULL, pod->comment);
    element(expire, "sources6", &sources[1], NULL, pod->comment);
    if (served) {
        element(expire, "masquerade4", &sources[0], NULL, pod->comment);
        element(expire, "masquerade6", &sources[1], NULL, pod->comment);
        element(expire, "any_hostports4", &any, &targets[0], pod->comment);
        element(expire, "any_hostports6", &any, &targets[1], pod->comment);
    }
    batch.last->nlmsg_flags |= NLM_F_ACK;
    MESSAGE(NFNL_MSG_BATCH_END, 0, control);
    exchange("change the elements of inet " NFT_TABLE ", which ferrule makes");
}

static void add(const char *netns, unsigned n, bool served)
{
    struct pod pod = pod_of(n);
    int namespace = open(netns, O_RDONLY | O_CLOEXEC);
    if (namespace < 0)
        fail(netns);

    elements(false, &pod, n, served);
    start(NETLINK_ROUTE);
    veth(pod.host_link, pod.host_mac, pod.pod_mac, namespace);
    submit("create the pair");

    /* The node: forwarding is only looked at, as it is on already for all but the first pod. */
    must_be('1', "/proc/sys/net/ipv4/ip_forward");
    must_be('1', "/proc/sys/net/ipv6/conf/all/forwarding");

    /* The host's end. The sysctls come before `up`, which is when the kernel acts on them. */
    int host = index_of(pod.host_link);
    must_be('0', "/proc/sys/net/ipv6/conf/%s/disable_ipv6", pod.host_link);
    sysctl("0", "/proc/sys/net/ipv6/conf/%s/accept_ra", pod.host_link);
    configure(host, pod.alias, 1, served);
    up(host);
    neighbour(host, AF_INET, pod.v4, pod.pod_mac);
    neighbour(host, AF_INET6, pod.v6, pod.pod_mac);
    route(host, AF_INET, pod.v4, 32, NULL, NODE_V4);
    route(host, AF_INET6, pod.v6, 128, NULL, NODE_V6);
    route(0, AF_INET, POD_CIDR_V4, 16, NULL, NULL);
    route(0, AF_INET6, POD_CIDR_V6, 64, NULL, NULL);
    submit("set up the host's end");

    /* The pod's end. */
    if (setns(namespace, CLONE_NEWNET) < 0)
        fail(netns);
    start(NETLINK_ROUTE);
    int eth0 = index_of("eth0");
    must_be('0', "/proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    sysctl("0", "/proc/sys/net/ipv6/conf/eth0/accept_ra");
    up(1); /* lo has index 1 in every namespace */
    configure(eth0, NULL, 0, false);
    up(eth0);
    assign(eth0, AF_INET, pod.v4, 32, RT_SCOPE_UNIVERSE);
    assign(eth0, AF_INET6, pod.v6, 128, RT_SCOPE_UNIVERSE);
    local(eth0, pod.v6);
    assign(eth0, AF_INET6, pod.link_local, 64, RT_SCOPE_LINK);
    neighbour(eth0, AF_INET, "169.254.1.1", pod.host_mac);
    neighbour(eth0, AF_INET6, "fe80::1", pod.host_mac);
    route(eth0, AF_INET, NULL, 0, "169.254.1.1", NULL);
    route(eth0, AF_INET6, NULL, 0, "fe80::1", NULL);
    submit("set up the pod's end");
}

/* ip link delete HOST */
static void del(unsigned n, bool served)
{
    struct pod pod = pod_of(n);
    elements(true, &pod, n, served);
    start(NETLINK_ROUTE);
    MESSAGE(RTM_DELLINK, 0, (struct ifinfomsg){ 0 });
    text(IFLA_IFNAME, pod.host_link);
    submit("delete the pair");
}

int main(int count, char **arguments)
{
    bool served = count > 3 && !strcmp(arguments[count - 1], "served");
    count -= served;
    if (count == 4 && !strcmp(arguments[1], "add"))
        add(arguments[2], strtoul(arguments[3], NULL, 10), served);
    else if (count == 3 && !strcmp(arguments[1], "del"))
        del(strtoul(arguments[2], NULL, 10), served);
    else {
        fputs("usage: floor add NETNS NUMBER [served] | floor del NUMBER [served]\n", stderr);
        return 2;
    }
    return 0;
}
