//! Handles of a histogram with a label of the operation, so that a call does not look up its metric by name and labels.

use std::{sync::OnceLock, time::Duration};

use metrics::Histogram;

use crate::domain::Operation;

/// One handle for each operation, one for calls without an operation, and for each of them one for each class of results.
pub struct OperationHistograms {
    classes: usize,
    handles: Vec<OnceLock<Histogram>>,
}

impl OperationHistograms {
    /// No handle is made yet. There are this many classes, at least one.
    pub fn new(classes: usize) -> Self {
        let number = (Operation::ALL.len() + 1) * classes;
        Self { classes, handles: std::iter::repeat_with(OnceLock::new).take(number).collect() }
    }

    /// Adds a sample. `make` registers the histogram of this operation and class the first time.
    pub fn record(&self, operation: Option<Operation>, class: usize, sample: Duration, make: impl FnOnce() -> Histogram) {
        // The first place is that of calls without an operation. `ALL` has the order of declaration.
        let place = operation.map_or(0, |operation| operation as usize + 1) * self.classes + class;
        match self.handles.get(place) {
            Some(handle) => handle.get_or_init(make).record(sample.as_secs_f64()),
            None => make().record(sample.as_secs_f64()),
        }
    }
}
