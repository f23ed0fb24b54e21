//! The sections of a PEM file (RFC 7468), as `openssl` and common tools write and read them.
//!
//! Text around sections (`Bag Attributes`, the output of `openssl x509 -text`), Windows line ends, a byte order mark, spaces around lines
//! and the headers of encrypted keys (RFC 1421) are accepted.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// One section.
pub struct PemSection {
    /// The text after `BEGIN`: `CERTIFICATE`.
    pub label: String,
    /// The content. Wiped when dropped, because it may be a key. Empty if it is encrypted.
    pub der: Zeroizing<Vec<u8>>,
    /// Whether headers say that the content is encrypted.
    pub encrypted: bool,
}

/// The sections of a file. `None` if it has none: it may be DER.
///
/// # Errors
/// What is wrong with a section, and the fix. The text contains no part of the file.
pub fn pem_sections(bytes: &[u8]) -> Result<Option<Vec<PemSection>>, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("the file is UTF-16 text. Save it as UTF-8".to_owned());
    }
    if !bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return Ok(None);
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    let mut sections = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(label) = label(line, BEGIN) {
            sections.push(section(label, &mut lines)?);
        }
    }
    Ok(Some(sections))
}

fn section<'a>(label: &str, lines: &mut impl Iterator<Item = &'a [u8]>) -> Result<PemSection, String> {
    // Room for a key, because growing would leave copies behind.
    let (mut base64, mut encrypted) = (Zeroizing::new(Vec::with_capacity(16 << 10)), false);
    for line in lines {
        if let Some(end) = self::label(line, END) {
            if end != label {
                return Err(format!("the section {label} ends as {end}. Copy the file again"));
            }
            let der = if encrypted {
                Vec::new()
            } else {
                decode(&base64).ok_or(format!("the section {label} is not valid base64. Copy the file again"))?
            };
            return Ok(PemSection { label: label.to_owned(), der: Zeroizing::new(der), encrypted });
        }
        match line {
            line if line.contains(&b':') => encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"),
            line => base64.extend_from_slice(line),
        }
    }
    Err(format!("the section {label} has no end. Copy the file again"))
}

fn decode(base64: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(base64).ok()
}

/// The label of a line such as `-----BEGIN CERTIFICATE-----`.
fn label<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a str> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?.trim_ascii();
    std::str::from_utf8(label).ok().filter(|label| label.len() <= 64)
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
