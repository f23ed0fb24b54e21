//! Reads the files that a configuration or an option names: regular files only, of limited size, within a limited time.
//!
//! A FIFO, a device, a socket or a folder in place of a file is refused and never waited for.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

/// The limit for configurations, certificates and revocation lists, in bytes. It bounds the memory that a wrong path (a log, a disk image)
/// can use.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A regular file, open for reading.
#[derive(Debug)]
pub struct RegularFile {
    file: File,
    mode: u32,
    size: u64,
}

/// Opens a regular file. Links are followed.
///
/// # Errors
/// The error of the system, or what the path names instead of a regular file.
pub fn open(path: &Path) -> io::Result<RegularFile> {
    // Before opening, because to open a device can have effects.
    regular(&std::fs::metadata(path)?)?;
    let without_waiting = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    let flags = i32::try_from(without_waiting).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // After opening, because the path may name another file by now.
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok(RegularFile { file, mode: metadata.permissions().mode() & 0o777, size: metadata.len() })
}

/// Reads a regular file of at most `limit` bytes. The bytes are wiped when dropped, because they may be a key.
///
/// # Errors
/// As [`open`] and [`RegularFile::read`].
pub fn read(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    open(path)?.read(limit)
}

/// Replaces a file as a whole with one that its owner only can read: a crash leaves the old or the new content.
///
/// # Errors
/// The error of the system.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

impl RegularFile {
    /// Who may read and write the file, as `chmod` takes it.
    pub const fn mode(&self) -> u32 {
        self.mode
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// The error of the system, more than `limit` bytes, or a disk that takes longer than 10 seconds.
    pub fn read(mut self, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let too_long = |size: &dyn std::fmt::Display| io::Error::other(format!("has {size} bytes; at most {limit} are read"));
        if self.size > limit {
            return Err(too_long(&self.size));
        }
        // Room for the whole file, because growing would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(self.size).unwrap_or_default().saturating_add(1)));
        let began = Instant::now();
        // The size of some files is not known before they are read, and a file may grow.
        while (&mut self.file).take(CHUNK).read_to_end(&mut bytes)? > 0 {
            if bytes.len() as u64 > limit {
                return Err(too_long(&"more"));
            }
            if began.elapsed() > DEADLINE {
                return Err(io::Error::other(format!("could not be read within {} s", DEADLINE.as_secs())));
            }
        }
        Ok(bytes)
    }

    /// Reads the file part by part, at most `limit` bytes. The time is not limited.
    pub fn stream(self, limit: u64) -> impl Read {
        Limited::new(self.file, limit)
    }

    /// Reads at most the first `limit` bytes.
    ///
    /// # Errors
    /// The error of the system.
    pub fn read_start(self, limit: u64) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        self.file.take(limit).read_to_end(&mut start)?;
        Ok(start)
    }
}

/// A reader that ends with an error, not with an apparent end, when it has read its limit.
#[derive(Debug)]
pub struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R> Limited<R> {
    /// At most `limit` bytes of `inner`.
    pub const fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other("has more bytes than are read"))?;
        Ok(read)
    }
}

fn regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "folder",
        () if kind.is_fifo() => "FIFO",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    Err(io::Error::other(format!("is a {found}, not a regular file; name a file")))
}

const CHUNK: u64 = 256 * 1024;
const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a call that must not block.
    fn promptly<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(call()));
        receiver.recv_timeout(Duration::from_mins(1)).expect("the call blocks")
    }

    #[test]
    fn only_regular_files_of_limited_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RUSR).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zeros")).unwrap();
        std::fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, expected) in [("fifo", "is a FIFO"), ("zeros", "is a device"), ("socket", "is a socket"), (".", "is a folder")] {
            let path = path(name);
            let error = promptly(move || read(&path, 100)).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        assert_eq!(*read(&path("link"), 5).unwrap(), b"12345");
        assert!(read(&path("file"), 4).unwrap_err().to_string().contains("has 5 bytes"));
        assert_eq!(open(&path("file")).unwrap().read_start(2).unwrap(), b"12");
        assert_eq!(read(&path("missing"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in ["first", "2"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(*read(&path, 100).unwrap(), content.as_bytes());
        }
        assert_eq!(open(&path).unwrap().mode(), 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("missing/file"), b"").is_err());
    }

    #[test]
    fn a_file_without_a_known_size_is_read_up_to_the_limit() {
        // The size of these is 0.
        assert!(!read(Path::new("/proc/self/status"), MAX_FILE).unwrap().is_empty());
        assert!(read(Path::new("/proc/self/status"), 10).is_err());
    }
}
