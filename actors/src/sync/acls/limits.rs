//! An ALLOW grants more than it does at the source where a DENY that limits it there isn't at the destination. So it is
//! never written before that, whatever the reason why the DENY isn't there.

use std::collections::{BTreeMap, BTreeSet};

use kafka::acls::{Acl, Operation, PatternType, ResourceType};

use super::mirrors::EVERY_NAME;

/// For every user.
const EVERY_PRINCIPAL: &str = "User:*";
/// From everywhere.
const EVERY_HOST: &str = "*";

/// What denies at the source and isn't at the destination.
#[derive(Debug, Default)]
pub struct Missing<'a>(BTreeMap<ResourceType, BTreeMap<&'a str, Vec<&'a Acl>>>);

impl<'a> FromIterator<&'a Acl> for Missing<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Acl>>(denies: T) -> Self {
        let mut all = Self::default();
        for deny in denies {
            let of_kind = all.0.entry(deny.resource_type).or_default();
            of_kind.entry(&deny.principal).or_default().push(deny);
        }
        all
    }
}

impl<'a> Missing<'a> {
    /// Those that limit this ALLOW.
    pub fn limiting(&self, allow: &Acl) -> impl Iterator<Item = &'a Acl> {
        let of_kind = self.0.get(&allow.resource_type);
        let is_for_every = &*allow.principal == EVERY_PRINCIPAL;
        let every = of_kind.filter(|_| is_for_every).into_iter().flat_map(BTreeMap::values);
        let names = [&*allow.principal, EVERY_PRINCIPAL].into_iter().filter(move |_| !is_for_every);
        let named = names.filter_map(move |name| of_kind?.get(name));
        every.chain(named).flatten().copied().filter(|deny| overlap(allow, deny))
    }

    /// Those of the ACLs that may be written, and each of the others with what it waits for.
    pub fn hold(&self, allows: &BTreeSet<Acl>) -> (BTreeSet<Acl>, BTreeMap<Acl, &'a Acl>) {
        let (mut free, mut held) = (BTreeSet::new(), BTreeMap::new());
        for allow in allows {
            match self.limiting(allow).next() {
                Some(deny) => drop(held.insert(allow.clone(), deny)),
                None => drop(free.insert(allow.clone())),
            }
        }
        (free, held)
    }
}

/// In words, of what is held.
pub fn waits_for(deny: &Acl) -> String {
    format!("grants more than at the source as long as the destination doesn't have {deny}: waits for it")
}

/// Whether there is something that the one allows and the other denies.
pub fn overlap(allow: &Acl, deny: &Acl) -> bool {
    let same = |one: &str, other: &str, every: &str| one == other || one == every || other == every;
    allow.resource_type == deny.resource_type
        && same(&allow.principal, &deny.principal, EVERY_PRINCIPAL)
        && same(&allow.host, &deny.host, EVERY_HOST)
        && allowed_by(allow.operation).contains(&deny.operation)
        && patterns_overlap(allow, deny)
}

/// Operations that a DENY may name to take something from who is allowed this one: what it implies, too.
fn allowed_by(operation: Operation) -> &'static [Operation] {
    use Operation::{All, Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
    match operation {
        All => Operation::EVERY,
        Read => &[All, Read, Describe],
        Write => &[All, Write, Describe],
        Delete => &[All, Delete, Describe],
        Alter => &[All, Alter, Describe],
        AlterConfigs => &[All, AlterConfigs, DescribeConfigs],
        Describe => &[All, Describe],
        DescribeConfigs => &[All, DescribeConfigs],
        Operation::Create => &[All, Operation::Create],
        Operation::ClusterAction => &[All, Operation::ClusterAction],
        Operation::IdempotentWrite => &[All, Operation::IdempotentWrite],
        Operation::CreateTokens => &[All, Operation::CreateTokens],
        Operation::DescribeTokens => &[All, Operation::DescribeTokens],
        Operation::TwoPhaseCommit => &[All, Operation::TwoPhaseCommit],
    }
}

fn patterns_overlap(one: &Acl, other: &Acl) -> bool {
    let is_every = |acl: &Acl| acl.pattern_type == PatternType::Literal && &*acl.resource_name == EVERY_NAME;
    let (a, b) = (&*one.resource_name, &*other.resource_name);
    match (one.pattern_type, other.pattern_type) {
        _ if is_every(one) || is_every(other) => true,
        (PatternType::Literal, PatternType::Literal) => a == b,
        (PatternType::Literal, PatternType::Prefixed) => a.starts_with(b),
        (PatternType::Prefixed, PatternType::Literal) => b.starts_with(a),
        (PatternType::Prefixed, PatternType::Prefixed) => a.starts_with(b) || b.starts_with(a),
    }
}

#[cfg(test)]
mod tests {
    use kafka::acls::Permission;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::sync::acls::fixture::acl;

    const OPERATIONS: [Operation; 7] = [
        Operation::All,
        Operation::Read,
        Operation::Write,
        Operation::Describe,
        Operation::Create,
        Operation::AlterConfigs,
        Operation::DescribeConfigs,
    ];
    /// Longer by one than the longest name of an ACL here, so that two prefixes have a name in common if they can.
    const NAMES: [&str; 14] =
        ["a", "b", "aa", "ab", "ba", "bb", "aaa", "aab", "aba", "abb", "baa", "bab", "bba", "bbb"];

    fn any_acl(permission: Permission) -> impl Strategy<Value = Acl> {
        let resource = (
            select(&[ResourceType::Topic, ResourceType::Group][..]),
            select(PatternType::EVERY),
            select(vec!["a", "b", "aa", "ab", "ba", "*"]),
        );
        let access = (
            select(vec!["User:x", "User:y", "User:*"]),
            select(vec!["10.0.0.1", "10.0.0.2", "*"]),
            select(&OPERATIONS[..]),
        );
        (resource, access).prop_map(
            move |((resource_type, pattern_type, name), (principal, host, operation))| Acl {
                resource_type,
                pattern_type,
                resource_name: name.into(),
                principal: principal.into(),
                host: host.into(),
                operation,
                permission,
            },
        )
    }

    struct Request {
        kind: ResourceType,
        name: &'static str,
        principal: &'static str,
        host: &'static str,
        operation: Operation,
    }

    fn requests() -> Vec<Request> {
        let mut all = Vec::new();
        for kind in [ResourceType::Topic, ResourceType::Group] {
            for name in NAMES.into_iter().chain(["*", "*a"]) {
                for principal in ["User:x", "User:y", "User:z"] {
                    for host in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
                        let operations = OPERATIONS.into_iter().filter(|o| *o != Operation::All);
                        all.extend(operations.map(|operation| Request {
                            kind,
                            name,
                            principal,
                            host,
                            operation,
                        }));
                    }
                }
            }
        }
        all
    }

    /// As a broker decides.
    fn matches(acl: &Acl, request: &Request) -> bool {
        let is_named = match acl.pattern_type {
            PatternType::Literal => &*acl.resource_name == "*" || &*acl.resource_name == request.name,
            PatternType::Prefixed => request.name.starts_with(&*acl.resource_name),
        };
        let implies = |operation: Operation| match acl.permission {
            Permission::Deny => acl.operation == operation,
            Permission::Allow => match operation {
                Operation::Describe => {
                    use Operation::{Alter, Delete, Describe, Read, Write};
                    [Describe, Read, Write, Delete, Alter].contains(&acl.operation)
                }
                Operation::DescribeConfigs => {
                    [Operation::DescribeConfigs, Operation::AlterConfigs].contains(&acl.operation)
                }
                other => acl.operation == other,
            },
        };
        is_named
            && acl.resource_type == request.kind
            && ["User:*", request.principal].contains(&&*acl.principal)
            && ["*", request.host].contains(&&*acl.host)
            && (acl.operation == Operation::All || implies(request.operation))
    }

    proptest! {
        #[test]
        fn an_allow_and_a_deny_overlap_where_a_request_matches_both(
            allow in any_acl(Permission::Allow),
            deny in any_acl(Permission::Deny),
        ) {
            let both = requests().iter().any(|request| matches(&allow, request) && matches(&deny, request));
            prop_assert_eq!(overlap(&allow, &deny), both, "{} / {}", allow, deny);
        }

        /// What may be written opens nothing that the source's denials shut, and nothing else waits.
        #[test]
        fn nothing_is_granted_that_a_missing_deny_would_take(
            allows in proptest::collection::btree_set(any_acl(Permission::Allow), 0..12),
            denies in proptest::collection::btree_set(any_acl(Permission::Deny), 0..6),
        ) {
            let (free, held) = denies.iter().collect::<Missing<'_>>().hold(&allows);
            prop_assert_eq!(free.len() + held.len(), allows.len());
            for request in requests() {
                if denies.iter().any(|deny| matches(deny, &request)) {
                    prop_assert!(!free.iter().any(|allow| matches(allow, &request)));
                }
            }
            for (allow, deny) in held {
                prop_assert!(denies.contains(deny) && overlap(&allow, deny));
            }
        }
    }

    #[test]
    fn what_is_held_names_the_deny_that_it_waits_for() {
        let deny = acl("DENY User:* ALL TOPIC PREFIXED or 10.0.0.9");
        let missing: Missing<'_> = [&deny].into_iter().collect();
        let allow = acl("ALLOW User:a READ TOPIC LITERAL orders *");
        let other = acl("ALLOW User:a READ GROUP LITERAL orders *");
        let (free, held) = missing.hold(&BTreeSet::from([allow.clone(), other.clone()]));
        assert_eq!((free, held.get(&allow)), (BTreeSet::from([other]), Some(&&deny)));
        assert!(waits_for(&deny).contains("DENY User:* ALL on TOPIC PREFIXED 'or' from 10.0.0.9"));
    }
}
