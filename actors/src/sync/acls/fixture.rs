//! ACLs as tests write them: `ALLOW User:a READ TOPIC LITERAL orders *`.

use std::collections::BTreeSet;

use kafka::acls::{Acl, Operation, PatternType, Permission, ResourceType};

pub fn acl(text: &str) -> Acl {
    let words: Vec<&str> = text.split(' ').collect();
    let [permission, principal, operation, resource, pattern, name, host] = words[..] else {
        panic!("'{text}' isn't of seven words");
    };
    Acl {
        resource_type: ResourceType::of_name(resource).expect(resource),
        pattern_type: PatternType::of_name(pattern).expect(pattern),
        resource_name: name.into(),
        principal: principal.into(),
        host: host.into(),
        operation: Operation::of_name(operation).expect(operation),
        permission: Permission::of_name(permission).expect(permission),
    }
}

pub fn acls(of: &[&str]) -> BTreeSet<Acl> {
    of.iter().map(|text| acl(text)).collect()
}
