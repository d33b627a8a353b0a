//! `ferrulectl policy`: what NetworkPolicies do to a pod, and why a connection is allowed or denied. Changes nothing.
//!
//! | file       | what it is                                                                            |
//! |------------|---------------------------------------------------------------------------------------|
//! | [`why`]    | `policy why`: policies and kernel asked about one connection, and compared             |
//! | [`show`]   | `policy show`: policies, chains and counters of a pod                                  |
//! | [`known`]  | what is read for both: what the agent knew, records, the node's addresses              |
//! | [`side`]   | who is at an end of a connection                                                       |
//! | [`target`] | the words of the command line                                                          |
//! | [`words`]  | what the evaluator says, in sentences                                                  |

pub mod known;
pub mod show;
pub mod side;
pub mod target;
pub mod why;
pub mod words;

use crate::policy::plan::Direction;

/// Both, in the order in which a packet meets them.
const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// As policies name it.
pub fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// As people name it; ICMP of both families by one name.
pub fn protocol_word(protocol: u8) -> String {
    match protocol {
        1 | 58 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        number => format!("protocol {number}"),
    }
}
