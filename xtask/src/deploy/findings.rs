//! What a check has found, and small helpers to look into documents.

use serde_json::Value;

/// What became of one part.
pub enum Outcome {
    Judged(Findings),
    /// And why.
    Skipped(String),
}

#[derive(Debug, Default)]
pub struct Findings {
    pub wrong: Vec<String>,
    /// What a reader may want to know of a part that is fine.
    pub told: Vec<String>,
}

impl Findings {
    pub fn expect(&mut self, fine: bool, wrong: impl Into<String>) {
        if !fine {
            self.wrong.push(wrong.into());
        }
    }

    pub fn tell(&mut self, line: impl Into<String>) {
        self.told.push(line.into());
    }

    /// Takes over what was found elsewhere, saying where.
    pub fn take(&mut self, place: &str, other: Findings) {
        self.wrong.extend(other.wrong.into_iter().map(|wrong| format!("{place}: {wrong}")));
        self.told.extend(other.told);
    }
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The port of `HOST:PORT`.
pub fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

pub fn is_loopback(address: &str) -> bool {
    ["127.0.0.1:", "[::1]:"].iter().any(|host| address.starts_with(host))
}

/// All objects of `part` are in `whole` with the same values.
pub fn contains(whole: &Value, part: &Value) -> bool {
    match (whole.as_object(), part.as_object()) {
        (Some(whole), Some(part)) => {
            !part.is_empty() && part.iter().all(|(key, value)| whole.get(key) == Some(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_selector_selects_nothing() {
        assert!(contains(&json!({"a": 1, "b": 2}), &json!({"a": 1})));
        assert!(!contains(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!contains(&json!({"a": 1}), &json!({})));
        assert!(!contains(&json!({"a": 1}), &Value::Null));
    }

    #[test]
    fn ports_are_read_behind_names_and_both_kinds_of_addresses() {
        assert_eq!(port("a.b:7781"), Some(7781));
        assert_eq!(port("[::]:7782"), Some(7782));
        assert_eq!(port("a"), None);
        assert!(is_loopback("127.0.0.1:7780") && is_loopback("[::1]:7780") && !is_loopback("0.0.0.0:7780"));
    }
}
