//! Reads files with private keys and certificates, PEM or DER. What cannot be used is named, with the command that converts it.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use super::pem::{PemSection, pem_sections};

/// Reads the one private key of a file: PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`). Certificates beside it are ignored.
///
/// # Errors
/// Why there is no key that can be used, or which one is meant. The text contains no part of the file.
pub fn read_private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let Some(sections) = pem_sections(bytes)? else { return read_der_key(bytes) };
    let keys = sections.iter().filter(|section| section.label.ends_with("PRIVATE KEY")).collect::<Vec<_>>();
    let [key] = keys.as_slice() else {
        return Err(match keys.len() {
            0 => format!("the file contains no private key{}. {SUPPLY}", contents(&sections)),
            several => {
                format!("the file contains {several} private keys, and it is not clear which one is meant. Supply a file with one key")
            }
        });
    };
    if key.encrypted || key.label == "ENCRYPTED PRIVATE KEY" {
        return Err(ENCRYPTED.to_owned());
    }
    let der = key.der.to_vec();
    match key.label.as_str() {
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(der).into()),
        "OPENSSH PRIVATE KEY" => {
            Err("the key is in the format of OpenSSH. Convert a copy: ssh-keygen -p -m PKCS8 -N '' -f FILE".to_owned())
        }
        other => Err(format!("keys of the kind {other} are not supported. {SUPPLY}")),
    }
}

/// Reads the private key of a file as PKCS#8 in DER.
///
/// # Errors
/// As [`read_private_key`], and the conversion of SEC1 and PKCS#1.
pub fn read_pkcs8_file(bytes: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, String> {
    match read_private_key(bytes)? {
        PrivateKeyDer::Pkcs8(key) => Ok(key),
        PrivateKeyDer::Sec1(_) => Err(format!("the key is in the SEC1 format (EC PRIVATE KEY). {CONVERT}")),
        PrivateKeyDer::Pkcs1(_) => Err(format!("the key is in the PKCS#1 format (RSA PRIVATE KEY). {CONVERT}")),
        _ => Err(SUPPLY.to_owned()),
    }
}

/// Reads the certificates of a file in their order, at least one. Keys beside them are ignored.
///
/// # Errors
/// Why there is none. The text contains no part of the file.
pub fn read_certificate_file(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    const NONE: &str = "the file contains no certificate in PEM or DER format";
    let Some(sections) = pem_sections(bytes)? else {
        return match bytes {
            _ if is_pkcs12(bytes) => Err(format!("{PKCS12} -nokeys")),
            [0x30, ..] => Ok(vec![CertificateDer::from(bytes.to_vec())]),
            _ => Err(NONE.to_owned()),
        };
    };
    let found = sections.iter().filter(|section| matches!(section.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE"));
    let all = found.map(|section| CertificateDer::from(section.der.to_vec())).collect::<Vec<_>>();
    match sections.iter().find(|section| matches!(section.label.as_str(), "PKCS7" | "CMS" | "TRUSTED CERTIFICATE")) {
        _ if !all.is_empty() => Ok(all),
        Some(section) if section.label.starts_with("TRUSTED") => {
            Err(format!("{NONE}, but a trusted certificate of openssl. Convert it: openssl x509 -in FILE"))
        }
        Some(_) => Err(format!("{NONE}, but PKCS#7. Convert it: openssl pkcs7 -print_certs -in FILE")),
        None => Err(format!("{NONE}{}", contents(&sections))),
    }
}

fn read_der_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    match bytes {
        [] => Err(format!("the file is empty. {SUPPLY}")),
        _ if is_pkcs12(bytes) => Err(format!("{PKCS12} -nodes -nocerts")),
        _ => PrivateKeyDer::try_from(bytes.to_vec()).map_err(|_| format!("the file contains no private key in PEM or DER. {SUPPLY}")),
    }
}

/// Whether these bytes start like PKCS#12 (RFC 7292): a sequence that starts with the version 3.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let header = match bytes {
        [0x30, 0..0x80, ..] => 2,
        [0x30, long, ..] => 2 + usize::from(long & 0x7f),
        _ => return false,
    };
    bytes.get(header..).is_some_and(|content| content.starts_with(&[2, 1, 3]))
}

/// What a file contains instead.
fn contents(sections: &[PemSection]) -> String {
    let mut labels = sections.iter().map(|section| section.label.as_str()).collect::<Vec<_>>();
    labels.dedup();
    if labels.is_empty() { String::new() } else { format!(", but {}", labels.join(", ")) }
}

const ENCRYPTED: &str = "The key file is encrypted. Supply an unencrypted PKCS#8 key. To convert it: openssl pkey -in FILE -out NEW";
const SUPPLY: &str = "Supply an unencrypted PKCS#8 key in PEM format";
const CONVERT: &str = "Convert it: openssl pkcs8 -topk8 -nocrypt -in FILE";
const PKCS12: &str = "the file is a PKCS#12 file. Convert it: openssl pkcs12 -in FILE -out NEW";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;

    fn pair() -> (String, String, Vec<u8>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem(), key.serialize_der())
    }

    #[test]
    fn text_around_sections_and_line_ends_do_not_matter() {
        let (certificate, key, der) = pair();
        let bag = format!(
            "Bag Attributes\n    localKeyID: 01 02\n    friendlyName: p1\nsubject=CN = p1\n{certificate}Key Attributes: <No Attributes>\n{key}the end\n"
        );
        let windows = bag.replace('\n', "\r\n");
        let indented = bag.replace('\n', "  \n  ");
        for text in [
            bag.clone(),
            windows.clone(),
            format!("\u{feff}{key}{certificate}"),
            indented,
            bag.replace('\n', "\r"),
            windows.trim_end().to_owned(),
        ] {
            let PrivateKeyDer::Pkcs8(read) = read_private_key(text.as_bytes()).unwrap() else { panic!("{text}") };
            assert_eq!(read.secret_pkcs8_der(), der, "{text}");
            assert_eq!(read_certificate_file(text.as_bytes()).unwrap().len(), 1, "{text}");
        }
        assert_eq!(read_pkcs8_file(&der).unwrap().secret_pkcs8_der(), der);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (certificate, key, der) = pair();
        let section = |label: &str, inside: &str| format!("-----BEGIN {label}-----\n{inside}\n-----END {label}-----\n");
        let utf16 = key.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        for (bytes, problem) in [
            (format!("{key}{key}").into_bytes(), "contains 2 private keys"),
            (format!("{key}{}", pair().1).into_bytes(), "contains 2 private keys"),
            (section("ENCRYPTED PRIVATE KEY", "AAAA").into_bytes(), "is encrypted"),
            (section("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA").into_bytes(), "is encrypted"),
            (section("EC PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA").into_bytes(), "is encrypted"),
            (section("OPENSSH PRIVATE KEY", "AAAA").into_bytes(), "ssh-keygen -p -m PKCS8"),
            (section("DSA PRIVATE KEY", "AAAA").into_bytes(), "DSA PRIVATE KEY are not supported"),
            (certificate.clone().into_bytes(), "no private key, but CERTIFICATE"),
            (section("PUBLIC KEY", "AAAA").into_bytes(), "no private key, but PUBLIC KEY"),
            (key.replace("-----END", "").into_bytes(), "has no end"),
            (key.replacen('M', "!", 1).into_bytes(), "not valid base64"),
            (Vec::new(), "is empty"),
            (b"nothing".to_vec(), "no private key in PEM or DER"),
            ([&[0xff, 0xfe][..], &utf16].concat(), "UTF-16"),
            (vec![0x30, 0x82, 1, 0, 2, 1, 3], "openssl pkcs12"),
        ] {
            let error = read_private_key(&bytes).unwrap_err();
            assert!(error.contains(problem), "{problem}: {error}");
        }
        for (bytes, problem) in [
            (key.into_bytes(), "no certificate in PEM or DER format, but PRIVATE KEY"),
            (section("PKCS7", "AAAA").into_bytes(), "openssl pkcs7 -print_certs"),
            (section("TRUSTED CERTIFICATE", "AAAA").into_bytes(), "openssl x509"),
            (b"nothing".to_vec(), "no certificate in PEM or DER format"),
            (vec![0x30, 3, 2, 1, 3], "openssl pkcs12"),
        ] {
            let error = read_certificate_file(&bytes).unwrap_err();
            assert!(error.contains(problem), "{problem}: {error}");
        }
        assert!(read_private_key(section("PRIVATE KEY", &base64(&der)).as_bytes()).is_ok());
    }

    fn base64(der: &[u8]) -> String {
        use ::base64::Engine as _;
        ::base64::engine::general_purpose::STANDARD.encode(der)
    }
}
