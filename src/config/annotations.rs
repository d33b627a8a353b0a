//! What a pod asks for by its annotations (capability `io.kubernetes.cri.pod-annotations`).
//!
//! containerd and CRI-O hand over all annotations of the pod, so no API server is asked. They are a person's words:
//! a line break at the end, as YAML makes it, is no mistake. Whoever may annotate a pod may ask; what is asked for is
//! judged as if it stood in the conf.

use std::net::IpAddr;

use serde_json::Value;

use super::role::Role;
use super::sysctl::{Pattern, Setting, SysctlPolicy, read_overrides};
use super::values::{check_mtu, parse_ip, parse_mac};
use crate::cni::json::{Document, Node};
use crate::cni::problem::quote;
use crate::cni::route::Route;
use crate::cni::version::SpecVersion;
use crate::mac::MacAddr;

/// The capability, and the key of `runtimeConfig`.
const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

/// Most bytes of one annotation. JSON takes far more memory than its text, and no pod has hundreds of routes.
const TEXT_MAX: usize = 16 * 1024;

/// The annotations of ferrule's that the pod has.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// `ferrule.dev/ips`: addresses, parted by commas.
    pub(super) ips: Vec<IpAddr>,
    /// `ferrule.dev/mac`.
    pub(super) mac: Option<MacAddr>,
    /// `ferrule.dev/mtu`.
    pub(super) mtu: Option<u32>,
    /// `ferrule.dev/routes`: a JSON list, as `ipam.routes`.
    pub(super) routes: Vec<Route>,
    /// `ferrule.dev/sysctl`: a JSON object, as `sysctl` of the conf. Only what the conf lets pods set.
    pub(super) sysctls: Vec<Setting>,
}

impl Annotations {
    /// Reads them. What concerns the interface is only read by whoever makes it.
    pub(super) fn read(
        root: &Node<'_, '_>,
        role: Role,
        policy: SysctlPolicy<'_>,
        allowed_sysctls: &[Pattern],
    ) -> Self {
        let Some(runtime) = root.object("runtimeConfig") else { return Self::default() };
        let Some(all) = runtime.object(CAPABILITY) else { return Self::default() };
        let ips = read_parsed(&all, "ferrule.dev/ips", parse_ips).unwrap_or_default();
        let routes = read_routes(&all, "ferrule.dev/routes");
        if role == Role::Ipam {
            return Self { ips, routes, ..Self::default() };
        }
        Self {
            ips,
            mac: read_parsed(&all, "ferrule.dev/mac", parse_mac),
            mtu: read_parsed(&all, "ferrule.dev/mtu", |text| parse_mtu(text, policy.has_ipv6)).flatten(),
            routes,
            sysctls: read_sysctls(&all, "ferrule.dev/sysctl", policy, allowed_sysctls),
        }
    }
}

fn read_parsed<T>(all: &Node<'_, '_>, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    let node = all.member(key)?;
    let text = read_text(&node)?;
    parse(&text).map_err(|error| node.refuse(error)).ok()
}

/// The text without white space around it, on one line.
fn read_text(node: &Node<'_, '_>) -> Option<String> {
    let Some(text) = node.value().as_str() else {
        node.refuse("is no string, which every annotation is");
        return None;
    };
    if text.len() > TEXT_MAX {
        node.refuse(format!("has {} bytes; {TEXT_MAX} are the most that is taken", text.len()));
        return None;
    }
    let text = text.replace(['\n', '\r', '\t'], " ").trim().to_owned();
    if text.chars().any(char::is_control) {
        node.refuse(format!("is {}, with a control character in it", quote(&text)));
        return None;
    }
    Some(text).filter(|text| !text.is_empty())
}

fn parse_ips(text: &str) -> Result<Vec<IpAddr>, String> {
    text.split(',').map(|item| parse_ip(item.trim())).collect()
}

fn parse_mtu(text: &str, has_ipv6: bool) -> Result<Option<u32>, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let mtu = text.parse().ok().filter(|_| is_number);
    check_mtu(mtu.ok_or_else(|| format!("is {}, which is no number of bytes", quote(text)))?, has_ipv6)
}

fn read_routes(all: &Node<'_, '_>, key: &str) -> Vec<Route> {
    let example = r#"write a list of routes: [{"dst": "203.0.113.0/24"}]"#;
    read_json(all, key, example, |list| Route::read_items(list, SpecVersion::NEWEST))
}

fn read_sysctls(
    all: &Node<'_, '_>,
    key: &str,
    policy: SysctlPolicy<'_>,
    allowed: &[Pattern],
) -> Vec<Setting> {
    let example = r#"write an object of settings: {"net.core.somaxconn": "500"}"#;
    read_json(all, key, example, |object| read_overrides(object, policy, allowed))
}

/// A document within the document: its findings get the place of the annotation before their own.
fn read_json<T>(
    all: &Node<'_, '_>,
    key: &str,
    example: &str,
    read: impl FnOnce(&Node<'_, '_>) -> Vec<T>,
) -> Vec<T> {
    let Some(node) = all.member(key) else { return Vec::new() };
    let Some(text) = read_text(&node) else { return Vec::new() };
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(error) => {
            node.refuse(format!("is no JSON ({error}); {example}"));
            return Vec::new();
        }
    };
    let document = Document::new(&value);
    let found = read(&document.root());
    for problem in document.into_problems().shown() {
        let dot = if problem.path.is_empty() || problem.path.starts_with('[') { "" } else { "." };
        node.refuse_at(&format!("{}{dot}{}", node.path(), problem.path), problem.text.clone());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_as(role: Role, annotations: Value) -> (Annotations, Vec<String>) {
        let conf = json!({ "allowedSysctls": ["net.core.*"], "runtimeConfig": { CAPABILITY: annotations } });
        let document = Document::new(&conf);
        let policy = SysctlPolicy { link: Some("eth0"), has_ipv6: true };
        let root = document.root();
        let allowed = Pattern::read_list(&root, policy);
        let annotations = Annotations::read(&root, role, policy, &allowed);
        let problems = document.into_problems();
        (annotations, problems.shown().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_five_are_read_as_people_write_them() {
        let (read, problems) = read_as(
            Role::Main,
            json!({
                "kubectl.kubernetes.io/last-applied-configuration": "{\n\u{1b}}", "number": 7,
                "ferrule.dev/ips": " 10.244.1.20, fd00::20/64\n", "ferrule.dev/mac": "0a:58:0a:f4:01:05\n",
                "ferrule.dev/mtu": "1400",
                "ferrule.dev/routes": "[\n\t{\"dst\": \"203.0.113.0/24\", \"mtu\": 1300}\n]\n",
                "ferrule.dev/sysctl": "{\n\"net.core.somaxconn\": 500\n}\n",
            }),
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(read.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.1.20", "fd00::20"]);
        assert_eq!((read.mac, read.mtu), (Some(MacAddr([0x0a, 0x58, 0x0a, 0xf4, 1, 5])), Some(1400)));
        assert_eq!((read.routes.len(), read.routes[0].mtu), (1, Some(1300)));
        assert_eq!(
            (read.sysctls[0].path.join("."), read.sysctls[0].value.as_str()),
            ("net.core.somaxconn".into(), "500")
        );
    }

    #[test]
    fn every_problem_names_its_annotation() {
        for (key, text, at, why) in [
            ("ips", json!("10.244.1.300"), "", "is no address"),
            ("ips", json!("10.244.1.3,,"), "", "is no address"),
            ("ips", json!(["10.244.1.3"]), "", "is no string"),
            ("mac", json!("01:00:5e:00:00:01"), "", "no unicast address"),
            ("mac", json!("\u{1b}"), "", "control character"),
            ("mtu", json!("1279"), "", "IPv6 needs 1280"),
            ("mtu", json!("65536"), "", "65535"),
            ("mtu", json!("+1400"), "", "no number"),
            ("mtu", json!("99999999999"), "", "no number"),
            ("routes", json!("203.0.113.0/24"), "", "is no JSON"),
            ("routes", json!("{}"), "", "a list is needed"),
            ("routes", json!("[{\"dst\": \"203.0.113.1/24\"}]"), "[0].dst", "bits set"),
            ("routes", json!("[1]"), "[0]", "an object is needed"),
            ("routes", json!("[".repeat(TEXT_MAX + 1)), "", "bytes"),
            ("sysctl", json!("net.core.somaxconn=500"), "", "is no JSON"),
            ("sysctl", json!("[]"), "", "an object is needed"),
            ("sysctl", json!("{\"net.ipv4.ip_forward\": 1}"), "[\"net.ipv4.ip_forward\"]", "allowedSysctls"),
            ("sysctl", json!("{\"kernel\": 1}"), ".kernel", "below net."),
            ("sysctl", json!("{\"net.core.somaxconn\": true}"), "[\"net.core.somaxconn\"]", "a boolean"),
        ] {
            let (_, problems) = read_as(Role::Main, json!({ format!("ferrule.dev/{key}"): text }));
            let path = format!("runtimeConfig[\"{CAPABILITY}\"][\"ferrule.dev/{key}\"]{at}: ");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(&path) && problems[0].contains(why), "{problems:?}");
        }
    }

    #[test]
    fn empty_texts_ask_for_nothing_and_ipam_makes_no_interface() {
        let (read, problems) =
            read_as(Role::Main, json!({ "ferrule.dev/ips": " \n", "ferrule.dev/mtu": "0" }));
        assert_eq!((read.ips.len(), read.mtu, problems.len()), (0, None, 0));
        let (read, problems) = read_as(
            Role::Ipam,
            json!({
                "ferrule.dev/mac": "x", "ferrule.dev/mtu": "x", "ferrule.dev/sysctl": "x", "ferrule.dev/ips": "::1",
            }),
        );
        assert_eq!((read.ips.len(), problems.len()), (1, 0));
    }
}
