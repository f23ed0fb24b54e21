//! What an import or export of a node did to each key, and what is missing for the node to start.

use std::io::Write as _;

use serde::Serialize;

use super::node_key::NodeKey;
use crate::{
    cli::{Failure, Format, output::printable},
    domain::{Purpose, Usage, Usages},
};

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It was moved.
    Done,
    /// It was there already, with the same attributes.
    Present,
    /// A dry run: it would be moved.
    Planned,
    /// It was not moved. The report says why.
    Failed,
}

/// A line of the report.
#[derive(Debug, Serialize)]
pub(super) struct ReportedKey {
    /// The file, or the table.
    pub(super) place: String,
    /// The id, if the key could be read.
    pub(super) id: Option<String>,
    pub(super) purpose: Option<Purpose>,
    pub(super) spec: Option<String>,
    pub(super) usage: Usages,
    pub(super) name: Option<String>,
    pub(super) outcome: Outcome,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl ReportedKey {
    /// A key that could be read.
    pub(super) fn of(place: &str, key: &NodeKey, name: &str, outcome: Outcome) -> Self {
        Self {
            place: place.to_owned(),
            id: Some(key.id.to_string()),
            purpose: Some(key.purpose()),
            spec: Some(key.spec().to_owned()),
            usage: key.usages(),
            name: Some(name.to_owned()),
            outcome,
            reason: None,
        }
    }

    /// A key that could not be read.
    pub(super) fn unreadable(place: &str, id: Option<String>, name: Option<String>, reason: String) -> Self {
        let (purpose, spec, usage) = (None, None, Usages::NONE);
        Self { place: place.to_owned(), id, purpose, spec, usage, name, outcome: Outcome::Failed, reason: Some(reason) }
    }

    /// The same key, which failed.
    pub(super) fn failed(self, reason: String) -> Self {
        Self { outcome: Outcome::Failed, reason: Some(reason), ..self }
    }
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) node: String,
    pub(super) dry_run: bool,
    pub(super) keys: Vec<ReportedKey>,
    /// The keys that a node needs to start and that are not among `keys`.
    pub(super) missing: Vec<&'static str>,
    /// The statements that tell Canton which of its keys the vault holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kms_metadata_sql: Vec<String>,
    /// What was changed in the database, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) database: Vec<String>,
}

/// What a node needs to start (`CantonNodeBootstrapImpl`, `ParticipantNodeBootstrap`).
const NEEDED: [(&str, Purpose, Option<Usage>); 4] = [
    ("a namespace key (not needed if only an intermediate key is online)", Purpose::Signing, Some(Usage::Namespace)),
    ("a sequencer-authentication key", Purpose::Signing, Some(Usage::SequencerAuthentication)),
    ("a protocol key", Purpose::Signing, Some(Usage::Protocol)),
    ("an encryption key (needed by participants only)", Purpose::Encryption, None),
];

/// What is missing for a node to start with the keys that did not fail.
pub(super) fn missing(keys: &[ReportedKey]) -> Vec<&'static str> {
    let usable = || keys.iter().filter(|key| key.outcome != Outcome::Failed);
    let has = |purpose, usage: Option<Usage>| {
        usable().any(|key| key.purpose == Some(purpose) && usage.is_none_or(|usage| key.usage.contains(usage)))
    };
    NEEDED.iter().filter(|(_, purpose, usage)| !has(*purpose, *usage)).map(|(what, ..)| *what).collect()
}

impl Report {
    /// Prints the report. Fails if a key failed, after everything is printed.
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Json => writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(self).map_err(std::io::Error::from)?)?,
            Format::Text => self.print_text()?,
        }
        let failed = self.keys.iter().filter(|key| key.outcome == Outcome::Failed).count();
        if failed > 0 {
            let message = format!(
                "{failed} of {} keys failed. Their reasons are in the report. Mend them and run the command again",
                self.keys.len()
            );
            return Err(anyhow::anyhow!(message).into());
        }
        Ok(())
    }

    fn print_text(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        for key in &self.keys {
            let purpose = key.purpose.map_or("-", Purpose::as_str);
            let usage = if key.usage.is_empty() { "-".to_owned() } else { key.usage.to_string() };
            let (id, spec, name) = (key.id.as_deref(), key.spec.as_deref(), key.name.as_deref());
            let [id, spec, name] = [id, spec, name].map(|text| text.unwrap_or("-"));
            let outcome = match key.outcome {
                Outcome::Done => "done",
                Outcome::Present => "present",
                Outcome::Planned => "planned",
                Outcome::Failed => "FAILED",
            };
            writeln!(out, "{outcome:8} {id}  {purpose} {spec} {usage}  {}  {}", printable(name), printable(&key.place))?;
            if let Some(reason) = &key.reason {
                writeln!(out, "         {}", printable(reason))?;
            }
        }
        for what in &self.missing {
            writeln!(out, "missing  {what}")?;
        }
        for line in &self.database {
            writeln!(out, "{}", printable(line))?;
        }
        for statement in &self.kms_metadata_sql {
            writeln!(out, "{statement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(purpose: Purpose, usage: &[Usage], outcome: Outcome) -> ReportedKey {
        let unreadable = ReportedKey::unreadable("file", None, None, String::new());
        ReportedKey { purpose: Some(purpose), usage: usage.iter().copied().collect(), outcome, ..unreadable }
    }

    #[test]
    fn a_node_needs_a_key_of_each_usage_and_failed_keys_do_not_count() {
        let all = [
            key(Purpose::Signing, &[Usage::Namespace], Outcome::Done),
            key(Purpose::Signing, &[Usage::SequencerAuthentication, Usage::Protocol], Outcome::Present),
            key(Purpose::Encryption, &[], Outcome::Planned),
        ];
        assert_eq!(missing(&all), Vec::<&str>::new());
        assert_eq!(missing(&[]).len(), 4);
        assert_eq!(missing(&[key(Purpose::Signing, &[Usage::Namespace], Outcome::Failed)]).len(), 4);
        assert_eq!(missing(&[key(Purpose::Encryption, &[], Outcome::Done)]).len(), 3);
    }
}
