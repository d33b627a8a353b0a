//! What another plugin made: the result of the one before us in a chain, or the answer of an IPAM plugin.

use ferrule::cni::error::CniError;
use ferrule::cni::result::AddResult;
use ferrule::cni::version::SpecVersion;
use serde_json::Value;

use crate::promises;

/// Reads a result, and an error, in every version that the conf may have.
pub fn check(data: &[u8]) {
    if let Some(error) = CniError::from_foreign(data) {
        passed_on(&error);
    }
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let mut seen = Vec::new();
    for version in SpecVersion::ALL {
        match AddResult::parse(version, &value) {
            // Most versions read the same.
            Ok(read) if !seen.contains(&read) => {
                result(&read);
                seen.push(read);
            }
            Ok(_) => {}
            Err(problems) => promises::refusal(&problems.into_error("the result"), version),
        }
    }
}

/// What was read is written in every version, and reads as it was written; the newest version says all of it.
fn result(result: &AddResult) {
    for version in SpecVersion::ALL {
        let read = read_back(result, version);
        assert_eq!(read_back(&read, version), read, "{version}");
        if version == SpecVersion::NEWEST {
            assert_eq!(&read, result);
        }
    }
    for ip in &result.ips {
        assert!(ip.interface.is_none_or(|at| at < result.interfaces.len()));
    }
}

fn read_back(result: &AddResult, version: SpecVersion) -> AddResult {
    let json = result.to_json(version);
    let value: Value = serde_json::from_str(&json).expect("a result is JSON");
    assert_eq!(value["cniVersion"], version.as_str());
    match AddResult::parse(SpecVersion::NEWEST, &value) {
        Ok(read) => read,
        Err(problems) => panic!("{json}\nis written and not read: {problems}"),
    }
}

/// Another plugin's error keeps its words, which are anybody's, and cannot harm the answer or the log.
fn passed_on(error: &CniError) {
    for version in SpecVersion::ALL {
        let answer: Value = serde_json::from_str(&error.to_json(version)).expect("the answer is JSON");
        assert_eq!(answer["code"], error.code.number());
        assert_eq!(answer["msg"], *error.message);
    }
    promises::log_line(&error.to_string());
}
