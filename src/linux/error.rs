//! Why the kernel did not do what it was asked: errno, its own words, and what was attempted.

use std::io;

use rtnetlink::packet_core::{DoneMessage, ErrorMessage, NLM_F_CAPPED, NlasIterator, parse_u32};
use rustix::io::Errno;

/// Text of the kernel in an extended acknowledgement (include/uapi/linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Length of the request's header, which an acknowledgement repeats (`struct nlmsghdr`).
const REQUEST_HEADER_LEN: usize = 16;

/// `ERESTART`: to the kernel's own (include/linux/errno.h), but nfnetlink sends it as it is.
const RESTART: i32 = 85;

/// A request that was refused.
///
/// Reads as "add route 10.1.2.3/32 dev 7: File exists (os error 17): the kernel's own words".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {}{}{}", io::Error::from_raw_os_error(*errno), if text.is_some() { ": " } else { "" }, text.as_deref().unwrap_or_default())]
pub struct KernelError {
    /// errno(3), positive.
    pub errno: i32,
    /// What the kernel said beyond errno (NETLINK_EXT_ACK), if anything.
    pub text: Option<String>,
    /// What was attempted, on what.
    pub operation: String,
}

impl KernelError {
    /// Whether what was to be made is there already (EEXIST).
    pub fn is_exists(&self) -> bool {
        self.is(Errno::EXIST)
    }

    /// Whether the request makes no sense to the kernel (EINVAL).
    pub fn is_invalid(&self) -> bool {
        self.is(Errno::INVAL)
    }

    /// Whether the kernel does not know what is asked of it: the request (EINVAL), the address family (EAFNOSUPPORT), the
    /// protocol (EPROTONOSUPPORT) or the operation (EOPNOTSUPP).
    pub fn is_unsupported(&self) -> bool {
        [Errno::INVAL, Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT, Errno::OPNOTSUPP]
            .iter()
            .any(|errno| self.is(*errno))
    }

    /// Whether what was to be changed, removed or read is not there: no such link (ENODEV), no such entry
    /// (ENOENT), no such route (ESRCH), no such address (EADDRNOTAVAIL).
    pub fn is_not_found(&self) -> bool {
        [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::ADDRNOTAVAIL].iter().any(|errno| self.is(*errno))
    }

    /// Whether a link that was named by its index is gone (ENODEV), or down, as it is just before (ENETDOWN).
    pub fn is_of_gone_link(&self) -> bool {
        [Errno::NODEV, Errno::NETDOWN].iter().any(|errno| self.is(*errno))
    }

    /// Whether a route look-up found none (ENETUNREACH) or a route or rule that turns packets away (EHOSTUNREACH for
    /// `unreachable`, EACCES for `prohibit`, EINVAL for `blackhole`, EAGAIN for `throw`: `fib_props` in
    /// net/ipv4/fib_semantics.c, `fib6_prop` in net/ipv6/route.c). To be asked of a look-up alone.
    pub fn is_unreachable(&self) -> bool {
        [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL, Errno::AGAIN]
            .iter()
            .any(|errno| self.is(*errno))
    }

    /// Whether packets that come in by a link are refused because the way back to their source leads elsewhere (EXDEV,
    /// rp_filter). To be asked of a look-up with an input link alone. Newer kernels say EHOSTUNREACH instead.
    pub fn is_wrong_source(&self) -> bool {
        self.is(Errno::XDEV)
    }

    /// Whether somebody else has what was asked for (EBUSY).
    pub fn is_taken(&self) -> bool {
        self.is(Errno::BUSY)
    }

    /// Whether the kernel has no such thing at all (EOPNOTSUPP).
    pub fn is_unknown_kind(&self) -> bool {
        self.is(Errno::OPNOTSUPP)
    }

    /// Whether it has no such address family, in general or on this link (EAFNOSUPPORT).
    pub fn is_unsupported_family(&self) -> bool {
        self.is(Errno::AFNOSUPPORT)
    }

    /// Whether an address or port belongs to somebody else (EADDRINUSE).
    pub fn is_in_use(&self) -> bool {
        self.is(Errno::ADDRINUSE)
    }

    /// Whether somebody else made a change first (ERESTART), and it must be thought over again.
    pub fn is_outrun(&self) -> bool {
        self.errno == RESTART
    }

    /// Whether the answer is not the kernel's, but was lost, or could not be asked for (ECONNABORTED, which no netlink
    /// answer has): it is not known whether the request was carried out.
    pub fn is_lost(&self) -> bool {
        self.is(Errno::CONNABORTED)
    }

    fn is(&self, errno: Errno) -> bool {
        self.errno == errno.raw_os_error()
    }
}

/// A refusal of which it is not said yet what was attempted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    errno: i32,
    text: Option<String>,
}

impl Reason {
    /// A reason of our own, in the form of one of the kernel's.
    pub(super) fn ours(errno: Errno, text: impl Into<String>) -> Self {
        Self { errno: errno.raw_os_error(), text: Some(on_one_line(&text.into())) }
    }

    /// The connection ended before the answer came.
    pub(super) fn lost() -> Self {
        Self::ours(Errno::CONNABORTED, "the netlink connection was lost before the kernel's answer")
    }

    /// Reads an acknowledgement: `None` if it is one, the reason if it says no.
    pub(super) fn from_error(error: &ErrorMessage, flags: u16) -> Option<Self> {
        let errno = error.code?.get().saturating_abs();
        // NETLINK_CAP_ACK makes the kernel repeat the header alone; without it the whole request comes back,
        // and its own length field says where the attributes begin.
        let request_len = if flags & NLM_F_CAPPED != 0 {
            REQUEST_HEADER_LEN
        } else {
            let length = error.header.get(..4).and_then(|bytes| parse_u32(bytes).ok());
            length.map_or(REQUEST_HEADER_LEN, |length| (length as usize).next_multiple_of(4))
        };
        Some(Self { errno, text: error.header.get(request_len..).and_then(kernel_words) })
    }

    /// Reads the end of a dump: `None` if it went well, the reason if it was broken off.
    pub(super) fn from_done(done: &DoneMessage) -> Option<Self> {
        (done.code < 0)
            .then(|| Self { errno: done.code.saturating_abs(), text: kernel_words(&done.extended_ack) })
    }

    /// Whether the kernel is still at an earlier dump of the same socket.
    pub(super) fn is_busy(&self) -> bool {
        self.errno == Errno::BUSY.raw_os_error()
    }

    /// Whether the kernel broke off because what it works on was changed meanwhile.
    pub(super) fn is_interrupted(&self) -> bool {
        [Errno::INTR, Errno::AGAIN].iter().any(|errno| self.errno == errno.raw_os_error())
    }

    /// Whether there is no such thing (ENOENT).
    pub(super) fn is_not_found(&self) -> bool {
        self.errno == Errno::NOENT.raw_os_error()
    }

    /// The refusal, now that it is said what was attempted.
    pub(super) fn of(self, operation: impl Into<String>) -> KernelError {
        KernelError { errno: self.errno, text: self.text, operation: operation.into() }
    }
}

/// The text among the attributes of an extended acknowledgement.
fn kernel_words(attributes: &[u8]) -> Option<String> {
    let text = NlasIterator::new(attributes).flatten().find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    let words = String::from_utf8_lossy(text.value());
    let words = words.trim_end_matches(['\0', '.', '\n']);
    (!words.is_empty()).then(|| on_one_line(words))
}

/// What goes to terminals and into answers stays on its line, whatever the kernel says: in a reason of our own as well,
/// where it may be told what could not be read.
fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroI32;

    /// The answer to a request of `request_len` bytes, all of it repeated, then "no" in an attribute.
    fn answer(request_len: u32) -> ErrorMessage {
        let mut bytes = request_len.to_ne_bytes().to_vec();
        bytes.resize(request_len as usize, 0);
        bytes.extend([8, 0, 2, 0, 1, 1, 1, 1]); // NLMSGERR_ATTR_OFFS, to be skipped
        bytes.extend([7, 0, 1, 0, b'n', b'o', 0, 0]); // NLMSGERR_ATTR_MSG "no\0", padded
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(-17);
        error.header = bytes;
        error
    }

    #[test]
    fn the_kernels_words_are_found_behind_header_or_request() {
        for (flags, request_len) in [(NLM_F_CAPPED, 16), (0, 16), (0, 40)] {
            let reason = Reason::from_error(&answer(request_len), flags).unwrap();
            assert_eq!(reason, Reason { errno: 17, text: Some("no".to_owned()) });
        }
    }

    #[test]
    fn an_acknowledgement_is_no_refusal_and_a_torn_one_has_no_words() {
        assert_eq!(Reason::from_error(&ErrorMessage::default(), NLM_F_CAPPED), None);
        let mut torn = answer(16);
        for len in (0..torn.header.len() - 1).rev() {
            torn.header.truncate(len);
            for flags in [NLM_F_CAPPED, 0] {
                assert_eq!(Reason::from_error(&torn, flags).map(|reason| reason.errno), Some(17), "{len}");
            }
        }
    }

    #[test]
    fn the_kernels_words_stay_on_their_line() {
        let mut error = answer(16);
        error.header.truncate(24);
        error.header.extend([12, 0, 1, 0, b'n', b'o', b'\n', 0x1b, 0xc2, 0x9b, b'!', 0]);
        let reason = Reason::from_error(&error, NLM_F_CAPPED).unwrap();
        assert_eq!(reason.text.as_deref(), Some("no   !"));
        let reason = Reason::ours(Errno::BADMSG, "the kind in\"m\0\0! cannot be read");
        assert_eq!(reason.text.as_deref(), Some("the kind in\"m  ! cannot be read"));
    }

    #[test]
    fn it_reads_as_operation_errno_words() {
        let refusal = Reason { errno: 17, text: Some("no".to_owned()) }.of("add route 10.1.2.3/32 dev 7");
        assert!(refusal.is_exists() && !refusal.is_not_found());
        assert_eq!(refusal.to_string(), "add route 10.1.2.3/32 dev 7: File exists (os error 17): no");
        let refusal = Reason { errno: 19, text: None }.of("delete link veth0");
        assert!(refusal.is_not_found());
        assert_eq!(refusal.to_string(), "delete link veth0: No such device (os error 19)");
    }
}
