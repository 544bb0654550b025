//! Which groups or topics a sync means: Confluent's filters as JSON (SPEC section 5). EXCLUDE wins.

use serde::Deserialize;

/// The form of them, which means every group.
pub const EVERY_GROUP: &str =
    r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
/// And every topic.
pub const EVERY_TOPIC: &str =
    r#"{"topicFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;

/// Filters in one key, at most.
pub const FILTERS_MAX: usize = 1_000;

/// None of them means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Vec<Filter>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OfGroups {
    group_filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OfTopics {
    topic_filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Filter {
    name: String,
    pattern_type: PatternType,
    filter_type: FilterType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum PatternType {
    Literal,
    Prefixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum FilterType {
    Include,
    Exclude,
}

impl Filters {
    /// # Errors
    /// What is wrong, in words.
    pub fn of_groups(json: &str) -> Result<Self, String> {
        let found = serde_json::from_str::<OfGroups>(json).map(|found| found.group_filters);
        Self::check(found, EVERY_GROUP, "group")
    }

    /// # Errors
    /// What is wrong, in words.
    pub fn of_topics(json: &str) -> Result<Self, String> {
        let found = serde_json::from_str::<OfTopics>(json).map(|found| found.topic_filters);
        Self::check(found, EVERY_TOPIC, "topic")
    }

    fn check(found: serde_json::Result<Vec<Filter>>, form: &str, what: &str) -> Result<Self, String> {
        let filters = found.map_err(|error| format!("{error}; give it as {form}"))?;
        if filters.len() > FILTERS_MAX {
            return Err(format!("{} filters; at most {FILTERS_MAX}", filters.len()));
        }
        match filters.iter().any(|filter| filter.name.is_empty()) {
            true => Err(format!("a filter without a name; '*' is every {what}")),
            false => Ok(Self(filters)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn includes(&self, name: &str) -> bool {
        let matching = |wanted| {
            self.0.iter().any(|filter: &Filter| filter.filter_type == wanted && filter.matches(name))
        };
        matching(FilterType::Include) && !matching(FilterType::Exclude)
    }

    /// What is meant by its name, whether it is there or not.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let by_name = |filter: &&Filter| {
            filter.filter_type == FilterType::Include
                && filter.pattern_type == PatternType::Literal
                && filter.name != "*"
        };
        let named = self.0.iter().filter(by_name).map(|filter| filter.name.as_str());
        named.filter(|name| self.includes(name))
    }
}

impl Filter {
    fn matches(&self, name: &str) -> bool {
        match self.pattern_type {
            PatternType::Literal => self.name == "*" || self.name == name,
            PatternType::Prefixed => name.starts_with(&self.name),
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
        let filters = Filters::of_groups(json).expect("valid");
        assert_eq!(["app", "temp-1", "temp-"].map(|group| filters.includes(group)), [true, false, false]);
        assert!(!Filters::default().includes("app"), "none is none");
    }

    #[test]
    fn who_is_meant_by_name_is_known_without_asking() {
        let json = r#"{"groupFilters":[
            {"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"app","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"team-","patternType":"PREFIXED","filterType":"INCLUDE"},
            {"name":"gone","patternType":"LITERAL","filterType":"INCLUDE"},
            {"name":"gone","patternType":"LITERAL","filterType":"EXCLUDE"}]}"#;
        let filters = Filters::of_groups(json).expect("valid");
        assert_eq!(filters.named().collect::<Vec<_>>(), ["app"]);
    }

    #[test]
    fn topics_have_a_list_of_their_own_name() {
        assert!(Filters::of_topics(EVERY_TOPIC).expect("valid").includes("orders"));
        let told = Filters::of_topics(EVERY_GROUP).expect_err("of groups");
        assert!(told.contains(r#"give it as {"topicFilters":[{"name":"*""#), "{told}");
    }

    #[test]
    fn a_literal_name_is_no_prefix() {
        let json = r#"{"groupFilters":[{"name":"app","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
        let filters = Filters::of_groups(json).expect("valid");
        assert_eq!(["app", "app-2"].map(|group| filters.includes(group)), [true, false]);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_right_form() {
        for wrong in ["", "[]", r#"{"groupFilters":[{"name":"a"}]}"#, r#"{"groupFilters":[],"x":1}"#] {
            let told = Filters::of_groups(wrong).expect_err(wrong);
            assert!(told.contains(r#"{"groupFilters":[{"name":"*""#), "{told}");
        }
        let unnamed = r#"{"groupFilters":[{"name":"","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
        assert!(Filters::of_groups(unnamed).expect_err("no name").contains("'*' is every group"));
    }
}
