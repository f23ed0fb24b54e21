//! Every command that a document quotes is accepted by the parser of the command line.

use std::{fs, path::Path};

use canton_keyvault::cli::Cli;
use clap::{Parser as _, error::ErrorKind};

/// Placeholders in the documents, and values for them.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("wrapper show ID", "wrapper show wk-001122334455"),
    ("wk-NEW", "wk-001122334455"),
    ("wk-OLD", "wk-001122334455"),
    ("wk-STANDBY", "wk-001122334455"),
    ("wk-…", "wk-001122334455"),
    ("job-…", "job-001122334455"),
    (" JOB", " job-001122334455"),
    ("PROVIDER", "aws-kms"),
    (" ID", " sym-00112233445566778899aabbccddeeff"),
    (" TIME", " 2026-01-31T12:00:00Z"),
    ("$(date +%F)", "2026-01-31"),
];

#[test]
fn every_command_in_the_documents_is_one() {
    let mut read = 0;
    for file in [
        "README.md",
        "docs/alerts.md",
        "docs/canton.md",
        "docs/operations.md",
        "docs/runbooks.md",
        "deploy/aws/README.md",
        "deploy/openbao/README.md",
        "deploy/pkcs11/README.md",
        "deploy/gcp/README.md",
        "deploy/azure/README.md",
        "deploy/helm/canton-keyvault/README.md",
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        for command in text.split('`').skip(1).step_by(2).flat_map(str::lines).filter_map(command) {
            let given = PLACEHOLDERS.iter().fold(command.to_owned(), |line, (name, given)| line.replace(name, given));
            match Cli::try_parse_from(std::iter::once("canton-keyvault").chain(given.split_whitespace())) {
                Ok(_) => {}
                // The document mentions the command without its arguments.
                Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(error) => panic!("{file}: {command}: {error}"),
            }
            read += 1;
        }
    }
    assert!(read > 60, "{read} commands were found");
}

/// A line of code, if it is a command: with the program's name, or one of a group by itself.
fn command(line: &str) -> Option<&str> {
    let line = line.split(['#', '&', '>']).next()?.trim();
    let named = line.strip_prefix("canton-keyvault ");
    let command = named.or_else(|| ["wrapper ", "keys ", "audit "].iter().any(|group| line.starts_with(group)).then_some(line))?;
    (!command.contains('|') && !command.ends_with(" …")).then_some(command)
}
