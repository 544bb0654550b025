//! Lists, a page at a time. The token of the next page is the last key of this one, so a list that
//! changes meanwhile neither repeats nor skips what stays.

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::types::{Page, PageMetadata, Resource};

const PAGE_SIZE_DEFAULT: usize = 200;
/// Bounds an answer: a mirror topic with 100 partitions is some 30 KB of JSON.
const PAGE_SIZE_MAX: usize = 1_000;

#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Rows in an answer, 1 to 1000; 200 by default.
    pub page_size: Option<usize>,
    /// As `metadata.next` has it.
    pub page_token: Option<String>,
}

/// The part of a list that was asked for, and how to ask for the next one.
pub struct Selected<T> {
    pub items: Vec<T>,
    next_token: Option<String>,
}

/// Picks a page out of `items`, in the order of their keys.
pub fn select<T>(
    items: impl Iterator<Item = (String, T)>,
    page_size: Option<usize>,
    page_token: Option<&str>,
) -> ApiResult<Selected<T>> {
    let size = page_size.unwrap_or(PAGE_SIZE_DEFAULT);
    if !(1..=PAGE_SIZE_MAX).contains(&size) {
        return Err(ApiError::invalid("page_size", format!("must be 1 to {PAGE_SIZE_MAX}")));
    }
    let after = page_token.map(read_token).transpose()?;
    let is_after = |key: &String| after.as_ref().is_none_or(|after| key > after);
    let mut items: Vec<(String, T)> = items.filter(|(key, _)| is_after(key)).collect();
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut items = items.into_iter();
    let mut last_key = None;
    let mut page = Vec::new();
    for (key, item) in items.by_ref().take(size) {
        last_key = Some(key);
        page.push(item);
    }
    let more = items.next().is_some();
    let next_token = last_key.filter(|_| more).map(|key| URL_SAFE_NO_PAD.encode(key));
    Ok(Selected { items: page, next_token })
}

fn read_token(token: &str) -> ApiResult<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|b| String::from_utf8(b).ok())
        .ok_or_else(|| ApiError::invalid("page_token", "is none of this list's; take it from metadata.next"))
}

impl<T> Selected<T> {
    pub fn items(&self) -> &[T] {
        &self.items
    }

    pub fn into_page<U>(self, kind: &str, uri: &Uri, row: impl FnMut(T) -> Resource<U>) -> Page<U> {
        let path = uri.to_string();
        let next = self.next_token.map(|token| {
            let kept = uri.query().unwrap_or_default().split('&');
            let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("page_token="));
            let token = format!("page_token={token}");
            let query: Vec<&str> = kept.chain([token.as_str()]).collect();
            format!("{}?{}", uri.path(), query.join("&"))
        });
        Page {
            kind: format!("{kind}List"),
            metadata: PageMetadata { path, next },
            data: self.items.into_iter().map(row).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ResourceMetadata;

    fn page(size: Option<usize>, uri: &str) -> ApiResult<Page<u32>> {
        let uri: Uri = uri.parse().expect("uri");
        let token = uri.query().and_then(|q| q.split('&').find_map(|p| p.strip_prefix("page_token=")));
        let items = (0..5u32).map(|n| (format!("{n}"), n));
        let metadata = || ResourceMetadata { path: String::new() };
        let row = |n| Resource { kind: "N".into(), metadata: metadata(), body: n };
        Ok(select(items, size, token)?.into_page("N", &uri, row))
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_repeat() {
        let mut uri = Some("/things?page_size=2&x=y".to_owned());
        let mut seen = Vec::new();
        while let Some(at) = uri {
            let page = page(Some(2), &at).expect("page");
            assert!(
                page.metadata
                    .next
                    .as_deref()
                    .is_none_or(|n| n.starts_with("/things?page_size=2&x=y&page_token="))
            );
            seen.push(page.data.iter().map(|r| r.body).collect::<Vec<_>>());
            uri = page.metadata.next;
        }
        assert_eq!(seen, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn a_wrong_size_or_token_is_named() {
        assert_eq!(page(Some(0), "/things").expect_err("size").message, "page_size: must be 1 to 1000");
        let error = page(None, "/things?page_token=%").expect_err("token");
        assert!(error.message.starts_with("page_token: "), "{}", error.message);
    }
}
