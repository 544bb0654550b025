//! Which ACLs are synced: Confluent's ACL filters as JSON (SPEC section 5). An ACL is meant when one filter
//! matches it; what a filter leaves out or gives as `any` or `*` is whatever it is.

use kafka::acls::{Acl, Operation, PatternType, Permission, ResourceType};
use serde::Deserialize;

/// Filters in one key, at most.
pub const FILTERS_MAX: usize = 1_000;

/// The form, for whoever got it wrong.
pub const FORM: &str = r#"{"aclFilters":[{"resourceFilter":{"resourceType":"any","patternType":"any","name":"*"},"accessFilter":{"principal":"*","host":"*","operation":"any","permissionType":"any"}}]}"#;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclFilters(Vec<Filter>);

/// None is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    resource_type: Option<ResourceType>,
    pattern: Pattern,
    name: Option<String>,
    principal: Option<String>,
    host: Option<String>,
    operation: Option<Operation>,
    permission: Option<Permission>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pattern {
    #[default]
    Any,
    /// Whatever covers the name.
    Match,
    Of(PatternType),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Given {
    acl_filters: Vec<GivenFilter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenFilter {
    resource_filter: GivenResource,
    access_filter: GivenAccess,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenResource {
    resource_type: Option<String>,
    pattern_type: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenAccess {
    principal: Option<String>,
    host: Option<String>,
    operation: Option<String>,
    permission_type: Option<String>,
}

impl AclFilters {
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(json: &str) -> Result<Self, String> {
        let given: Given =
            serde_json::from_str(json).map_err(|error| format!("{error}; give it as {FORM}"))?;
        if given.acl_filters.len() > FILTERS_MAX {
            return Err(format!("{} filters; at most {FILTERS_MAX}", given.acl_filters.len()));
        }
        given.acl_filters.into_iter().map(Filter::of).collect::<Result<_, _>>().map(Self)
    }

    /// Then nothing is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn includes(&self, acl: &Acl) -> bool {
        self.0.iter().any(|filter| filter.matches(acl))
    }
}

impl Filter {
    fn of(GivenFilter { resource_filter, access_filter }: GivenFilter) -> Result<Self, String> {
        let GivenResource { resource_type, pattern_type, name } = resource_filter;
        let GivenAccess { principal, host, operation, permission_type } = access_filter;
        let names = |of: &mut dyn Iterator<Item = &'static str>| of.collect::<Vec<_>>().join(", ");
        let pattern = match text(pattern_type).as_deref() {
            None => Pattern::Any,
            Some(text) if text.eq_ignore_ascii_case("match") => Pattern::Match,
            Some(text) => Pattern::Of(PatternType::of_name(text).ok_or_else(|| {
                format!("patternType '{text}' is none of any, match, LITERAL, PREFIXED; give it as {FORM}")
            })?),
        };
        Ok(Self {
            resource_type: kind(
                "resourceType",
                resource_type,
                ResourceType::of_name,
                &names(&mut ResourceType::EVERY.iter().map(|kind| kind.name())),
            )?,
            pattern,
            name: text(name),
            principal: text(principal),
            host: text(host),
            operation: kind(
                "operation",
                operation,
                Operation::of_name,
                &names(&mut Operation::EVERY.iter().map(|kind| kind.name())),
            )?,
            permission: kind(
                "permissionType",
                permission_type,
                Permission::of_name,
                &names(&mut Permission::EVERY.iter().map(|kind| kind.name())),
            )?,
        })
    }

    fn matches(&self, acl: &Acl) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        }
        let named = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|name| name == found);
        let is_named = match (self.pattern, &self.name) {
            (Pattern::Match, Some(name)) => covers(acl, name),
            (Pattern::Of(pattern), name) => pattern == acl.pattern_type && named(name, &acl.resource_name),
            (_, name) => named(name, &acl.resource_name),
        };
        is_named
            && fits(&self.resource_type, &acl.resource_type)
            && fits(&self.operation, &acl.operation)
            && fits(&self.permission, &acl.permission)
            && named(&self.principal, &acl.principal)
            && named(&self.host, &acl.host)
    }
}

/// Whether the ACL is about a resource of that name.
fn covers(acl: &Acl, name: &str) -> bool {
    match acl.pattern_type {
        PatternType::Literal => &*acl.resource_name == "*" || &*acl.resource_name == name,
        PatternType::Prefixed => name.starts_with(&*acl.resource_name),
    }
}

/// None where it may be any.
fn text(given: Option<String>) -> Option<String> {
    given.filter(|text| !text.is_empty() && text != "*" && !text.eq_ignore_ascii_case("any"))
}

fn kind<T>(
    what: &str,
    given: Option<String>,
    of_name: fn(&str) -> Option<T>,
    known: &str,
) -> Result<Option<T>, String> {
    let wrong = |name: &str| format!("{what} '{name}' is none of any, {known}; give it as {FORM}");
    text(given).map(|name| of_name(&name).ok_or_else(|| wrong(&name))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::acls::fixture::acl;

    fn included(json: &str, acls: &[&str]) -> Vec<bool> {
        let filters = AclFilters::parse(json).expect("valid");
        acls.iter().map(|text| filters.includes(&acl(text))).collect()
    }

    fn one(resource: &str, access: &str) -> String {
        format!(r#"{{"aclFilters":[{{"resourceFilter":{{{resource}}},"accessFilter":{{{access}}}}}]}}"#)
    }

    const SOME: [&str; 5] = [
        "ALLOW User:a READ TOPIC LITERAL orders *",
        "DENY User:b WRITE TOPIC PREFIXED ord 10.0.0.1",
        "ALLOW User:a READ GROUP LITERAL * *",
        "ALLOW User:* DESCRIBE CLUSTER LITERAL kafka-cluster *",
        "ALLOW User:a CREATE_TOKENS USER LITERAL u *",
    ];

    #[test]
    fn any_is_any_however_it_is_said() {
        let lower = r#""resourceType":"any","patternType":"any""#;
        for (resource, access) in [
            (lower, r#""operation":"any","permissionType":"any""#),
            (r#""resourceType":"ANY","patternType":"ANY","name":"*""#, r#""principal":"*","host":"*""#),
            (r#""name":"""#, r#""principal":"""#),
            ("", ""),
        ] {
            assert_eq!(included(&one(resource, access), &SOME), [true; 5], "{resource} {access}");
        }
        assert_eq!(included(FORM, &SOME), [true; 5]);
        assert_eq!(included(r#"{"aclFilters":[]}"#, &SOME), [false; 5], "none is none");
    }

    #[test]
    fn each_part_narrows_what_is_meant() {
        for (resource, access, expected) in [
            (r#""resourceType":"topic""#, "", [true, true, false, false, false]),
            (r#""patternType":"PREFIXED""#, "", [false, true, false, false, false]),
            (r#""patternType":"LITERAL","name":"*""#, "", [true, false, true, true, true]),
            (r#""name":"ord""#, "", [false, true, false, false, false]),
            (
                r#""resourceType":"topic","patternType":"match","name":"orders""#,
                "",
                [true, true, false, false, false],
            ),
            (r#""patternType":"match","name":"g""#, "", [false, false, true, false, false]),
            ("", r#""principal":"User:a""#, [true, false, true, false, true]),
            ("", r#""principal":"User:*""#, [false, false, false, true, false]),
            ("", r#""host":"10.0.0.1""#, [false, true, false, false, false]),
            ("", r#""operation":"Read""#, [true, false, true, false, false]),
            ("", r#""permissionType":"deny""#, [false, true, false, false, false]),
        ] {
            assert_eq!(included(&one(resource, access), &SOME), expected, "{resource} {access}");
        }
    }

    #[test]
    fn one_filter_that_matches_is_enough() {
        let json = r#"{"aclFilters":[
            {"resourceFilter":{"resourceType":"group"},"accessFilter":{}},
            {"resourceFilter":{"resourceType":"user"},"accessFilter":{}}]}"#;
        assert_eq!(included(json, &SOME), [false, false, true, false, true]);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_right_form() {
        let wrong = [
            "",
            "[]",
            r#"{"aclFilters":[{}]}"#,
            r#"{"aclFilters":[],"x":1}"#,
            &one(r#""resourceType":"table""#, ""),
            &one(r#""patternType":"regex""#, ""),
            &one("", r#""operation":"look""#),
            &one("", r#""permissionType":"maybe""#),
        ];
        for wrong in wrong {
            let told = AclFilters::parse(wrong).expect_err(wrong);
            assert!(told.contains(FORM), "{told}");
        }
        let told = AclFilters::parse(&one("", r#""operation":"look""#)).expect_err("no operation");
        assert!(told.starts_with("operation 'look' is none of any, ALL, READ, WRITE"), "{told}");
        let filter = r#"{"resourceFilter":{},"accessFilter":{}}"#;
        let many = format!(r#"{{"aclFilters":[{}]}}"#, vec![filter; FILTERS_MAX + 1].join(","));
        assert_eq!(AclFilters::parse(&many).expect_err("too many"), "1001 filters; at most 1000");
    }
}
