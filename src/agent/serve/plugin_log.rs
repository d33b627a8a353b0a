//! Reads the plugin's log for metrics: how often each command ran, and how long an ADD took in each phase.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::agent::serve::metrics::Metrics;

/// Bytes that are read at a time; the plugin rotates its log at about this size.
const AT_ONCE: u64 = 1 << 20;

/// Follows the file through its rotations.
#[derive(Debug)]
pub struct PluginLog {
    path: PathBuf,
    file: Option<(File, u64)>,
    /// Where in it the next line begins.
    offset: u64,
    is_first: bool,
}

impl PluginLog {
    /// Begins at the end of the file: an earlier process counted what is in it.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, offset: 0, is_first: true }
    }

    /// Counts the lines that came since the last call.
    ///
    /// # Errors
    /// When the file cannot be read. That there is none is no error.
    pub fn read(&mut self, metrics: &Metrics) -> io::Result<()> {
        // The rest of a file that was rotated meanwhile, then its successor.
        self.read_open(metrics)?;
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.is_first = false;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let is_known = self.file.as_ref().is_some_and(|(_, inode)| *inode == metadata.ino());
        if !is_known || metadata.len() < self.offset {
            self.offset = if std::mem::take(&mut self.is_first) { metadata.len() } else { 0 };
            self.file = Some((file, metadata.ino()));
            self.read_open(metrics)?;
        }
        Ok(())
    }

    fn read_open(&mut self, metrics: &Metrics) -> io::Result<()> {
        let Some((file, _)) = &mut self.file else { return Ok(()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(AT_ONCE).read_to_end(&mut bytes)?;
        // A line that is being written is left for the next time.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        String::from_utf8_lossy(&bytes[..whole]).lines().for_each(|line| count(line, metrics));
        Ok(())
    }
}

/// Counts the line of a whole command: `level=info cmd=ADD ... took=2.310ms lock=0.048ms ipam=0.302ms`.
fn count(line: &str, metrics: &Metrics) {
    let fields = || line.split(' ').filter_map(|word| word.split_once('='));
    let field = |name: &str| fields().find(|(key, _)| *key == name).map(|(_, value)| value);
    let Some(command) = field("cmd") else { return };
    match field("level") {
        Some("error") => return metrics.command(command, Some(field("code").unwrap_or_default())),
        Some("info") => metrics.command(command, None),
        _ => return,
    }
    if command != "ADD" {
        return;
    }
    for (key, value) in fields() {
        let phase = if key == "took" { "total" } else { key };
        if let Some(milliseconds) = value.strip_suffix("ms").and_then(|number| number.parse::<f64>().ok()) {
            metrics.add_phase(phase, milliseconds / 1e3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    const LINE: &str = "time=2026-11-23T16:04:05.678Z level=info cmd=ADD attachment=podnet/try/eth0 \
                        pod=default/web-0 ips=10.244.1.2 took=2.310ms lock=0.048ms ipam=0.302ms\n";

    fn counted(metrics: &Metrics, what: &str) -> bool {
        metrics.render().unwrap().lines().any(|line| line == what)
    }

    #[test]
    fn lines_are_counted_once_through_rotation_and_a_line_at_work() {
        let directory = std::env::temp_dir().join(format!("ferruled-plugin-log-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let append = |text: &str| {
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let metrics = Metrics::new();
        append(LINE);
        let mut log = PluginLog::new(path.clone());
        log.read(&metrics).unwrap();
        assert!(!metrics.render().unwrap().contains("commands_total{"), "an earlier life counted it");
        append(&LINE[..40]);
        log.read(&metrics).unwrap();
        append(&LINE[40..]);
        append("level=debug cmd=ADD step=lock at=0.214ms took=0.048ms\n");
        append("level=error cmd=DEL attachment=podnet/try/eth0 took=1.000ms code=5 msg=\"x\"\n");
        fs::rename(&path, directory.join("log.1")).unwrap();
        append(LINE);
        log.read(&metrics).unwrap();
        assert!(counted(
            &metrics,
            "ferrule_commands_total{command=\"ADD\",outcome=\"success\",code=\"0\"} 2"
        ));
        assert!(counted(&metrics, "ferrule_commands_total{command=\"DEL\",outcome=\"error\",code=\"5\"} 1"));
        assert!(counted(&metrics, "ferrule_add_phase_duration_seconds_count{phase=\"total\"} 2"));
        assert!(counted(
            &metrics,
            "ferrule_add_phase_duration_seconds_bucket{le=\"0.0005\",phase=\"ipam\"} 2"
        ));
        fs::remove_dir_all(&directory).unwrap();
    }
}
