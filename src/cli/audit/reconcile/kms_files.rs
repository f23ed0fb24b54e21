//! Reads the files of a KMS: files and folders of bounded depth, number and size, compressed or not. What cannot be read ends the command, because a call
//! could be in it.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use crate::{
    audit::reconcile::{CallSet, WrapperKeySet, read_cloudtrail, read_openbao_line},
    cli::Failure,
    files::{self, Limited},
};

/// Bytes of one file, as stored and as decompressed. CloudTrail makes files of some megabytes.
const LONGEST_FILE: u64 = 8 << 30;
/// Bytes of one line of OpenBao.
const LONGEST_LINE: u64 = 4 << 20;
/// Folders in folders. CloudTrail makes eight: account, service, region, year, month, day.
const DEEPEST: usize = 16;
/// Files.
const MOST_FILES: usize = 1_000_000;
/// The first bytes of a file in gzip (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The names of files that are read in a folder.
const NAMES: &[&str] = &[".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".log", ".log.gz"];

/// Adds the calls in files of CloudTrail.
pub(super) fn cloudtrail(paths: &[PathBuf], keys: &WrapperKeySet, calls: &mut CallSet) -> Result<(), Failure> {
    for file in listed(paths, "--cloudtrail")? {
        let reader = open(&file).map_err(|error| unreadable("--cloudtrail", &file, &error))?;
        read_cloudtrail(reader, keys, calls).map_err(|error| unreadable("--cloudtrail", &file, &error))?;
    }
    Ok(())
}

/// Adds the calls in files of an OpenBao audit device.
pub(super) fn openbao(paths: &[PathBuf], keys: &WrapperKeySet, calls: &mut CallSet) -> Result<(), Failure> {
    for file in listed(paths, "--openbao")? {
        let failed = |why: &dyn std::fmt::Display| unreadable("--openbao", &file, why);
        let mut lines = BufReader::new(open(&file).map_err(|error| failed(&error))?);
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            number += 1;
            if (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|error| failed(&error))? == 0 {
                break;
            }
            let complete = line.last() == Some(&b'\n');
            let known =
                line.iter().all(u8::is_ascii_whitespace) || read_openbao_line(&line, keys, calls).map_err(|error| failed(&error))?;
            // The server may be writing the last line.
            if !known && (complete || line.len() as u64 == LONGEST_LINE) {
                return Err(failed(&format_args!("line {number} is none of an OpenBao audit device")));
            }
        }
    }
    Ok(())
}

/// The files that paths name: themselves, and those in folders.
fn listed(paths: &[PathBuf], option: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|error| unreadable(option, path, &error))?;
        if metadata.is_dir() {
            in_folder(path, DEEPEST, &mut found).map_err(|error| unreadable(option, path, &error))?;
        } else {
            found.push(path.clone());
        }
    }
    if !paths.is_empty() && found.is_empty() {
        return Err(Failure::Usage(format!("{option}: there is no file whose name ends with one of {}", NAMES.join(", "))));
    }
    Ok(found)
}

/// Links in a folder are not followed, so that it cannot lead elsewhere.
fn in_folder(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut inside = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    inside.sort_by_key(fs::DirEntry::file_name);
    for entry in inside {
        let (kind, path) = (entry.file_type()?, entry.path());
        let name = entry.file_name();
        if kind.is_dir() && depth == 0 {
            return Err(io::Error::other(format!("has folders in more than {DEEPEST} folders")));
        } else if kind.is_dir() {
            in_folder(&path, depth - 1, found)?;
        } else if kind.is_file() && NAMES.iter().any(|end| name.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
        if found.len() > MOST_FILES {
            return Err(io::Error::other(format!("has more than {MOST_FILES} files")));
        }
    }
    Ok(())
}

/// The content of a file, decompressed if it begins like gzip.
fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 16, files::open(path)?.stream(LONGEST_FILE));
    let packed = file.fill_buf()?.starts_with(&GZIP);
    Ok(if packed { Box::new(BufReader::new(Limited::new(MultiGzDecoder::new(file), LONGEST_FILE))) } else { Box::new(file) })
}

fn unreadable(option: &str, path: &Path, why: &dyn std::fmt::Display) -> Failure {
    anyhow::anyhow!("{option} {}: {why}", path.display()).into()
}
