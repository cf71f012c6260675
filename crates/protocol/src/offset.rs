//! The position of a client in the history of its namespace.

use std::fmt;
use std::str::FromStr;

/// A stream sequence with the stream's epoch, as 20 hex characters: 8 of the epoch, 12 of the sequence.
///
/// The width is fixed, so that the offset in an encoded frame can be replaced in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offset {
    pub epoch: u32,
    pub sequence: u64,
}

/// The text is not an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an offset has {} hex characters", Offset::LEN)]
pub struct BadOffset;

impl Offset {
    /// Length of the text in bytes.
    pub const LEN: usize = 20;

    /// Returns the text of the offset.
    pub fn text(self) -> [u8; Self::LEN] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let value = u128::from(self.epoch) << 48 | u128::from(self.sequence & 0xffff_ffff_ffff);
        let mut text = [0; Self::LEN];
        for (index, byte) in text.iter_mut().enumerate() {
            *byte = HEX[(value >> (4 * (Self::LEN - 1 - index)) & 15) as usize];
        }
        text
    }
}

impl FromStr for Offset {
    type Err = BadOffset;

    fn from_str(text: &str) -> Result<Self, BadOffset> {
        if text.len() != Self::LEN || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(BadOffset);
        }
        let epoch = u32::from_str_radix(&text[..8], 16).map_err(|_| BadOffset)?;
        let sequence = u64::from_str_radix(&text[8..], 16).map_err(|_| BadOffset)?;
        Ok(Self { epoch, sequence })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("hex digits are ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_offset_survives(epoch: u32, sequence in 0..1u64 << 48) {
            let offset = Offset { epoch, sequence };
            let text = offset.to_string();
            prop_assert_eq!(text.len(), Offset::LEN);
            prop_assert_eq!(text.parse(), Ok(offset));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = text.parse::<Offset>();
        }
    }

    #[test]
    fn later_offsets_sort_later_as_text() {
        let at = |sequence| Offset { epoch: 1, sequence }.to_string();
        assert!(at(9) < at(10));
        assert!(at(255) < at(256));
    }
}
