//! Which groups are synced: Confluent's group filters as JSON (SPEC section 5). EXCLUDE wins.

use serde::Deserialize;

/// The form of them, which means every group.
pub const EVERY_GROUP: &str =
    r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;

/// Filters in one key, at most.
pub const FILTERS_MAX: usize = 1_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupFilters {
    pub group_filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Filter {
    pub name: String,
    pub pattern_type: PatternType,
    pub filter_type: FilterType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PatternType {
    Literal,
    Prefixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FilterType {
    Include,
    Exclude,
}

impl GroupFilters {
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(json: &str) -> Result<Self, String> {
        let filters: Self =
            serde_json::from_str(json).map_err(|error| format!("{error}; give it as {EVERY_GROUP}"))?;
        if filters.group_filters.len() > FILTERS_MAX {
            return Err(format!("{} filters; at most {FILTERS_MAX}", filters.group_filters.len()));
        }
        match filters.group_filters.iter().find(|filter| filter.name.is_empty()) {
            Some(_) => Err("a filter without a name; '*' is every group".to_owned()),
            None => Ok(filters),
        }
    }

    pub fn includes(&self, group: &str) -> bool {
        let matching = |wanted| {
            let filters = self.group_filters.iter().filter(move |filter| filter.filter_type == wanted);
            filters.into_iter().any(|filter| filter.matches(group))
        };
        matching(FilterType::Include) && !matching(FilterType::Exclude)
    }
}

impl GroupFilters {
    /// Groups that are meant by name, whether they are there or not.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let by_name = |filter: &&Filter| {
            filter.filter_type == FilterType::Include
                && filter.pattern_type == PatternType::Literal
                && filter.name != "*"
        };
        let named = self.group_filters.iter().filter(by_name).map(|filter| filter.name.as_str());
        named.filter(|name| self.includes(name))
    }
}

impl Filter {
    fn matches(&self, group: &str) -> bool {
        match self.pattern_type {
            PatternType::Literal => self.name == "*" || self.name == group,
            PatternType::Prefixed => group.starts_with(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excluded_is_left_out_whatever_includes_it() {
        let json = r#"{"groupFilters":[
            {"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"temp-","patternType":"PREFIXED","filterType":"EXCLUDE"}]}"#;
        let filters = GroupFilters::parse(json).expect("valid");
        assert_eq!(["app", "temp-1", "temp-"].map(|group| filters.includes(group)), [true, false, false]);
        assert!(!GroupFilters::default().includes("app"), "none is none");
    }

    #[test]
    fn who_is_meant_by_name_is_known_without_asking() {
        let json = r#"{"groupFilters":[
            {"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"app","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"team-","patternType":"PREFIXED","filterType":"INCLUDE"},
            {"name":"gone","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"gone","patternType":"LITERAL","filterType":"EXCLUDE"}]}"#;
        let filters = GroupFilters::parse(json).expect("valid");
        assert_eq!(filters.named().collect::<Vec<_>>(), ["app"]);
    }

    #[test]
    fn a_literal_name_is_no_prefix() {
        let json = r#"{"groupFilters":[{"name":"app","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
        let filters = GroupFilters::parse(json).expect("valid");
        assert_eq!(["app", "app-2"].map(|group| filters.includes(group)), [true, false]);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_right_form() {
        for wrong in ["", "[]", r#"{"groupFilters":[{"name":"a"}]}"#, r#"{"groupFilters":[],"x":1}"#] {
            let told = GroupFilters::parse(wrong).expect_err(wrong);
            assert!(told.contains(r#"{"groupFilters":[{"name":"*""#), "{told}");
        }
        let unnamed = r#"{"groupFilters":[{"name":"","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
        assert!(GroupFilters::parse(unnamed).expect_err("no name").contains("'*' is every group"));
    }
}
