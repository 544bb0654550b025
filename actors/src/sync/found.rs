//! What a round of a sync found, bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::observe::TaskError;

pub type Errors = BTreeMap<Arc<str>, TaskError>;

/// By what it is about; by the empty name what has to do with nothing of that kind.
#[derive(Debug, Default)]
pub struct Found {
    pub errors: Errors,
    pub remarks: BTreeMap<Arc<str>, String>,
}

impl Found {
    pub fn tell(&mut self, error: TaskError) {
        tell(&mut self.errors, error);
    }

    /// What has to do with nothing by name.
    pub fn remark(&mut self, remark: String) {
        let told = self.remarks.entry("".into()).or_default();
        let between = if told.is_empty() { "" } else { "; " };
        *told = format!("{told}{between}{remark}");
    }

    pub fn add(&mut self, mut errors: Errors) {
        if let Some(whole) = errors.remove("") {
            self.tell(whole);
        }
        self.errors.extend(errors);
    }

    /// Tens of thousands may have the same trouble: the first of each kind, and how many more there are.
    pub fn bounded(mut self, told_max: usize) -> Self {
        if let Some(more) = cut(&mut self.errors, told_max) {
            self.tell(TaskError::internal(format!("and {more} errors more")));
        }
        if let Some(more) = cut(&mut self.remarks, told_max) {
            self.remark(format!("and {more} remarks more"));
        }
        self
    }
}

/// Adds what has to do with nothing by name, beside what was told of that kind already.
pub fn tell(errors: &mut Errors, error: TaskError) {
    match errors.get_mut("") {
        Some(told) if !told.message.contains(&error.message) => {
            told.message.push_str(&format!("; {}", error.message))
        }
        Some(_) => {}
        None => drop(errors.insert("".into(), error)),
    }
}

/// Keeps the first of them, and tells how many it left out.
fn cut<T>(told: &mut BTreeMap<Arc<str>, T>, told_max: usize) -> Option<usize> {
    let first_left_out = told.keys().nth(told_max)?.clone();
    Some(told.split_off(&first_left_out).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_some_are_kept_and_the_others_counted() {
        const MAX: usize = 50;
        let error = |number: usize| (format!("name-{number:04}").into(), TaskError::internal("no".into()));
        let of = |count: usize| Found { errors: (0..count).map(error).collect(), ..Found::default() };
        let errors = of(MAX + 37).bounded(MAX).errors;
        assert_eq!(errors.len(), MAX + 1);
        assert_eq!(errors[""].message, "and 37 errors more");
        assert!(!of(MAX).bounded(MAX).errors.contains_key(""));
        let remarks = (0..MAX + 2).map(|number| (format!("{number:04}").into(), "no".into())).collect();
        let mut found = Found { remarks, ..Found::default() };
        found.remark("of all".into());
        let remarks = found.bounded(MAX).remarks;
        assert_eq!((remarks.len(), remarks[""].as_str()), (MAX, "of all; and 3 remarks more"));
    }
}
