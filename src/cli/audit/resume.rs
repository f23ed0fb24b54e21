//! An NDJSON export that is continued: where its last complete entry is.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Stdout, Write as _},
    path::Path,
};

use super::export_stream::{Header, Line};
use crate::cli::Failure;

/// The longest line of an export, in bytes.
const LONGEST_LINE: u64 = 4 << 20;

/// What a file has of an export.
#[derive(Debug)]
pub(super) struct Part {
    /// The newest header.
    pub(super) header: Header,
    /// The last complete entry, or the last one that a complete export covers.
    pub(super) last: u64,
    /// The number of bytes up to its end.
    pub(super) complete: u64,
    /// The number of complete entries.
    pub(super) entries: u64,
}

impl Part {
    fn add(&mut self, sequence: u64, offset: u64) {
        (self.last, self.complete) = (sequence, offset);
        self.entries += 1;
    }
}

/// Reads the file, with memory for one line.
pub(super) fn read(path: &Path) -> Result<Part, Failure> {
    let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("--out {}: {what}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(|error| wrong(&error))?);
    let (mut part, mut entry): (Option<Part>, Option<u64>) = (None, None);
    let (mut offset, mut number, mut bytes) = (0_u64, 0_u64, Vec::new());
    loop {
        bytes.clear();
        let length = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes).map_err(|error| wrong(&error))?;
        // The last line can be incomplete: it is written again.
        if bytes.pop() != Some(b'\n') {
            return part.ok_or_else(|| wrong(&"not an export of the audit log in --format ndjson"));
        }
        offset += length as u64;
        number += 1;
        let line = Line::of(&bytes).ok_or_else(|| wrong(&format_args!("line {number} is none of an export")))?;
        match (line, &mut part) {
            (Line::Header(header), _) => {
                let entries = part.map_or(0, |part| part.entries);
                part = Some(Part { last: header.after, header, complete: offset, entries });
            }
            (_, None) => return Err(wrong(&"it does not begin with the header of an export")),
            (Line::Entry(sequence), Some(part)) if part.header.filter.is_none() => part.add(sequence, offset),
            // Such an entry is complete with its proof.
            (Line::Entry(sequence), Some(_)) => entry = Some(sequence),
            (Line::Proof, Some(part)) => {
                if let Some(sequence) = entry.take() {
                    part.add(sequence, offset);
                }
            }
            (Line::Checkpoint, Some(part)) => part.complete = offset,
            (Line::End(end), Some(part)) => (part.last, part.complete) = (end.last, offset),
        }
    }
}

/// Opens the file to continue it.
pub(super) fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).open(path).map_err(|error| Failure::Usage(format!("--out {}: {error}", path.display())))
}

/// Where an export is written.
pub(super) trait Truncate {
    /// Removes what is after this number of bytes, and writes there.
    fn truncate_to(&mut self, complete: u64) -> io::Result<()>;
}

impl Truncate for BufWriter<File> {
    fn truncate_to(&mut self, complete: u64) -> io::Result<()> {
        self.flush()?;
        self.get_ref().set_len(complete)?;
        self.get_mut().seek(SeekFrom::Start(complete)).map(drop)
    }
}

/// Nothing is continued on standard output.
impl Truncate for BufWriter<Stdout> {
    fn truncate_to(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"export\":1,\"origin\":\"v/i/1\",\"after\":4,\"frontier\":[]}\n";
    const FILTERED: &str = "{\"export\":1,\"origin\":\"v/i/1\",\"after\":4,\"filter\":{\"node\":\"n\"},\"frontier\":[]}\n";

    fn parsed(text: &str) -> Result<Part, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    fn read_text(text: &str) -> Result<(u64, u64), Failure> {
        parsed(text).map(|part| (part.last, part.complete))
    }

    #[test]
    fn an_export_continues_after_its_last_complete_entry() {
        let five = "{\"v\":4,\"sequence\":5}\n";
        let length = |parts: &[&str]| parts.concat().len() as u64;
        assert_eq!(read_text(HEAD).unwrap(), (4, length(&[HEAD])));
        assert_eq!(read_text(&[HEAD, five, "{\"v\":4,\"sequ"].concat()).unwrap(), (5, length(&[HEAD, five])));
        assert_eq!(read_text(&[FILTERED, five].concat()).unwrap(), (4, length(&[FILTERED])), "it lacks its proof");
        let checkpoint = "{\"checkpoint\":\"v/i/1\"}\n";
        assert_eq!(read_text(&[HEAD, five, checkpoint].concat()).unwrap(), (5, length(&[HEAD, five, checkpoint])));
        let proof = "{\"proof\":[]}\n";
        assert_eq!(read_text(&[FILTERED, five, proof].concat()).unwrap(), (5, length(&[FILTERED, five, proof])));
        let end = "{\"end\":{\"last\":9,\"entries\":1}}\n";
        assert_eq!(read_text(&[FILTERED, five, proof, end].concat()).unwrap(), (9, length(&[FILTERED, five, proof, end])));
        let twice = [FILTERED, five, proof, FILTERED, five, proof, five].concat();
        assert_eq!(parsed(&twice).unwrap().entries, 2, "of all parts, without the one that lacks its proof");
        for wrong in ["", "{\"export\":1", five, "{}\n", "{\"export\":2,\"origin\":\"v/i/1\",\"after\":4}\n"] {
            assert!(read_text(wrong).is_err(), "{wrong}");
        }
    }
}
