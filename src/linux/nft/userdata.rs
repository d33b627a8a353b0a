//! Comments and hints, in the form in which `nft` stores and reads them: attributes of one byte type, one byte length
//! (libnftnl, include/libnftnl/udata.h). The kernel keeps them unread.

/// `NFTNL_UDATA_TABLE_COMMENT`, `NFTNL_UDATA_RULE_COMMENT` and `NFTNL_UDATA_SET_ELEM_COMMENT`.
const COMMENT: u8 = 0;

/// What `nft` allows (NFTNL_UDATA_COMMENT_MAXLEN), without the final NUL.
const COMMENT_MAX: usize = 127;

/// A comment as bytes, cut where `nft` would refuse it.
pub(super) fn from_comment(comment: &str) -> Vec<u8> {
    let comment = cut(comment);
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![COMMENT, length];
    bytes.extend(comment.as_bytes());
    bytes.push(0);
    bytes
}

/// A number as bytes.
pub(super) fn from_number(kind: u8, number: u32) -> Vec<u8> {
    let mut bytes = vec![kind, 4];
    bytes.extend(number.to_ne_bytes());
    bytes
}

/// As much of a comment as is kept.
pub(super) fn cut(comment: &str) -> &str {
    let mut end = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    comment.get(..end).unwrap_or_default()
}

/// The comment among `bytes`, if there is one.
pub(super) fn to_comment(mut bytes: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = bytes {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        bytes = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_returns_as_it_was_and_a_long_one_cut() {
        for comment in ["", "default/web-0", &"ä".repeat(63)] {
            assert_eq!(to_comment(&from_comment(comment)).as_deref(), Some(comment));
        }
        let cut = to_comment(&from_comment(&"ä".repeat(64))).unwrap();
        assert_eq!(cut, "ä".repeat(63));
    }

    #[test]
    fn torn_bytes_hold_no_comment() {
        let whole = from_comment("abc");
        for length in 0..whole.len() {
            assert_eq!(to_comment(&whole[..length]), None, "{length}");
        }
        assert_eq!(to_comment(&[7, 1, 9, 0, 2, b'x', 0]).as_deref(), Some("x"));
    }
}
