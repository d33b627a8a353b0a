//! A file of the store: the record of an attachment, of an older ferrule, torn, or changed by hand.

use std::path::Path;

use ferrule::cni::error::CniError;
use ferrule::cni::version::SpecVersion;
use ferrule::desired::nftables::table::show;
use ferrule::store::Record;

use crate::promises;

/// Reads a record.
pub fn check(data: &[u8]) {
    let path = Path::new("/var/lib/cni/ferrule/podnet/by-id/8e5d3ecb0b9f@eth0");
    let record = match Record::from_json(data, path) {
        Ok(record) => record,
        Err(error) => return promises::refusal(&CniError::from(error), SpecVersion::NEWEST),
    };
    // Written again it is the same, as often as it is read.
    let again = Record::from_json(&record.to_json(), path).expect("what was written is read");
    assert_eq!(again, record);

    let pod = record.pod.as_ref().map(ToString::to_string);
    promises::names_of(&record.key(), pod.as_deref());
    promises::file_name(record.boot_id.as_str());
    pod.iter().for_each(|pod| promises::one_line(pod));
    record.host_link.iter().for_each(|link| promises::file_name(link.as_str()));
    record.netns.iter().for_each(|netns| promises::one_line(&netns.path.to_string()));
    record.imported_from.iter().for_each(|directory| promises::one_line(directory));
    for address in &record.addresses {
        promises::file_name(&address.to_string());
    }
    for element in record.rules().iter().flat_map(|rules| rules.elements()) {
        promises::one_line(&show(&element));
        element.comment.iter().for_each(|comment| promises::one_line(comment));
    }
}
