//! Takes out of a text what looks like a secret. What is collected should have none; this is for what somebody put where
//! nobody expects it.

/// Instead of a secret.
const REDACTED: &str = "REDACTED";

/// Words whose value is one.
const KEYS: [&str; 9] = [
    "token",
    "password",
    "passwd",
    "secret",
    "authorization",
    "api-key",
    "apikey",
    "client-key-data",
    "private-key",
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
    let lower = line.to_ascii_lowercase();
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
    of_key.chain(tokens).min()
}

/// The value of `key=value`, `key: value` or `"key": "value"`.
fn value_of(line: &str, lower: &str, key: &str, from: usize) -> Option<(usize, usize)> {
    for (place, _) in lower.get(from..)?.match_indices(key) {
        let mut begin = from + place + key.len();
        begin += length(line.get(begin..)?, |c| BETWEEN.contains(&c));
        let Some('=' | ':') = line.get(begin..)?.chars().next() else { continue };
        begin += 1;
        begin += length(line.get(begin..)?, |c| BETWEEN.contains(&c));
        // A scheme before it, as of HTTP.
        for scheme in ["bearer ", "basic "] {
            begin += if lower.get(begin..)?.starts_with(scheme) { scheme.len() } else { 0 };
        }
        let is_of_value = |c: char| !c.is_whitespace() && !"\"',;}\\".contains(c);
        let end = begin + length(line.get(begin..)?, is_of_value);
        let value = line.get(begin..end)?;
        // Numbers, null and switches are none; nor is what is redacted already.
        let is_plain = value.parse::<f64>().is_ok() || ["null", "true", "false", REDACTED].contains(&value);
        if end > begin && !is_plain && !value.starts_with(['[', '{']) {
            return Some((begin, end));
        }
    }
    None
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
            ("{\"Password\": \"a b\"}", "{\"Password\": \"REDACTED b\"}"),
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
            "chain in-1c7ab4e0-0000 { type filter hook forward priority 0 }",
            "",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
