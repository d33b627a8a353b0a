//! Takes out of a text what looks like a secret. What is collected should have none; this is for what somebody put where
//! nobody expects it.

use std::cmp::Reverse;

/// Instead of a secret.
const REDACTED: &str = "REDACTED";

/// Words whose value is one, with `-` for `_`. What follows them may be more of a name, as `secret_access_key` has it.
const KEYS: [&str; 12] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "authorization",
    "api-key",
    "apikey",
    "access-key",
    "client-key-data",
    "private-key",
    "credential",
];

/// What stands between such a word and its value.
const BETWEEN: [char; 4] = ['"', '\'', ' ', '\\'];

/// A token of this form is long (RFC 7519: three parts in base64, the first of which begins with `{"`).
const JWT: &str = "eyJ";
const JWT_LENGTH: usize = 40;

/// The text without them.
pub(super) fn redact(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        // RFC 7468. In JSON a whole key may be on one line.
        let begins = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----");
        let ends = line.contains("-----END ");
        if begins || in_key {
            if begins {
                kept.push_str(REDACTED);
                kept.push('\n');
            }
            in_key = !ends;
            continue;
        }
        redact_line(line, &mut kept);
    }
    kept
}

fn redact_line(line: &str, kept: &mut String) {
    let lower = line.to_ascii_lowercase().replace('_', "-");
    let mut from = 0;
    while let Some((begin, end)) = next_secret(line, &lower, from) {
        kept.push_str(line.get(from..begin).unwrap_or_default());
        kept.push_str(REDACTED);
        from = end;
    }
    kept.push_str(line.get(from..).unwrap_or_default());
}

/// Where the next secret begins and ends.
fn next_secret(line: &str, lower: &str, from: usize) -> Option<(usize, usize)> {
    let of_key = KEYS.iter().filter_map(|key| value_of(line, lower, key, from));
    let tokens = lower.get(from..)?.match_indices("eyj").filter_map(|(place, _)| {
        let begin = from + place;
        let end = begin + length(line.get(begin..)?, |c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        (line.get(begin..)?.starts_with(JWT) && end - begin >= JWT_LENGTH).then_some((begin, end))
    });
    // Of several that begin there, the longest.
    let (begin, end) =
        of_key.chain(tokens).chain(of_url(line, from)).min_by_key(|it| (it.0, Reverse(it.1)))?;
    Some((begin, end))
}

/// The password of `scheme://user:password@host`.
fn of_url(line: &str, from: usize) -> Option<(usize, usize)> {
    line.get(from..)?.match_indices("://").find_map(|(place, scheme)| {
        let begin = from + place + scheme.len();
        let authority = line.get(begin..)?;
        let authority = &authority[..length(authority, |c| !c.is_whitespace() && !"/?#\"'\\<>".contains(c))];
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':')?;
        let place = begin + name.len() + 1;
        (!password.is_empty() && password != REDACTED).then_some((place, place + password.len()))
    })
}

/// The value of `key=value`, `key: value` or `"key": "value"`.
fn value_of(line: &str, lower: &str, key: &str, from: usize) -> Option<(usize, usize)> {
    for (place, _) in lower.get(from..)?.match_indices(key) {
        let mut begin = from + place + key.len();
        begin += length(lower.get(begin..)?, |c| c.is_ascii_alphanumeric() || c == '-');
        begin += length(line.get(begin..)?, |c| BETWEEN.contains(&c));
        let Some('=' | ':') = line.get(begin..)?.chars().next() else { continue };
        begin += 1;
        let between = length(line.get(begin..)?, |c| BETWEEN.contains(&c));
        let before = line.get(begin..begin + between)?;
        // In JSON within JSON quotes have a backslash before them.
        let is_nested = before.contains('\\');
        let quote = before.chars().rev().find(|c| ['"', '\''].contains(c));
        begin += between;
        // A scheme before it, as of HTTP.
        for scheme in ["bearer ", "basic "] {
            begin += if lower.get(begin..)?.starts_with(scheme) { scheme.len() } else { 0 };
        }
        let end = match quote {
            Some(quote) => begin + quoted(line.get(begin..)?, quote, is_nested),
            None => begin + length(line.get(begin..)?, |c| !c.is_whitespace() && !"\"'}\\".contains(c)),
        };
        let value = line.get(begin..end)?;
        // Numbers, null and switches are none; nor is what is redacted already.
        let is_number = value.trim_end_matches(',').parse::<f64>().is_ok() && quote.is_none();
        let word = value.trim_end_matches([',', ']', ';']);
        let is_plain = is_number || ["", "null", "true", "false", REDACTED].contains(&word);
        if end > begin && !is_plain && !value.starts_with(['[', '{']) {
            return Some((begin, end));
        }
    }
    None
}

/// Bytes until the quote that ends a text, or the line's end.
fn quoted(text: &str, quote: char, is_nested: bool) -> usize {
    let mut is_escaped = false;
    let ends = |c: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        is_escaped = c == '\\' && !is_nested && !was_escaped;
        c == '\n' || !was_escaped && (c == quote || c == '\\' && is_nested)
    };
    text.find(ends).unwrap_or(text.len())
}

/// Bytes of the characters at the beginning that are of that kind.
fn length(text: &str, is_of_kind: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_of_kind(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_what_is_around_them_stays() {
        let jwt = format!("eyJ{}.{}.{}", "a".repeat(20), "b".repeat(20), "c".repeat(20));
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY-----\n";
        for (text, redacted) in [
            ("level=info token=abc pod=a", "level=info token=REDACTED pod=a"),
            ("{\"Password\": \"a b, c\"}", "{\"Password\": \"REDACTED\"}"),
            ("\"password\": \"1234\"", "\"password\": \"REDACTED\""),
            (r#"{"password":"a\"b","x":"y"}"#, r#"{"password":"REDACTED","x":"y"}"#),
            ("password=a,b;c d", "password=REDACTED d"),
            ("AWS_SECRET_ACCESS_KEY=abc x", "AWS_SECRET_ACCESS_KEY=REDACTED x"),
            ("private_key: abc", "private_key: REDACTED"),
            ("proxy=http://me:abc@proxy:3128/ up", "proxy=http://me:REDACTED@proxy:3128/ up"),
            ("Ä token=ö x", "Ä token=REDACTED x"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer REDACTED"),
            ("client-key-data: LS0t\nname: x\n", "client-key-data: REDACTED\nname: x\n"),
            ("bootstrap-token: 'abc'", "bootstrap-token: 'REDACTED'"),
            ("said \"token\\\": \\\"abc\\\" again", "said \"token\\\": \\\"REDACTED\\\" again"),
            (&format!("got {jwt}, refused"), "got REDACTED, refused"),
            (&format!("before\n{key}after\n"), "before\nREDACTED\nafter\n"),
            ("token=a token=b", "token=REDACTED token=REDACTED"),
        ] {
            assert_eq!(redact(text), redacted, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "automountServiceAccountToken: false",
            "the token bucket of veth1 is gone",
            "\"secrets\": null, \"tokens\": 3",
            "eyJust a word",
            "https://10.96.0.1:443/api?x=a@b",
            "automountServiceAccountToken: true, x",
            "chain in-1c7ab4e0-0000 { type filter hook forward priority 0 }",
            "",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
