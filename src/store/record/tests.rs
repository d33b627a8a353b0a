use super::*;

/// What `cat` shows. Stores on people's nodes hold this form: it may grow, and never change.
const GOLDEN: &str = r#"{
  "version": 1,
  "network": "podnet",
  "container": "8e5d3ecb0b9f",
  "ifname": "eth0",
  "netns": {
    "path": "/run/netns/cni-1",
    "dev": 4,
    "ino": 4026532201
  },
  "bootId": "6c3b1c1e-5f0a-4a57-9d7e-0d6f1a2b3c4d",
  "hostLink": "veth0123456789a",
  "addresses": [
    "10.244.1.2",
    "fd00:10:244:1::2"
  ],
  "pod": {
    "namespace": "default",
    "name": "web-0"
  },
  "masquerade": true,
  "hostPorts": [
    {
      "hostIP": "127.0.0.1",
      "hostPort": 8080,
      "containerPort": 80,
      "protocol": "tcp"
    }
  ],
  "created": 1795445360,
  "sum": "fe965990cdb3c7f6"
}
"#;

const SUM_OF_GOLDEN: &str = "fe965990cdb3c7f6";

fn read(json: &str) -> Result<Record, StoreError> {
    Record::from_json(json.as_bytes(), Path::new("by-id/x"))
}

#[test]
fn a_record_is_written_as_it_is_read() {
    let record = read(GOLDEN).unwrap();
    assert_eq!(record.key().to_string(), "podnet/8e5d3ecb0b9f/eth0");
    assert_eq!(String::from_utf8(record.to_json()).unwrap(), GOLDEN);
}

/// Whatever version is added to tests/formats, the ones before it stay there.
#[test]
fn a_record_of_version_0_1_is_read() {
    let record = read(include_str!("../../../tests/formats/0.1/record")).unwrap();
    assert_eq!(record.key().to_string(), "podnet/8e5d3ecb0b9f/eth0");
    assert_eq!(record.pod.unwrap().uid.as_deref(), Some("00000000-0000-4000-8000-00000000000a"));
    assert_eq!((record.addresses.len(), record.host_ports.len(), record.masquerade), (2, 1, true));
    assert_eq!(record.mac.unwrap().to_string(), "0a:58:0a:f4:01:05");
    assert_eq!(record.bandwidth.ingress, Some(Limit { rate: 100_000_000, burst: Some(8_000_000) }));
}

/// As older versions wrote it, and as somebody leaves it who has edited it by hand.
fn without_sum() -> String {
    GOLDEN.replace(&format!("{SUM}{SUM_OF_GOLDEN}\""), "")
}

#[test]
fn a_record_without_checksum_is_believed_a_wrong_one_is_not() {
    assert_eq!(read(&without_sum()).unwrap(), read(GOLDEN).unwrap());
    let edited = GOLDEN.replace("web-0", "web-1");
    assert!(read(&edited).unwrap_err().to_string().contains("checksum"));
    let compact = serde_json::from_str::<serde_json::Value>(GOLDEN).unwrap().to_string();
    assert!(read(&compact).unwrap_err().to_string().contains("checksum"));
}

#[test]
fn one_that_was_imported_says_from_where() {
    let mark = "  \"importedFrom\": \"/var/lib/cni/networks/podnet\",\n  \"created\"";
    let json = GOLDEN.replace("  \"created\"", mark).replace(SUM_OF_GOLDEN, "ec4b12e4ef1e5ade");
    let record = read(&json).unwrap();
    assert_eq!(record.imported_from.as_deref(), Some("/var/lib/cni/networks/podnet"));
    assert_eq!(String::from_utf8(record.to_json()).unwrap(), json);
}

#[test]
fn what_only_some_attachments_have_may_be_missing() {
    let json = r#"{"version":1,"network":"n","container":"c","ifname":"i","bootId":"b",
            "addresses":[],"created":0,"colour":"blue"}"#;
    let record = read(json).unwrap();
    assert_eq!((record.rules(), record.masquerade, record.host_ports.len()), (None, false, 0));
    assert_eq!((record.netns, record.host_link, record.pod), (None, None, None));
    assert_eq!(record.imported_from, None);
    assert_eq!((record.mac, record.bandwidth), (None, Bandwidth::default()));
}

#[test]
fn what_the_nodes_end_is_made_from_is_read_as_it_was_written() {
    let mut record = read(GOLDEN).unwrap();
    record.mac = MacAddr::parse("02:11:22:33:44:55");
    record.bandwidth.egress = Some(Limit { rate: 8_000_000, burst: None });
    record.bandwidth.ingress = Some(Limit { rate: 16_000_000, burst: Some(80_000) });
    assert_eq!(read(&String::from_utf8(record.to_json()).unwrap()).unwrap(), record);
}

#[test]
fn a_pods_name_that_could_forge_a_line_is_left_out() {
    for bad in ["web-0\\n", "web/0", "", "web-0\\u001b[2J"] {
        let record = read(&without_sum().replace("web-0", bad)).unwrap();
        assert_eq!((record.pod, record.addresses.len()), (None, 2), "{bad}");
    }
    let mark = "\"importedFrom\": \"/var\\n\", \"created\"";
    assert!(matches!(read(&without_sum().replace("\"created\"", mark)), Err(StoreError::Damaged(_))));
}

#[test]
fn a_word_that_is_none_of_ours_does_not_break_the_message() {
    for word in ["t\\u009bcp", "\\n", &"x".repeat(4000)] {
        let error = read(&without_sum().replace("tcp", word)).unwrap_err().to_string();
        assert!(error.contains("unknown variant") && !error.contains(char::is_control), "{error:?}");
        assert!(error.len() < 500, "{}", error.len());
    }
}

#[test]
fn a_value_that_would_be_dangerous_to_use_is_damage() {
    for (good, bad) in [
        ("podnet", "../podnet"),
        ("8e5d3ecb0b9f", "a/b"),
        ("\"eth0\"", "\"\""),
        ("/run/netns/cni-1", "run"),
        ("veth0123456789a", "veth0123456789abcdef"),
        ("10.244.1.2", "10.244.1"),
        ("4026532201", "-1"),
        ("6c3b1c1e-5f0a", "/"),
        ("\"version\": 1", "\"version\": 0"),
        ("\"version\": 1", "\"version\": \"1\""),
    ] {
        let error = read(&without_sum().replace(good, bad)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{bad}: {error}");
        assert!(!error.to_string().contains("checksum"), "{bad}: {error}");
    }
}
