//! Identifiers that the runtime chooses: container id, interface name, network name, netns path.
//!
//! They become file names, link names and log fields. Each type's constructor is the one place where
//! the text from outside is judged, so a value of the type is safe for all of these uses: no path
//! separator, no `..`, no NUL, no newline or other control character, a bounded length.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest container id accepted. Docker's and containerd's are 64 hexadecimal digits; the record's
/// file name `<container id>@<ifname>` and the link alias must hold it whole.
pub const CONTAINER_ID_MAX: usize = 128;

/// Longest network name accepted: with a container id and an interface name it must fit a link alias
/// (`IFALIASZ`, 256 bytes; include/uapi/linux/if.h).
pub const NETWORK_NAME_MAX: usize = 96;

/// Longest interface name: `IFNAMSIZ` - 1 (include/uapi/linux/if.h).
pub const IF_NAME_MAX: usize = 15;

/// Why a text is not an identifier. The text of the message follows the identifier's own name, as in
/// "CNI_IFNAME is longer than 15 bytes".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// More bytes than the kernel or the file system takes.
    #[error("is longer than {max} bytes ({len})")]
    TooLong {
        /// The limit that applies.
        max: usize,
        /// The length that was given.
        len: usize,
    },
    /// A character that the identifier cannot have.
    #[error("has {found:?} at byte {at}; {allowed}")]
    Character {
        /// The first offending character.
        found: char,
        /// Its byte offset.
        at: usize,
        /// What may stand there.
        allowed: &'static str,
    },
    /// `.` or `..`, which name directories.
    #[error("is {0:?}, which names a directory")]
    DotName(String),
    /// A path that is not absolute: what it names would depend on the runtime's working directory.
    #[error("is not an absolute path")]
    NotAbsolute,
}

/// Names an attachment's container (`CNI_CONTAINERID`), unique per runtime.
///
/// Begins with a letter or digit; then letters, digits, `_`, `.`, `-` (SPEC, "Parameters").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes `text` if it is a container id.
    ///
    /// # Errors
    /// Says the first thing wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_word(text, CONTAINER_ID_MAX).map(|()| Self(text.to_owned()))
    }

    /// The id as the runtime gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a network (`name` of the conf). The same characters as a container id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Takes `text` if it is a network name.
    ///
    /// # Errors
    /// Says the first thing wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_word(text, NETWORK_NAME_MAX).map(|()| Self(text.to_owned()))
    }

    /// The name as the conf gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names an interface (`CNI_IFNAME`), as the kernel would take it.
///
/// The kernel's own rule (`dev_valid_name`, net/core/dev.c): not `.` or `..`, no `/`, no `:`, no white
/// space, at most 15 bytes. Stricter here: printable ASCII only, and no `%`, which the kernel takes for a template
/// of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Takes `text` if it can name an interface.
    ///
    /// # Errors
    /// Says the first thing wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_length(text, IF_NAME_MAX)?;
        if text == "." || text == ".." {
            return Err(InvalidId::DotName(text.to_owned()));
        }
        let allowed = "printable ASCII without / : % may stand there";
        refuse_characters(text, allowed, |_, c| c.is_ascii_graphic() && !"/:%".contains(c))?;
        Ok(Self(text.to_owned()))
    }

    /// The name as the runtime gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Path of a network namespace (`CNI_NETNS`): absolute, without control characters.
///
/// Whether a namespace is there is for the kernel to say, not for this type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetnsPath(PathBuf);

impl NetnsPath {
    /// Takes `text` if it is an absolute path that can be opened and logged.
    ///
    /// # Errors
    /// Says the first thing wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        // PATH_MAX, include/uapi/linux/limits.h; the terminating NUL counts.
        check_length(text, 4095)?;
        refuse_characters(text, "control characters may not stand in a path", |_, c| !c.is_control())?;
        if !text.starts_with('/') {
            return Err(InvalidId::NotAbsolute);
        }
        Ok(Self(PathBuf::from(text)))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// What one ADD makes and one DEL removes: this container, on this network, under this name.
///
/// The only thing that a DEL needs, and the only thing by which ferrule tells attachments apart: never
/// a pod's name, which the next sandbox of the same pod has as well (azure-container-networking#885).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentKey {
    /// The network's name.
    pub network: NetworkName,
    /// The container's id.
    pub container: ContainerId,
    /// The interface's name in the container.
    pub ifname: IfName,
}

macro_rules! display_as_written {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}
display_as_written!(ContainerId, NetworkName, IfName);

impl fmt::Display for NetnsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.ifname)
    }
}

/// The rule for container ids and network names. A leading letter or digit also excludes `.` and `..`.
fn check_word(text: &str, max: usize) -> Result<(), InvalidId> {
    check_length(text, max)?;
    let allowed = "it begins with a letter or digit and goes on with letters, digits, _ . -";
    refuse_characters(text, allowed, |at, c| c.is_ascii_alphanumeric() || (at > 0 && "_.-".contains(c)))
}

fn check_length(text: &str, max: usize) -> Result<(), InvalidId> {
    match text.len() {
        0 => Err(InvalidId::Empty),
        len if len > max => Err(InvalidId::TooLong { max, len }),
        _ => Ok(()),
    }
}

fn refuse_characters(
    text: &str,
    allowed: &'static str,
    fits: impl Fn(usize, char) -> bool,
) -> Result<(), InvalidId> {
    match text.char_indices().find(|&(at, c)| !fits(at, c)) {
        Some((at, found)) => Err(InvalidId::Character { found, at, allowed }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_of_the_runtimes_in_use_are_taken() {
        for id in [
            "8e5d3ecb0b9f2a3e6f4c1d7b8a9c0e1f2d3b4a5968778695a4b3c2d1e0f9a8b7",
            "2f1f4e1c-9f2b-4d61-8a3c-0d5b1f6e7a89",
            "a",
            "cnitool-77383ca0a0715733ca6f",
        ] {
            assert_eq!(ContainerId::parse(id).unwrap().as_str(), id);
        }
        for name in ["eth0", "net1", "veth0.100", "lo", "a-b_c", "a@b", "@", "eth0@if7"] {
            assert_eq!(IfName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_would_reach_outside_a_directory_are_refused() {
        for text in ["", ".", "..", "../x", "a/b", "a\0b", "a\nb", "-a", " ", "a b", "é", "@"] {
            assert!(ContainerId::parse(text).is_err(), "{text:?}");
            assert!(NetworkName::parse(text).is_err(), "{text:?}");
        }
        for text in ["", ".", "..", "a/b", "a b", "a:1", "eth%d", "sixteen-bytes-xx", "a\u{7f}"] {
            assert!(IfName::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "run/netns/a", "/run/\0", "/run/\n", "/run/\u{1b}[2J"] {
            assert!(NetnsPath::parse(text).is_err(), "{text:?}");
        }
        assert!(ContainerId::parse(&"a".repeat(CONTAINER_ID_MAX + 1)).is_err());
        assert!(NetworkName::parse(&"a".repeat(NETWORK_NAME_MAX + 1)).is_err());
    }

    #[test]
    fn the_message_says_what_is_wrong_and_what_may_stand_there() {
        let text = ContainerId::parse("pod/1").unwrap_err().to_string();
        assert_eq!(
            text,
            "has '/' at byte 3; it begins with a letter or digit and goes on with letters, digits, _ . -"
        );
        assert_eq!(
            IfName::parse("sixteen-bytes-xx").unwrap_err().to_string(),
            "is longer than 15 bytes (16)"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_one_plain_file_name(text in any::<String>()) {
            let taken = [
                ContainerId::parse(&text).map(|id| id.to_string()),
                NetworkName::parse(&text).map(|id| id.to_string()),
                IfName::parse(&text).map(|id| id.to_string()),
            ];
            for name in taken.into_iter().flatten() {
                let path = Path::new(&name);
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(name.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
