//! Integration tests: the built binaries on the real kernel, in namespaces that are gone afterwards.
//!
//! | module                                | subject                                                           |
//! |---------------------------------------|-------------------------------------------------------------------|
//! | `add` `del` `check` `gc` `status`     | the commands of the protocol, one each                            |
//! | `protocol`                            | environment, stdin, stdout, versions, log                         |
//! | `ipam_role` `delegation` `chaining`   | ferrule among other plugins                                       |
//! | `nftables` `overlay` `static_peers`   | traffic: masquerade, hostPorts, spoofing, other nodes             |
//! | `policy`                              | NetworkPolicy's table, under traffic                              |
//! | `linux`                               | that layer alone, against `ip`                                    |
//! | `loopback`                            | ferrule in the place of the reference plugin of that name         |
//! | `agent` `cli` `foreign_firewall`      | the node agent, the verbs, other people's firewalls               |
//! | `kubectl`                             | `kubectl ferrule` and an API server of the tests                  |
//! | `containerd`                          | whole nodes with the distribution's containerd (tests/lab)        |
//! | `security`                            | what docs/security-model.md claims                                |
//! | `adversarial`                         | faults, random sequences, rotten disks: the tier that takes minutes |
//! | `layers`                              | who may use whom in src                                           |
//! | `documents`                           | what README.md and docs/ tell people to type                      |
//! | `versions`                            | what an earlier version left on a node, used by this one          |
//!
//! What they stand on is the crate [`kit`]: its page says how to add a case.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod add;
mod adversarial;
#[cfg(feature = "agent")]
mod agent;
mod chaining;
mod check;
mod cli;
mod containerd;
mod del;
mod delegation;
mod documents;
mod foreign_firewall;
mod gc;
mod ipam_role;
#[cfg(feature = "kubectl")]
mod kubectl;
mod layers;
mod linux;
mod loopback;
mod nftables;
mod overlay;
mod policy;
mod protocol;
mod security;
mod static_peers;
mod status;
mod versions;
