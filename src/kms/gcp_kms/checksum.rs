//! CRC-32C (Castagnoli), as Cloud KMS has it in the fields `…Crc32c`: a decimal number in a JSON string, because the field is an `int64`
//! (<https://cloud.google.com/kms/docs/data-integrity-guidelines>).

use serde::{Deserialize, Deserializer, de::Error as _};

const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// The checksum of these bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// Reads the number, which is a text in JSON.
pub(super) fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn known_answers() {
        for (bytes, sum) in [(vec![0; 32], 0x8a91_36aa), (vec![0xff; 32], 0x62a8_ab43), ((0..32).collect(), 0x46dd_794e)] {
            assert_eq!(crc32c(&bytes), sum);
        }
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
