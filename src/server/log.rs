//! The log lines of the process: one line for each event, valid in the chosen format from the first line of the process to the last.
//!
//! Text from outside cannot begin a new line or control a terminal. `json` has one object for each line, with `timestamp`, `level`, `target` and
//! `message`, and lists as arrays. The fields of the call that an event belongs to stand beside its own.

use std::{
    fmt,
    panic::{self, PanicHookInfo},
    path::Path,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{
        self as lines, FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{LogConfig, LogFormat},
    files,
    vault::CallFields,
};

/// The `[log]` section of a configuration that may not be valid, so that the lines about its faults have the right format. The defaults if it
/// cannot be read.
pub(crate) fn section_of(file: &Path) -> LogConfig {
    #[derive(serde::Deserialize)]
    struct Sections {
        #[serde(default)]
        log: LogConfig,
    }
    let bytes = files::read(file, files::MAX_FILE).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    // If the file is not TOML as a whole, its section may be.
    let section = || {
        text.find("\n[log]").and_then(|start| text.get(start..)).and_then(|rest| {
            let end = rest.get(6..)?.find("\n[").map_or(rest.len(), |end| end + 6);
            toml::from_str::<Sections>(rest.get(..end)?).ok()
        })
    };
    toml::from_str::<Sections>(&text).ok().or_else(section).map(|found| found.log).unwrap_or_default()
}

/// Sends the log lines to standard error from now on, those of panics included. Standard output is for the results of commands.
///
/// # Errors
/// If the log of the process is set up already.
pub(crate) fn start(config: &LogConfig) -> anyhow::Result<()> {
    // An unusable filter is a fault of the configuration, which the lines must be able to report.
    let filter = config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let lines = lines::layer().with_writer(std::io::stderr).with_ansi(false).event_format(Lines(config.format));
    let installed = tracing_subscriber::registry().with(filter).with(lines).try_init();
    installed.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    let thread = std::thread::current().name().map(str::to_owned);
    let cause = info.payload_as_str().unwrap_or("without a message");
    tracing::error!(location, thread, cause, "a part of the vault panicked; report it");
}

/// The format of a line.
struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut fields = fields.0;
        // The fields of the event come first.
        if let Some(call) = CallFields::current() {
            let of_call = [
                ("request_id", Some(Value::from(&*call.request_id))),
                ("operation", Some(call.operation.into())),
                ("key", call.key().map(|key| key.to_string().into())),
                ("node", call.node().map(|node| node.as_str().into())),
            ];
            for (name, value) in of_call {
                if let Some(value) = value {
                    fields.entry(name).or_insert(value);
                }
            }
        }
        let message = fields.remove("message").unwrap_or_default();
        let metadata = event.metadata();
        // Events of the crate `log` have their target among the fields.
        let of_log = fields.get("log.target").and_then(Value::as_str).map(str::to_owned);
        let target = of_log.as_deref().unwrap_or(metadata.target());
        fields.retain(|name, _| !name.starts_with("log."));
        match self.0 {
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("timestamp".to_owned(), timestamp.into());
                line.insert("level".to_owned(), metadata.level().as_str().into());
                line.insert("target".to_owned(), target.into());
                line.insert("message".to_owned(), message);
                for (name, value) in fields {
                    line.entry(name).or_insert(value);
                }
                writeln!(writer, "{}", Value::Object(line))
            }
            LogFormat::Text => {
                write!(
                    writer,
                    "{timestamp} {:>5} {}: {}",
                    metadata.level().as_str(),
                    target,
                    OneLine(message.as_str().unwrap_or_default())
                )?;
                for (name, value) in fields {
                    write!(writer, " {name}=")?;
                    match value {
                        Value::String(text) if is_word(&text) => write!(writer, "{text}")?,
                        // JSON quotes and escapes what would end the line.
                        other => write!(writer, "{}", OneLine(&other.to_string()))?,
                    }
                }
                writeln!(writer)
            }
        }
    }
}

/// Text without the characters that begin a line or control a terminal.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_printable(c) { write!(f, "{c}")? } else { write!(f, "{}", c.escape_default())? }
        }
        Ok(())
    }
}

/// Neither a control character, nor one that changes the direction or the line: U+2028, U+2029, U+202A to U+202E, U+2066 to U+2069.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'))
}

/// The fields of an event as JSON values.
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        // `Debug` of a list of plain names is JSON.
        match serde_json::from_str(&text) {
            Ok(list @ Value::Array(_)) if LISTS.contains(&field.name()) => self.set(field, list),
            _ => self.set(field, text),
        }
    }
}

/// The fields whose values are lists of names.
const LISTS: &[&str] = &["parts", "sections"];

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::subscriber::with_default;

    use super::*;
    use crate::domain::KeyId;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, events: impl FnOnce()) -> Vec<String> {
        let memory = Memory::default();
        let writer = memory.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(Lines(format));
        with_default(lines.finish(), events);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    const EVIL: &str = "a\nFAKE line\r\x1b[31m\u{2028}\u{202e}\u{9b}\"=";

    fn events() {
        let call = CallFields::new("r-1".into(), "keys.sign", Some(KeyId::Symmetric([1; 16])));
        call.sync_scope(|| {
            tracing::warn!(status = 502, parts = ?["server-certificate", "policy"], cause = EVIL, level = "own", "message {EVIL}");
            tracing::warn!(parts = %r#"["x"]"#, other = ?["a"], operation = "own", "second");
        });
    }

    #[test]
    fn json_has_one_object_for_each_event_with_arrays_and_the_fields_of_the_request() {
        let lines = logged(LogFormat::Json, events);
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), 2, "{lines:?}");
        let first = &parsed[0];
        for (field, expected) in [
            ("level", Value::from("WARN")),
            ("message", Value::from(format!("message {EVIL}"))),
            ("status", 502.into()),
            ("parts", serde_json::json!(["server-certificate", "policy"])),
            ("cause", EVIL.into()),
            ("request_id", "r-1".into()),
            ("operation", "keys.sign".into()),
            ("key", KeyId::Symmetric([1; 16]).to_string().into()),
        ] {
            assert_eq!(first[field], expected, "{field}");
        }
        assert!(first["timestamp"].is_string() && parsed[1]["other"].is_string());
        assert_eq!(parsed[1]["operation"], "own");
    }

    #[test]
    fn text_from_outside_begins_no_line_and_controls_no_terminal() {
        let lines = logged(LogFormat::Text, events);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().all(is_printable)), "{lines:?}");
        assert!(lines[0].ends_with(" status=502") && lines[0].contains(r#"parts=["server-certificate","policy"]"#), "{lines:?}");
        assert!(lines[0].contains("request_id=r-1"), "{lines:?}");
    }

    /// A list that is not in `LISTS` would be a text such as `["a"]` in JSON.
    #[test]
    fn every_field_that_is_logged_by_debug_is_a_known_list() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                    continue;
                }
                if entry.ends_with("server/log.rs") {
                    continue;
                }
                let source = std::fs::read_to_string(&entry).unwrap();
                for event in source.split("tracing::").skip(1).filter_map(|rest| rest.split_once(");").map(|(event, _)| event)) {
                    let is_event = ["trace!", "debug!", "info!", "warn!", "error!"].iter().any(|name| event.starts_with(name));
                    let fields = event.split(" = ?").collect::<Vec<_>>();
                    for before in fields.iter().take(fields.len() - 1).filter(|_| is_event) {
                        let name = before.rsplit([' ', '(', ',']).next().unwrap();
                        assert!(LISTS.contains(&name), "{}: {name}", entry.display());
                    }
                    assert!(
                        !is_event || !fields.iter().any(|part| part.contains("(?") || part.contains(" ?")),
                        "{}: {event}",
                        entry.display()
                    );
                }
            }
        }
    }

    #[test]
    fn the_format_is_found_in_a_configuration_that_is_not_valid() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            ("[log]\nformat = \"text\"\n", LogFormat::Text),
            ("unknown = 1\n[log]\nformat = \"text\"\n[vault]\nid = 7\n", LogFormat::Text),
            ("[vault\nid =\n[log]\nformat = \"text\"\n[wrapper]\n= broken\n", LogFormat::Text),
            ("[log]\nformat = \"xml\"\n", LogFormat::Json),
            ("", LogFormat::Json),
        ] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(section_of(file.path()).format, expected, "{text}");
        }
        assert_eq!(section_of(Path::new("/nonexistent")).format, LogFormat::Json);
    }
}
