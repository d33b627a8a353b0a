//! The conf of a network as it was written: a JSON object and the version in which it is to be answered.
//!
//! What the keys mean is for the layer `config` to say. Here stands only what must be known before
//! anything else can be: that it is JSON at all, and its version.

use serde_json::Value;

use super::error::{CniError, Code};
use super::problem::quote;
use super::version::SpecVersion;

/// Most values of a conf: lists, objects, and what stands in them. In memory a value may take a hundred times
/// its text. The 5,000 nodes of the largest clusters, all as static peers, are 40,000.
const VALUES_MAX: usize = 128 * 1024;

/// A conf that is a JSON object of a version that ferrule speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// Its `cniVersion`.
    pub version: SpecVersion,
    /// The whole object, [`Conf::version`] included.
    pub document: Value,
}

impl Conf {
    /// Reads a conf.
    ///
    /// # Errors
    /// Code 6 if the bytes are no JSON, with line and column; 7 if they are no object; 1 if `cniVersion`
    /// is none that ferrule speaks. An absent `cniVersion` means 0.1.0, as it always did.
    pub fn parse(bytes: &[u8]) -> Result<Self, CniError> {
        let undecodable =
            |why: String| CniError::new(Code::Decode, "the conf on stdin is not JSON").with_details(why);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(undecodable("stdin was empty; a runtime writes the network's conf to it".to_owned()));
        }
        let text =
            str::from_utf8(bytes).map_err(|error| undecodable(not_utf8(bytes, error.valid_up_to())))?;
        if count_values(text) > VALUES_MAX {
            return Err(CniError::new(
                Code::Decode,
                format!("the conf on stdin has more than {VALUES_MAX} values"),
            ));
        }
        let document: Value = serde_json::from_str(text).map_err(|error| undecodable(error.to_string()))?;
        if !document.is_object() {
            return Err(CniError::new(Code::InvalidConf, "the conf on stdin is not a JSON object"));
        }
        Ok(Self { version: read_version(&document)?, document })
    }

    /// A conf that says nothing.
    pub fn empty(version: SpecVersion) -> Self {
        Self { version, document: Value::Object(serde_json::Map::new()) }
    }
}

/// How many values a text has if it is JSON, and otherwise any number. An empty list counts for two.
fn count_values(text: &str) -> usize {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let begins_value = text.bytes().filter(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_in_string,
            b'"' => is_in_string = !is_in_string,
            b',' | b'[' | b'{' => return !is_in_string,
            _ => {}
        }
        false
    });
    1 + begins_value.count()
}

fn read_version(document: &Value) -> Result<SpecVersion, CniError> {
    let text = match document.get("cniVersion") {
        None | Some(Value::Null) => return Ok(SpecVersion::V0_1_0),
        Some(Value::String(text)) if text.is_empty() => return Ok(SpecVersion::V0_1_0),
        Some(Value::String(text)) => text,
        Some(_) => {
            return Err(CniError::new(Code::InvalidConf, "the conf has a problem")
                .with_details("cniVersion: is not a string; write it like \"1.0.0\""));
        }
    };
    SpecVersion::parse(text).ok_or_else(|| {
        CniError::new(Code::IncompatibleVersion, format!("cniVersion {} is not spoken here", quote(text)))
            .with_details(format!("ferrule speaks {}", spoken()))
    })
}

/// Every version, for messages.
fn spoken() -> String {
    SpecVersion::ALL.map(SpecVersion::as_str).join(", ")
}

/// Says where the bytes stop being UTF-8, counting as serde_json does: from 1, columns in bytes.
fn not_utf8(bytes: &[u8], valid_up_to: usize) -> String {
    let valid = bytes.get(..valid_up_to).unwrap_or_default();
    let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = valid.rsplit(|byte| *byte == b'\n').next().unwrap_or_default().len() + 1;
    format!("not UTF-8 at line {line} column {column}")
}

/// The version that a conf asks to be answered in, of a conf that may be cut off, too long or no JSON.
/// Looks for the key and its value only: a best effort for the form of an error, nothing else.
pub fn version_of_fragment(bytes: &[u8]) -> Option<SpecVersion> {
    const KEY: &[u8] = b"\"cniVersion\"";
    let mut starts = bytes.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY);
    starts.find_map(|(at, _)| {
        let rest = bytes.get(at + KEY.len()..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let value = rest.strip_prefix(b"\"")?.split(|byte| *byte == b'"').next()?;
        SpecVersion::parse(str::from_utf8(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONF: &str =
        r#"{"name": "podnet", "cniVersion": "1.0.0", "type": "ferrule", "ipam": {"ranges": [[{}]]}}"#;

    #[test]
    fn every_version_is_taken_and_none_means_the_first() {
        for version in SpecVersion::ALL {
            let conf = Conf::parse(format!(r#"{{"cniVersion":"{version}"}}"#).as_bytes()).unwrap();
            assert_eq!(conf.version, version);
        }
        for text in ["{}", r#"{"cniVersion":""}"#, r#"{"cniVersion":null}"#] {
            assert_eq!(Conf::parse(text.as_bytes()).unwrap().version, SpecVersion::V0_1_0);
        }
    }

    #[test]
    fn values_are_counted_and_what_stands_in_strings_is_none() {
        for (text, count) in [("{}", 2), (r#"{"a":[1,2,{"b":3}]}"#, 6), (r#"{"a":",[{\",","b":"\\"}"#, 3)] {
            assert_eq!(count_values(text), count, "{text}");
        }
        let list = |values: usize| format!("[{}]", vec!["0"; values].join(","));
        let refused = Conf::parse(list(VALUES_MAX).as_bytes()).unwrap_err();
        assert_eq!(refused.code, Code::Decode);
        let taken = Conf::parse(list(VALUES_MAX - 1).as_bytes()).unwrap_err();
        assert_eq!(taken.code, Code::InvalidConf, "no object, but JSON");
    }

    #[test]
    fn a_version_from_the_future_is_code_1_with_the_list() {
        let error = Conf::parse(br#"{"cniVersion":"2.0.0"}"#).unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion);
        assert_eq!(error.message, r#"cniVersion "2.0.0" is not spoken here"#);
        assert_eq!(error.details, "ferrule speaks 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
        assert_eq!(Conf::parse(br#"{"cniVersion":1}"#).unwrap_err().code, Code::InvalidConf);
    }

    #[test]
    fn a_conf_cut_off_anywhere_is_code_6_with_its_place() {
        for end in 0..CONF.len() {
            let error = Conf::parse(&CONF.as_bytes()[..end]).unwrap_err();
            assert_eq!(error.code, Code::Decode, "{end}");
            assert!(end == 0 || error.details.contains(&format!("line 1 column {end}")), "{error}");
        }
        assert!(Conf::parse(CONF.as_bytes()).is_ok());
    }

    #[test]
    fn bytes_that_are_no_text_are_code_6_with_their_place() {
        let error = Conf::parse(b"{\n  \"name\": \"\xff\"}").unwrap_err();
        assert_eq!((error.code, error.details.as_str()), (Code::Decode, "not UTF-8 at line 2 column 12"));
    }

    #[test]
    fn a_conf_nested_too_deep_is_code_6_and_does_not_eat_the_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for depth in [200, 100_000] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                let error = Conf::parse(text.as_bytes()).unwrap_err();
                assert_eq!(error.code, Code::Decode);
                assert!(error.details.contains("recursion limit exceeded at line 1"), "{error}");
            }
        }
    }

    #[test]
    fn json_that_is_no_object_is_code_7() {
        for text in ["[]", "1", "\"x\"", "null", "true"] {
            assert_eq!(Conf::parse(text.as_bytes()).unwrap_err().code, Code::InvalidConf, "{text}");
        }
        assert_eq!(Conf::parse(b"{} {}").unwrap_err().code, Code::Decode);
        assert_eq!(Conf::parse(b" \n").unwrap_err().code, Code::Decode);
    }

    #[test]
    fn the_version_is_found_in_what_is_no_json_any_more() {
        assert_eq!(version_of_fragment(&CONF.as_bytes()[..50]), Some(SpecVersion::V1_0_0));
        assert_eq!(
            version_of_fragment(b"\xff \"cniVersion\" :\n\t\"0.4.0\" \xff"),
            Some(SpecVersion::V0_4_0)
        );
        for text in
            ["", "\"cniVersion\"", "\"cniVersion\":", "\"cniVersion\":\"9\"", "\"cniVersion\":\"1.0.0x\""]
        {
            assert_eq!(version_of_fragment(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), text in "\\PC*", at in 0..CONF.len()) {
            let _ = (Conf::parse(&bytes), Conf::parse(text.as_bytes()), version_of_fragment(&bytes));
            let mut broken = CONF.as_bytes().to_vec();
            broken.splice(at..at, bytes);
            let _ = (Conf::parse(&broken), version_of_fragment(&broken));
        }
    }
}
