//! The agent's log: lines of `key=value` on stderr, in the form of the plugin's, so that `kubectl logs` reads well and
//! both can be searched with the same words.

use std::fmt;
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::log::{push_field, utc};

/// Starts the log. `level` is a level, or directives for several parts.
///
/// # Errors
/// What is wrong with the directives.
pub fn start(level: &str) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(directives(level)).map_err(|error| format!("--log-level {level:?}: {error}"))?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(KeyValue)
        .try_init();
    started.map_err(|error| error.to_string())
}

/// A bare level is the agent's; the libraries' own lines are for those who ask for them. That of the API server calls
/// each answer it does not get an error; the agent says once that there are none.
fn directives(level: &str) -> String {
    if level.contains(['=', ',']) {
        level.to_owned()
    } else {
        format!("error,kube_client=off,ferrule={level}")
    }
}

/// For a field of a line: `8.412ms`, as the plugin's log has it.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.3}ms", duration.as_secs_f64() * 1e3)
}

struct KeyValue;

impl<S, N> FormatEvent<S, N> for KeyValue
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(
            writer,
            "time={} level={}{}{}",
            utc(now),
            word(*event.metadata().level()),
            fields.message,
            fields.rest
        )?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|it| !it.is_empty()) {
                write!(writer, " {fields}")?;
            }
        }
        writeln!(writer)
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The fields of an event; the message comes first, wherever it was given.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn push(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => push_field(&mut self.message, "msg", value),
            name => push_field(&mut self.rest, name, value),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_key_value_and_no_value_can_begin_another() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(KeyValue).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(node = "b", set = 2, reason = "no\nway", "routes to peers");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.starts_with("time=20") && time.ends_with('Z'), "{time}");
        assert_eq!(rest, "level=info msg=\"routes to peers\" node=b set=2 reason=\"no\\nway\"\n");
    }

    #[test]
    fn a_bare_level_is_the_agents() {
        assert_eq!(directives("debug"), "error,kube_client=off,ferrule=debug");
        assert_eq!(directives("info,kube=debug"), "info,kube=debug");
    }
}
