//! Settings below /proc/sys/net of a pod's namespace: `sysctl` and `allowedSysctls` of a conf, `ferrule.dev/sysctl`
//! of a pod.
//!
//! An administrator may set whatever belongs to the network. A pod may set what the administrator lists, and nothing
//! where nothing is listed, as with kubelet's `--allowed-unsafe-sysctls`. Neither may undo what ferrule sets itself,
//! without which the pod would have no network. Whether the kernel has a setting, and takes the value, shows when it
//! is written.

use crate::cni::json::Node;
use crate::cni::problem::quote;

/// Longest name of a setting, in bytes. The kernel's longest has a quarter of that, with the longest link's name.
const NAME_MAX: usize = 255;

/// Most settings of one object, and most patterns: more than a kernel has for one namespace.
const COUNT_MAX: usize = 1024;

/// Stands for the pod's interface where it is a whole part of a name, as with the reference plugin `tuning`.
const PLACEHOLDER: &str = "IFNAME";

/// The key of the conf that lists what pods may set.
const ALLOWED: &str = "allowedSysctls";

/// A setting and the text that it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Path below /proc/sys, one part an element, the first of which is `net`.
    pub path: Vec<String>,
    pub value: String,
}

/// Which settings a pod may ask for: one, or all that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    path: Vec<String>,
    is_prefix: bool,
}

/// What decides whether a setting may be made.
#[derive(Clone, Copy)]
pub(super) struct SysctlPolicy<'a> {
    /// Name of the pod's interface; not known to STATUS and GC, which set nothing.
    pub(super) link: Option<&'a str>,
    /// Whether the pod gets an IPv6 address for certain.
    pub(super) has_ipv6: bool,
}

impl Pattern {
    /// Reads `allowedSysctls`.
    pub(super) fn read_list(root: &Node<'_, '_>, policy: SysctlPolicy<'_>) -> Vec<Self> {
        let Some(list) = root.list(ALLOWED) else { return Vec::new() };
        if refuse_too_many(&list, list.items().count()) {
            return Vec::new();
        }
        list.items().filter_map(|item| item.parse(|text| Self::parse(text, policy.link))).collect()
    }

    /// A name, or the beginning of one and `*`.
    fn parse(text: &str, link: Option<&str>) -> Result<Self, String> {
        let Some(prefix) = text.strip_suffix('*') else {
            return Ok(Self { path: parse_name(text, link)?, is_prefix: false });
        };
        let path = split(prefix, link);
        if path.first().is_none_or(|part| part != "net") || path.len() < 2 {
            return Err(format!("is {}; only what is below net. belongs to a pod", quote(text)));
        }
        let (last, before) =
            path.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
        if last == "." || last == ".." {
            return Err(format!("is {}, which leaves its directory", quote(text)));
        }
        before.iter().try_for_each(|part| judge_part(text, part))?;
        Ok(Self { path, is_prefix: true })
    }

    fn matches(&self, path: &[String]) -> bool {
        if !self.is_prefix {
            return self.path == path;
        }
        let (Some((beginning, before)), Some(at)) = (self.path.split_last(), self.path.len().checked_sub(1))
        else {
            return false;
        };
        path.get(..at) == Some(before) && path.get(at).is_some_and(|part| part.starts_with(beginning))
    }
}

/// Reads `sysctl` of the conf: an object of names and values.
pub(super) fn read_settings(root: &Node<'_, '_>, policy: SysctlPolicy<'_>) -> Vec<Setting> {
    root.member("sysctl").map(|node| read_object(&node, policy, |_| Ok(()))).unwrap_or_default()
}

/// Reads an object of names and values that a pod asks for, of which only what `allowed` matches is taken.
pub(super) fn read_overrides(
    object: &Node<'_, '_>,
    policy: SysctlPolicy<'_>,
    allowed: &[Pattern],
) -> Vec<Setting> {
    read_object(object, policy, |path| {
        if allowed.iter().any(|pattern| pattern.matches(path)) {
            return Ok(());
        }
        let name = show_name(path);
        Err(format!(
            "a pod may not set {name}; an administrator allows it by {ALLOWED} of the conf: [{name:?}]"
        ))
    })
}

/// The conf's settings and the pod's, which come first where both name one; in the order in which they are to be
/// written.
pub(super) fn merge(conf: Vec<Setting>, pod: Vec<Setting>) -> Vec<Setting> {
    let is_kept = |setting: &Setting| pod.iter().all(|own| own.path != setting.path);
    let mut all: Vec<Setting> = conf.into_iter().filter(is_kept).collect();
    all.extend(pod);
    all.sort_by(|a, b| (rank(&a.path), &a.path).cmp(&(rank(&b.path), &b.path)));
    all
}

/// What would take a pod's IPv6 from it, or make CHECK and ADD disagree for ever; for pods whose addresses were not
/// known when the conf was read.
///
/// # Errors
/// The first such setting, with its name.
pub fn judge_beside_ipv6(settings: &[Setting], link: &str) -> Result<(), String> {
    settings.iter().try_for_each(|setting| match judge_own(&setting.path, &setting.value, Some(link)) {
        Verdict::Contradicts(why) => Err(format!("sysctl {}: {why}", show_name(&setting.path))),
        Verdict::Same | Verdict::Unrelated => Ok(()),
    })
}

fn read_object(
    object: &Node<'_, '_>,
    policy: SysctlPolicy<'_>,
    judge_name: impl Fn(&[String]) -> Result<(), String>,
) -> Vec<Setting> {
    if !object.is_object() {
        return Vec::new();
    }
    let Some(members) = object.value().as_object() else { return Vec::new() };
    if refuse_too_many(object, members.len()) {
        return Vec::new();
    }
    let mut settings: Vec<Setting> = Vec::new();
    for name in members.keys() {
        let Some(node) = object.member(name) else { continue };
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            object.refuse(format!("has the key {}, which is no name of a sysctl", quote(name)));
            continue;
        }
        let path = parse_name(name, policy.link).and_then(|path| judge_name(&path).map(|()| path));
        let value = read_value(&node);
        let (path, value) = match (path, value) {
            (Ok(path), Some(value)) => (path, value),
            (Err(why), _) => {
                node.refuse(why);
                continue;
            }
            (Ok(_), None) => continue,
        };
        if settings.iter().any(|known| known.path == path) {
            node.refuse(format!("{} is set twice, in two spellings", show_name(&path)));
            continue;
        }
        match judge_own(&path, &value, policy.link) {
            Verdict::Contradicts(why) if policy.has_ipv6 => node.refuse(why),
            Verdict::Same if policy.has_ipv6 => {}
            _ => settings.push(Setting { path, value }),
        }
    }
    settings
}

/// Whether a list or an object has more than can be meant; noted if so.
fn refuse_too_many(node: &Node<'_, '_>, count: usize) -> bool {
    if count > COUNT_MAX {
        node.refuse(format!("has {count} elements; {COUNT_MAX} are the most that is taken"));
    }
    count > COUNT_MAX
}

/// A text, or a whole number, which leaves no doubt how it is written.
fn read_value(node: &Node<'_, '_>) -> Option<String> {
    match node.value().as_number() {
        Some(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => node.as_text().map(str::to_owned),
    }
}

/// The path that a name means.
fn parse_name(name: &str, link: Option<&str>) -> Result<Vec<String>, String> {
    let path = split(name, link);
    if path.first().is_none_or(|part| part != "net") || path.len() < 2 {
        return Err(format!(
            "{} is no setting of the network; only what is below net. belongs to a pod",
            quote(name)
        ));
    }
    path.iter().try_for_each(|part| judge_part(name, part))?;
    if path.last().is_some_and(|last| last == "flush") {
        return Err(format!("{} is a command and no setting: nothing can be compared with it", quote(name)));
    }
    Ok(path)
}

/// The parts of a name. As with sysctl(8), the separator that comes first is the one that counts: behind a dot a slash
/// stands for a dot in a link's name (`net.ipv4.conf.eth0/100.rp_filter`), and behind a slash a dot is just that.
fn split(name: &str, link: Option<&str>) -> Vec<String> {
    let of_link = |part: String| match link {
        Some(link) if part == PLACEHOLDER => link.to_owned(),
        _ => part,
    };
    match name.find(['.', '/']).and_then(|at| name.get(at..=at)) {
        Some("/") => name.split('/').map(|part| of_link(part.to_owned())).collect(),
        _ => name.split('.').map(|part| of_link(part.replace('/', "."))).collect(),
    }
}

fn judge_part(name: &str, part: &str) -> Result<(), String> {
    if part.is_empty() || part == "." || part == ".." {
        return Err(format!("{} has a part that is empty or leaves its directory", quote(name)));
    }
    if part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '*') {
        return Err(format!("{} is no name of a sysctl", quote(name)));
    }
    Ok(())
}

/// How a setting stands to what ferrule sets itself.
enum Verdict {
    Unrelated,
    /// ferrule sets that very value.
    Same,
    /// With the reason, which follows a path.
    Contradicts(String),
}

/// ferrule's own settings of a pod with an IPv6 address (`Attachment::push_sysctls` makes them).
fn judge_own(path: &[String], value: &str, link: Option<&str>) -> Verdict {
    let [_, ipv6, conf, whose, name] = path else { return Verdict::Unrelated };
    if (ipv6.as_str(), conf.as_str()) != ("ipv6", "conf") {
        return Verdict::Unrelated;
    }
    let whose = if whose == PLACEHOLDER || Some(whose.as_str()) == link { PLACEHOLDER } else { whose };
    let own = match (whose, name.as_str()) {
        ("all" | PLACEHOLDER, "disable_ipv6") | (PLACEHOLDER, "accept_ra") => "0",
        ("all" | PLACEHOLDER, "addr_gen_mode") => "1",
        // Writing it changes addr_gen_mode (addrconf_sysctl_stable_secret, net/ipv6/addrconf.c).
        ("default" | PLACEHOLDER, "stable_secret") => {
            let why = "changes addr_gen_mode, which ferrule sets to 1: the pod's addresses are given";
            return Verdict::Contradicts(why.to_owned());
        }
        _ => return Verdict::Unrelated,
    };
    if value.trim() == own {
        return Verdict::Same;
    }
    let why = format!(
        "is {}, and the pod's IPv6 address needs {own}, which ferrule sets; leave it out",
        quote(value)
    );
    Verdict::Contradicts(why)
}

/// Settings that change others come before those (`inet_forward_change` resets redirects of all links; `all` reaches
/// every link).
fn rank(path: &[String]) -> u8 {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["net", "ipv4", "ip_forward"] | ["net", _, "conf", "all", "forwarding"] => 0,
        ["net", _, "conf", "all", _] => 1,
        ["net", _, "conf" | "neigh", "default", _] => 2,
        _ => 3,
    }
}

/// The name as people write it.
fn show_name(path: &[String]) -> String {
    path.join(if path.iter().any(|part| part.contains('.')) { "/" } else { "." })
}

#[cfg(test)]
mod tests;
