//! Which names may be given. A name ends up in paths, metrics and topic names, so it is checked
//! before anything is asked of the catalog.

use super::error::{ApiError, ApiResult};

const NAME_CHARS_MAX: usize = 200;
/// Kafka's own limit.
const TOPIC_CHARS_MAX: usize = 249;

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Names of links and registered clusters.
pub fn check_name(field: &str, name: &str) -> ApiResult<()> {
    // `-` stands for all in paths; HTTP clients resolve the other two away.
    if ["-", ".", ".."].contains(&name) {
        return Err(ApiError::invalid(field, format!("'{name}' is reserved; choose another name")));
    }
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !is_plain(name) {
        let rule = format!("must be 1 to {NAME_CHARS_MAX} of the characters a-z A-Z 0-9 . _ -");
        return Err(ApiError::invalid(field, rule));
    }
    Ok(())
}

/// What the names of topics begin with.
pub fn check_prefix(field: &str, prefix: &str) -> ApiResult<()> {
    if prefix.is_empty() || prefix.len() > NAME_CHARS_MAX || !is_plain(prefix) {
        let rule = format!("must be 1 to {NAME_CHARS_MAX} of the characters a-z A-Z 0-9 . _ -");
        return Err(ApiError::invalid(field, rule));
    }
    Ok(())
}

pub fn check_topic(field: &str, name: &str) -> ApiResult<()> {
    if name.is_empty() || name.len() > TOPIC_CHARS_MAX || !is_plain(name) || [".", ".."].contains(&name) {
        let rule = format!(
            "must be a Kafka topic name: 1 to {TOPIC_CHARS_MAX} of the characters a-z A-Z 0-9 . _ -, \
             and neither '.' nor '..'"
        );
        return Err(ApiError::invalid(field, rule));
    }
    Ok(())
}
