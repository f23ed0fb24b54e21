//! The wire format of protobuf, read strictly: shortest numbers, known wire types, no groups.

use super::TopologyFault;

/// A field as it stands in the bytes.
pub(super) struct WireField<'a> {
    pub(super) number: u64,
    pub(super) value: WireValue<'a>,
}

/// The value of a field.
#[derive(Clone, Copy)]
pub(super) enum WireValue<'a> {
    /// Wire type 0.
    Number(u64),
    /// Wire type 2: text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order of the bytes.
pub(super) struct WireReader<'a>(&'a [u8]);

impl<'a> WireReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<WireField<'a>>, TopologyFault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(TopologyFault::Malformed);
        }
        let value = match tag & 7 {
            0 => WireValue::Number(self.number()?),
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| TopologyFault::Malformed)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(TopologyFault::Malformed)?;
                self.0 = rest;
                WireValue::Bytes(bytes)
            }
            // 64 and 32 bits. No field of a topology transaction has them.
            1 | 5 => return Err(TopologyFault::WrongWireType),
            _ => return Err(TopologyFault::Malformed),
        };
        Ok(Some(WireField { number, value }))
    }

    /// A base-128 number (varint) in its shortest form.
    pub(super) fn number(&mut self) -> Result<u64, TopologyFault> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(TopologyFault::Malformed)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(TopologyFault::Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(TopologyFault::Number) } else { Ok(value) };
            }
        }
        Err(TopologyFault::Malformed)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        let read = |bytes: &[u8]| WireReader::new(bytes).number();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0xac, 2]), Ok(300));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
        assert_eq!(read(&[0x80, 0]), Err(TopologyFault::Number));
        for bytes in [&[][..], &[0x80], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &[0x80; 11]] {
            assert_eq!(read(bytes), Err(TopologyFault::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn groups_and_short_fields_are_refused() {
        for bytes in [&[0x0b][..], &[0x0c], &[0x02, 0], &[0x0a, 2, 1], &[0x0a]] {
            assert!(matches!(WireReader::new(bytes).next(), Err(TopologyFault::Malformed)), "{bytes:?}");
        }
        assert!(matches!(WireReader::new(&[0x0d, 0, 0, 0, 0]).next(), Err(TopologyFault::WrongWireType)));
    }
}
