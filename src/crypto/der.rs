//! A strict parser of DER (X.690 §10). It returns slices of the input, so that secrets are not copied.

/// Universal and context tags in keys.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// The input is not DER of the expected shape. The error has no details, because they would describe a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotDer;

/// The unread rest of an input.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Parses `bytes` from the start.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn take(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let (&found, rest) = self.0.split_first().ok_or(NotDer)?;
        if found != tag {
            return Err(NotDer);
        }
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(NotDer)?;
        self.0 = rest;
        Ok(content)
    }

    /// The content of the next element if it has this tag.
    pub(super) fn take_optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, NotDer> {
        if self.0.first() == Some(&tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    /// A non-negative INTEGER in its shortest form, without the sign byte.
    pub(super) fn unsigned(&mut self) -> Result<&'a [u8], NotDer> {
        match self.take(INTEGER)? {
            [0, magnitude @ ..] if magnitude.first().is_some_and(|first| *first >= 0x80) => Ok(magnitude),
            [0] => Ok(&[]),
            magnitude @ [1..=0x7f, ..] => Ok(magnitude),
            _ => Err(NotDer),
        }
    }

    /// The unread input.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Checks that no input is left.
    pub(super) const fn end(self) -> Result<(), NotDer> {
        if self.0.is_empty() { Ok(()) } else { Err(NotDer) }
    }
}

/// The bits of the content of a BIT STRING, which must be whole bytes.
pub(super) fn whole_bytes(bit_string: &[u8]) -> Result<&[u8], NotDer> {
    match bit_string {
        [0, bytes @ ..] => Ok(bytes),
        _ => Err(NotDer),
    }
}

/// A definite length in its shortest form, at most 65535. No key is longer.
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), NotDer> {
    match bytes {
        [short @ 0..=0x7f, rest @ ..] => Ok((usize::from(*short), rest)),
        [0x81, one @ 0x80..=0xff, rest @ ..] => Ok((usize::from(*one), rest)),
        [0x82, high @ 1..=0xff, low, rest @ ..] => Ok((usize::from(*high) << 8 | usize::from(*low), rest)),
        _ => Err(NotDer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_integers_have_one_form() {
        for wrong in [&[0x30, 0x80][..], &[0x30, 0x81, 1, 0], &[0x30, 0x82, 0, 0x80], &[0x30, 2, 0], &[0x31, 0], &[]] {
            assert_eq!(Reader::new(wrong).take(SEQUENCE), Err(NotDer), "{wrong:02x?}");
        }
        for wrong in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0x7f]] {
            assert_eq!(Reader::new(wrong).unsigned(), Err(NotDer), "{wrong:02x?}");
        }
        assert_eq!(Reader::new(&[2, 1, 0]).unsigned(), Ok(&[][..]));
        assert_eq!(Reader::new(&[2, 2, 0, 0x80]).unsigned(), Ok(&[0x80][..]));
    }
}
