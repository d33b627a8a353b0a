//! A tar.gz in the making. Every text passes [`redact`] on its way in.

use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::redact;

/// Files below one directory.
pub(super) struct Archive {
    builder: Builder<GzEncoder<Vec<u8>>>,
    directory: String,
    seconds: u64,
    /// Names and lengths, for the MANIFEST.
    files: Vec<(String, usize)>,
}

impl Archive {
    /// An empty one.
    pub(super) fn new(directory: &str, now: SystemTime) -> Self {
        Self {
            builder: Builder::new(GzEncoder::new(Vec::new(), Compression::default())),
            directory: directory.to_owned(),
            seconds: now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            files: Vec::new(),
        }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If its name is none that an archive can have.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = redact(text);
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.seconds);
        let path = format!("{}/{name}", self.directory);
        let added = self.builder.append_data(&mut header, path, text.as_bytes());
        added.map_err(|error| format!("cannot add {name} to the archive: {error}"))?;
        self.files.push((name.to_owned(), text.len()));
        Ok(())
    }

    /// Adds the MANIFEST; all bytes.
    ///
    /// # Errors
    /// As [`Archive::add`].
    pub(super) fn finish(mut self, about: &str) -> Result<Vec<u8>, String> {
        let list: String =
            self.files.iter().map(|(name, length)| format!("{length:>10}  {name}\n")).collect();
        self.add("MANIFEST", &(about.to_owned() + &list))?;
        let written = self.builder.into_inner().and_then(GzEncoder::finish);
        written.map_err(|error| format!("cannot end the archive: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_manifest_names_every_file_and_no_secret_gets_in() {
        let mut archive = Archive::new("bundle", SystemTime::UNIX_EPOCH);
        archive.add("nodes/a/agent.log", "level=info token=abcdef12345\nlevel=info ok\n").unwrap();
        archive.add("doctor.txt", "none\n").unwrap();
        let bytes = archive.finish("About.\n").unwrap();
        let mut entries = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        for entry in entries.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bundle/nodes/a/agent.log", "bundle/doctor.txt", "bundle/MANIFEST"]);
        assert_eq!(found[0].1, "level=info token=REDACTED\nlevel=info ok\n");
        assert!(found[2].1.starts_with("About.\n") && found[2].1.contains("nodes/a/agent.log\n"));
    }
}
