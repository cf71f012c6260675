//! Times in buckets that are 3 % wide.

/// Buckets of one power of two.
const PARTS: u64 = 32;

/// Counts of nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; (64 * PARTS) as usize],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Returns the value below which a share of the values lies, in milliseconds.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return upper(index).min(self.max) as f64 / 1e6;
            }
        }
        0.0
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.max as f64 / 1e6
    }
}

fn bucket(value: u64) -> usize {
    let power = u64::from(value.max(PARTS).ilog2() - PARTS.ilog2());
    (power * PARTS + (value >> power)) as usize
}

fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * PARTS {
        return index;
    }
    let power = index / PARTS - 1;
    ((index - power * PARTS + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut before = 0;
        for value in (0..200)
            .chain((8..63).map(|power| 1 << power))
            .chain((8..63).map(|power| (1 << power) - 1))
        {
            let index = bucket(value);
            assert!(
                value <= upper(index) && (index == 0 || value > upper(index - 1)),
                "{value}"
            );
            before = before.max(index);
        }
        assert!(before < (64 * PARTS) as usize);
    }

    #[test]
    fn quantiles_are_near_the_values() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value * 1_000_000));
        assert!((histogram.quantile_ms(0.5) - 500.0).abs() < 20.0);
        assert!((histogram.quantile_ms(0.99) - 990.0).abs() < 35.0);
        assert!((histogram.max_ms() - 1000.0).abs() < 0.1);
    }
}
