//! Rows of the table, in Markdown.

use std::fmt;

pub(super) const LEGEND: &str =
    "\n`~`: other processes or the hypervisor had more than a tenth of the core in every take.";

/// One comparison.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) measured: String,
    pub(super) reference: String,
    /// What is compared with the target, and its unit.
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) target: Target,
    pub(super) disturbed: bool,
}

/// What a value shall be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Told for information.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(value <= bound),
            Self::AtLeast(bound) => Some(value >= bound),
            Self::None => None,
        }
    }
}

pub(super) fn head() -> String {
    "| what | measured | reference | value | target | |\n| --- | --- | --- | --- | --- | --- |".to_owned()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.target {
            Target::AtMost(bound) => format!("≤ {bound}{}", self.unit),
            Target::AtLeast(bound) => format!("≥ {bound}{}", self.unit),
            Target::None => String::new(),
        };
        let met = match self.target.is_met(self.value) {
            Some(true) => "met",
            Some(false) => "not met",
            None => "",
        };
        let mark = if self.disturbed { " ~" } else { "" };
        write!(
            f,
            "| {} | {} | {} | {:.2}{}{mark} | {target} | {met} |",
            self.what, self.measured, self.reference, self.value, self.unit
        )
    }
}

/// Returns the middle of some values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Keeps the takes that were not disturbed; where all were, the half that was disturbed least.
pub(super) fn quiet<T>(mut takes: Vec<(f64, T)>) -> (Vec<T>, bool) {
    /// The share of the core that others may have had.
    const BOUND: f64 = 0.1;

    takes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let good = takes.partition_point(|(foreign, _)| *foreign <= BOUND);
    let kept = if good > 0 { good } else { takes.len().div_ceil(2) };
    (
        takes.into_iter().take(kept).map(|(_, take)| take).collect(),
        good == 0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbed_takes_count_only_where_there_are_no_others() {
        assert_eq!(quiet(vec![(0.5, 1), (0.01, 2), (0.02, 3)]), (vec![2, 3], false));
        assert_eq!(quiet(vec![(0.5, 1), (0.3, 2), (0.9, 3)]), (vec![2, 1], true));
    }

    #[test]
    fn a_target_is_met_at_its_bound() {
        assert_eq!(Target::AtMost(1.2).is_met(1.2), Some(true));
        assert_eq!(Target::AtLeast(0.8).is_met(0.79), Some(false));
        assert_eq!(Target::None.is_met(1.0), None);
    }
}
