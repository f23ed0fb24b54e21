//! A sink in a file that only grows: one line for each entry, on the disk before the batch is confirmed, rotated by size.
//!
//! A file that somebody removed or renamed is begun anew with the next batch. A crash can leave a part of a line; the next write ends that line, and
//! the entry follows again as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{EntrySink, FileSinkConfig, SinkEntry, SinkFault, lines};

/// The sink.
pub(super) struct FileSink {
    path: PathBuf,
    /// Held by the thread that writes: a write that hangs is not joined by a second one.
    lines: Arc<Mutex<LineFile>>,
}

/// The open file.
struct LineFile {
    config: FileSinkConfig,
    open: Option<File>,
    /// The last entry in the open file that this process wrote.
    last: Option<u64>,
}

impl FileSink {
    pub(super) fn new(config: &FileSinkConfig) -> Self {
        Self { path: config.path.clone(), lines: Arc::new(Mutex::new(LineFile { config: config.clone(), open: None, last: None })) }
    }

    async fn run<T: Send + 'static>(&self, write: impl FnOnce(&mut LineFile) -> io::Result<T> + Send + 'static) -> Result<T, SinkFault> {
        let mut lines = Arc::clone(&self.lines).try_lock_owned().map_err(|_| SinkFault::Busy)?;
        let written = tokio::task::spawn_blocking(move || write(&mut lines)).await;
        written.map_err(io::Error::other).flatten().map_err(|error| SinkFault::write(&self.path, error))
    }
}

#[async_trait]
impl EntrySink for FileSink {
    async fn send(&mut self, batch: &[SinkEntry]) -> Result<(), SinkFault> {
        let Some(last) = batch.last().map(|entry| entry.sequence) else { return Ok(()) };
        let text = lines(batch);
        self.run(move |file| file.append(&text, last)).await
    }

    async fn probe(&mut self) -> Result<String, SinkFault> {
        let path = self.path.display().to_string();
        self.run(LineFile::writable).await?;
        Ok(format!("{path} can be written"))
    }
}

impl LineFile {
    /// Appends lines, and returns when they are on the disk.
    fn append(&mut self, text: &[u8], last: u64) -> io::Result<()> {
        let appended = self.try_append(text, last);
        if appended.is_err() {
            // The next attempt looks at the end of the file again.
            self.open = None;
        }
        appended
    }

    fn try_append(&mut self, text: &[u8], last: u64) -> io::Result<()> {
        self.close_if_moved();
        if let Some(file) = &self.open
            && let Some(before) = self.last
            && file.metadata()?.len() >= self.config.rotate_bytes
        {
            self.rotate(before)?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(file) = &mut self.open else { return Err(io::Error::other("the file is not open")) };
        let before = file.metadata()?.len();
        let written = file.write_all(text).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // So that a full disk does not get a part of a line at each attempt. It fails if the file has the attribute append-only.
            let _ = file.set_len(before);
            return Err(error);
        }
        self.last = Some(last);
        Ok(())
    }

    /// Forgets the open file if the path names another one or none.
    fn close_if_moved(&mut self) {
        let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let open = self.open.as_ref().and_then(|file| file.metadata().ok());
        let named = fs::symlink_metadata(&self.config.path).ok();
        if open.as_ref().map(identity) != named.as_ref().map(identity) {
            if self.open.is_some() {
                tracing::warn!(path = %self.config.path.display(), "the file of an audit sink was removed or renamed; a new one is begun");
            }
            self.open = None;
        }
    }

    /// Opens or creates the file. A line that has no end gets one.
    fn begin(&mut self) -> io::Result<File> {
        let path = &self.config.path;
        let existed = path.symlink_metadata().is_ok();
        let mut file = open(path)?;
        let size = file.metadata()?.len();
        let mut end = [0];
        if size > 0 && file.read_at(&mut end, size - 1)? == 1 && end != *b"\n" {
            file.write_all(b"\n")?;
        }
        if !existed {
            File::open(folder(path))?.sync_all()?;
        }
        // An earlier process may have written more than the limit. Without a known last entry, the file is rotated after the next batch.
        Ok(file)
    }

    /// Renames the file after its last entry, and deletes the oldest renamed files.
    fn rotate(&mut self, last: u64) -> io::Result<()> {
        let path = &self.config.path;
        fs::rename(path, renamed(path, last))?;
        self.open = None;
        self.last = None;
        File::open(folder(path))?.sync_all()?;
        let mut kept = renamed_files(path)?;
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(self.config.kept_files as usize);
        kept.into_iter().take(surplus).try_for_each(|(_, file)| fs::remove_file(file))
    }

    /// Whether the file, or the folder in which it will be created, can be written. Creates nothing.
    fn writable(&mut self) -> io::Result<()> {
        let path = &self.config.path;
        if path.symlink_metadata().is_ok() {
            return open(path).map(drop);
        }
        let metadata = fs::metadata(folder(path))?;
        if !metadata.is_dir() {
            return Err(io::Error::other("its folder is no folder; create it"));
        }
        rustix::fs::access(folder(path), rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).map_err(io::Error::from)
    }
}

/// Opens a regular file for appending. Never waits for a FIFO, never follows a link.
fn open(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is not a regular file; name a file")) }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The name after the rotation. The names sort as the entries do.
fn renamed(path: &Path, last: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{last:0DIGITS$}"));
    name.into()
}

/// The digits of the largest sequence number.
const DIGITS: usize = 20;

/// The renamed files, with the sequence number in their names.
fn renamed_files(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let file = entry.file_name();
        let digits = file.to_str().and_then(|file| file.strip_prefix(&name)).filter(|digits| digits.len() == DIGITS);
        if let Some(last) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((last, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn entry(sequence: u64) -> SinkEntry {
        let bytes = format!("{{\"sequence\":{sequence},\"filler\":\"{}\"}}", "x".repeat(1000)).into_bytes();
        SinkEntry { sequence, at: Timestamp::from_micros(0), ok: true, trace_id: None, bytes }
    }

    fn sink(path: &Path) -> FileSink {
        FileSink::new(&FileSinkConfig { path: path.to_owned(), rotate_bytes: 65536, kept_files: 2 })
    }

    #[tokio::test]
    async fn a_file_is_rotated_by_size_and_the_oldest_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.ndjson");
        let mut sink = sink(&path);
        for sequence in 1..=400 {
            sink.send(&[entry(sequence)]).await.unwrap();
        }
        let mut files = renamed_files(&path).unwrap();
        files.sort_unstable();
        assert_eq!(files.len(), 2, "{files:?}");
        let mut text = String::new();
        for file in files.iter().map(|(_, file)| file).chain([&path]) {
            assert!(fs::metadata(file).unwrap().len() < 65536 + 1100);
            text += &fs::read_to_string(file).unwrap();
        }
        let numbers: Vec<u64> =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (numbers[0]..=400).collect::<Vec<_>>(), "in order, without a gap");
        let (last, first) = (&files[0], fs::read_to_string(&files[0].1).unwrap());
        assert!(first.lines().last().unwrap().contains(&format!("\"sequence\":{},", last.0)), "the name is the last entry");
    }

    #[tokio::test]
    async fn a_line_without_an_end_gets_one_and_a_removed_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.ndjson");
        fs::write(&path, "{\"sequence\":1}\n{\"sequ").unwrap();
        let mut sink = sink(&path);
        sink.send(&[entry(2)]).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"sequence\":1}\n{\"sequ\n{\"sequence\":2,"), "{text}");
        fs::remove_file(&path).unwrap();
        sink.send(&[entry(3)]).await.unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("{\"sequence\":3,"));
    }

    #[tokio::test]
    async fn only_a_regular_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        assert!(sink(&fifo).send(&[entry(1)]).await.is_err());
        assert!(sink(folder.path()).send(&[entry(1)]).await.is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/full", &link).unwrap();
        assert!(sink(&link).send(&[entry(1)]).await.is_err());
        assert!(sink(&folder.path().join("missing/x")).probe().await.is_err());
        assert!(sink(&folder.path().join("new")).probe().await.is_ok());
        assert!(!folder.path().join("new").exists(), "a probe creates nothing");
    }
}
