//! The bearer token of an HTTP sink: read from its file again when that changes, wiped when dropped, never shown.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use http::HeaderValue;
use zeroize::Zeroizing;

use super::SinkFault;
use crate::files;

/// The token.
pub(super) struct BearerToken {
    file: PathBuf,
    read: Option<(Stamp, Zeroizing<Vec<u8>>)>,
}

/// Size and time of a file. A new one means that the file changed.
type Stamp = (u64, Option<SystemTime>);

/// The longest token, in bytes.
const LONGEST: u64 = 16 * 1024;

impl BearerToken {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), read: None }
    }

    /// The value of `Authorization`.
    ///
    /// # Errors
    /// [`SinkFault::Settings`] if the file cannot be read or is no token.
    pub(super) async fn header(&mut self) -> Result<HeaderValue, SinkFault> {
        let file = self.file.clone();
        let before = self.read.as_ref().map(|(stamp, _)| *stamp);
        let read = tokio::task::spawn_blocking(move || {
            let metadata = std::fs::metadata(&file)?;
            let stamp = (metadata.len(), metadata.modified().ok());
            if before == Some(stamp) { Ok(None) } else { files::read(&file, LONGEST).map(|bytes| Some((stamp, bytes))) }
        });
        let read = read.await.map_err(std::io::Error::other).flatten();
        if let Some(changed) = read.map_err(|error| self.fault(&error.to_string()))? {
            self.read = Some(changed);
        }
        let token = self.read.as_ref().map(|(_, bytes)| bytes.trim_ascii()).unwrap_or_default();
        if token.is_empty() {
            return Err(self.fault("is empty; write the token into it"));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(token.len() + 7));
        text.extend_from_slice(b"Bearer ");
        text.extend_from_slice(token);
        let mut header = HeaderValue::from_bytes(&text).map_err(|_| self.fault("contains characters that an HTTP header cannot have"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Reads the file again at the next use, because the server refused the token.
    pub(super) fn forget(&mut self) {
        self.read = None;
    }

    fn fault(&self, problem: &str) -> SinkFault {
        SinkFault::Settings { file: self.file.clone(), problem: problem.to_owned() }
    }
}
