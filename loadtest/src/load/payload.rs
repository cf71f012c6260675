//! The data of an event: a time and a number in hexadecimal at a fixed place, then filler.

use std::time::{SystemTime, UNIX_EPOCH};

/// Begins the stamp; nothing else in a frame looks like it.
const MARK: &[u8] = b"\"#";
const TIME: usize = 16;
const NUMBER: usize = 8;

/// When an event was published, and which one of its target it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) time: u64,
    pub(super) number: u32,
}

/// Returns the time that stamps hold, in nanoseconds.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64)
}

/// Makes data of a size, as a JSON object; the stamp is filled in later, at the place that is returned too.
pub(super) fn template(size: usize) -> (Vec<u8>, usize) {
    let mut data = b"{\"s\":".to_vec();
    data.extend_from_slice(MARK);
    let at = data.len();
    data.resize(at + TIME + NUMBER, b'0');
    data.resize(data.len().max(size.saturating_sub(2)), b'x');
    data.extend_from_slice(b"\"}");
    (data, at)
}

/// Writes a stamp to its place.
pub(super) fn write(bytes: &mut [u8], stamp: Stamp) {
    hex(&mut bytes[..TIME], stamp.time);
    hex(&mut bytes[TIME..TIME + NUMBER], u64::from(stamp.number));
}

/// Finds stamps, beginning where the last one was.
#[derive(Debug, Default)]
pub(super) struct Finder {
    at: usize,
}

impl Finder {
    /// Returns the stamp of a frame's payload, if it has one.
    pub(super) fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        if !payload.get(self.at..).is_some_and(|rest| rest.starts_with(MARK)) {
            self.at = memchr::memmem::find(payload, MARK)?;
        }
        let stamp = payload.get(self.at + MARK.len()..)?.get(..TIME + NUMBER)?;
        Some(Stamp {
            time: number(&stamp[..TIME])?,
            number: number(&stamp[TIME..])? as u32,
        })
    }
}

fn hex(to: &mut [u8], mut value: u64) {
    for byte in to.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_wherever_the_data_stands() {
        let (mut data, at) = template(128);
        assert_eq!(data.len(), 128);
        let stamp = Stamp {
            time: now(),
            number: 77,
        };
        write(&mut data[at..], stamp);
        let mut finder = Finder::default();
        for before in [r#"42["e","#, r#"{"topic":"room","payload":"#] {
            let frame = [before.as_bytes(), &data].concat();
            assert_eq!(finder.find(&frame), Some(stamp));
            assert_eq!(finder.find(&frame), Some(stamp));
        }
        assert_eq!(finder.find(b"2"), None);
    }
}
