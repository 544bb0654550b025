//! ACLs: read whole, created, deleted one by one. An error is never an empty list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{ApiKey, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use kafka_protocol::protocol::StrBytes;

use crate::connection::{Api, Connection, Gate};
use crate::error::{Error, ErrorCode};
use crate::shape;

static DESCRIBE_ACLS: Api = Api {
    key: ApiKey::DescribeAcls as i16,
    name: "DescribeAcls",
    versions: &[(3, true, shape::DESCRIBE_ACLS_V2), (2, true, shape::DESCRIBE_ACLS_V2)],
};
static CREATE_ACLS: Api = Api {
    key: ApiKey::CreateAcls as i16,
    name: "CreateAcls",
    versions: &[(3, true, shape::CREATE_ACLS_V2), (2, true, shape::CREATE_ACLS_V2)],
};
static DELETE_ACLS: Api = Api {
    key: ApiKey::DeleteAcls as i16,
    name: "DeleteAcls",
    versions: &[(3, true, shape::DELETE_ACLS_V2), (2, true, shape::DELETE_ACLS_V2)],
};

/// All ACLs of a cluster: some fifty thousand.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// In a filter: whatever it is.
const ANY: i8 = 1;

/// Codes and names as Kafka has them. What a broker calls UNKNOWN and what only filters say isn't among them.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($kind:ident = $code:literal $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($kind = $code,)* }

        impl $name {
            pub const EVERY: &[Self] = &[$(Self::$kind,)*];

            pub fn code(self) -> i8 {
                self as i8
            }

            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }

            /// None: a kind that this version doesn't know.
            pub fn of_code(code: i8) -> Option<Self> {
                Self::EVERY.iter().copied().find(|kind| kind.code() == code)
            }

            /// In whichever case.
            pub fn of_name(name: &str) -> Option<Self> {
                Self::EVERY.iter().copied().find(|kind| kind.name().eq_ignore_ascii_case(name))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

kinds!(ResourceType {
    Topic = 2 "TOPIC",
    Group = 3 "GROUP",
    Cluster = 4 "CLUSTER",
    TransactionalId = 5 "TRANSACTIONAL_ID",
    DelegationToken = 6 "DELEGATION_TOKEN",
    User = 7 "USER",
});
kinds!(PatternType {
    Literal = 3 "LITERAL",
    Prefixed = 4 "PREFIXED",
});
kinds!(Operation {
    All = 2 "ALL",
    Read = 3 "READ",
    Write = 4 "WRITE",
    Create = 5 "CREATE",
    Delete = 6 "DELETE",
    Alter = 7 "ALTER",
    Describe = 8 "DESCRIBE",
    ClusterAction = 9 "CLUSTER_ACTION",
    DescribeConfigs = 10 "DESCRIBE_CONFIGS",
    AlterConfigs = 11 "ALTER_CONFIGS",
    IdempotentWrite = 12 "IDEMPOTENT_WRITE",
    CreateTokens = 13 "CREATE_TOKENS",
    DescribeTokens = 14 "DESCRIBE_TOKENS",
    TwoPhaseCommit = 15 "TWO_PHASE_COMMIT",
});
kinds!(Permission {
    Deny = 2 "DENY",
    Allow = 3 "ALLOW",
});

/// One ACL. It has no id and carries nothing else: two that are equal are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    pub resource_type: ResourceType,
    pub pattern_type: PatternType,
    /// LITERAL `*` is every name.
    pub resource_name: Arc<str>,
    pub principal: Arc<str>,
    pub host: Arc<str>,
    pub operation: Operation,
    pub permission: Permission,
}

/// As a person reads it: `ALLOW User:app WRITE on TOPIC LITERAL 'orders' from *`.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, pattern_type, resource_name, principal, host, operation, permission } =
            self;
        write!(
            f,
            "{permission} {principal} {operation} on {resource_type} {pattern_type} '{resource_name}' from {host}"
        )
    }
}

/// All that a cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    pub acls: BTreeSet<Acl>,
    /// ACLs of a kind that this version doesn't know.
    pub unknown: usize,
}

/// What became of each.
pub type Outcomes = BTreeMap<Acl, Result<(), AclError>>;

/// Why a broker refused one ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    pub code: ErrorCode,
    pub message: Option<String>,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}

/// All ACLs of the cluster, in one answer.
///
/// # Errors
/// [`Error::Broker`]: 31 without DESCRIBE on the cluster, 54 where nothing authorizes.
pub async fn describe(connection: &Connection) -> Result<Described, Error> {
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let timeout = connection.request_timeout();
    let response = connection.call_bounded(&DESCRIBE_ACLS, &request, timeout, FRAME_BYTES_MAX).await?;
    ErrorCode::check(response.error_code, "DescribeAcls")?;
    let mut described = Described::default();
    for resource in &response.resources {
        for acl in &resource.acls {
            let known = || {
                Some(Acl {
                    resource_type: ResourceType::of_code(resource.resource_type)?,
                    pattern_type: PatternType::of_code(resource.pattern_type)?,
                    resource_name: resource.resource_name.as_str().into(),
                    principal: acl.principal.as_str().into(),
                    host: acl.host.as_str().into(),
                    operation: Operation::of_code(acl.operation)?,
                    permission: Permission::of_code(acl.permission_type)?,
                })
            };
            match known() {
                Some(acl) => drop(described.acls.insert(acl)),
                None => described.unknown += 1,
            }
        }
    }
    Ok(described)
}

/// Creates these, each for itself; one that is there already stays. Sent only while `gate` is open.
///
/// # Errors
/// Those of [`Connection::call`]: it isn't known then what was created. [`Error::Protocol`] for an answer that
/// doesn't fit.
pub async fn create(connection: &Connection, acls: &[Acl], gate: Gate) -> Result<Outcomes, Error> {
    let creation = |acl: &Acl| {
        AclCreation::default()
            .with_resource_type(acl.resource_type.code())
            .with_resource_name(text(&acl.resource_name))
            .with_resource_pattern_type(acl.pattern_type.code())
            .with_principal(text(&acl.principal))
            .with_host(text(&acl.host))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.permission.code())
    };
    let request = CreateAclsRequest::default().with_creations(acls.iter().map(creation).collect());
    let response = connection.call_gated(&CREATE_ACLS, &request, Some(gate)).await?;
    let results = response.results.into_iter().map(|r| outcome(r.error_code, r.error_message));
    outcomes(connection, "CreateAcls", acls, results.collect())
}

/// Deletes exactly these, each for itself; one that isn't there is no error. Sent only while `gate` is open.
///
/// # Errors
/// As those of [`create`].
pub async fn delete(connection: &Connection, acls: &[Acl], gate: Gate) -> Result<Outcomes, Error> {
    let filter = |acl: &Acl| {
        DeleteAclsFilter::default()
            .with_resource_type_filter(acl.resource_type.code())
            .with_resource_name_filter(Some(text(&acl.resource_name)))
            .with_pattern_type_filter(acl.pattern_type.code())
            .with_principal_filter(Some(text(&acl.principal)))
            .with_host_filter(Some(text(&acl.host)))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.permission.code())
    };
    let request = DeleteAclsRequest::default().with_filters(acls.iter().map(filter).collect());
    let response = connection.call_gated(&DELETE_ACLS, &request, Some(gate)).await?;
    let results = response.filter_results.into_iter().map(|of_filter| {
        outcome(of_filter.error_code, of_filter.error_message)?;
        let mut matching = of_filter.matching_acls.into_iter();
        matching.try_for_each(|acl| outcome(acl.error_code, acl.error_message))
    });
    outcomes(connection, "DeleteAcls", acls, results.collect())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn outcome(code: i16, message: Option<StrBytes>) -> Result<(), AclError> {
    let message = message.map(|message| message.to_string()).filter(|message| !message.is_empty());
    ErrorCode::of(code).map_or(Ok(()), |code| Err(AclError { code, message }))
}

/// Answers come in the order of what was asked.
fn outcomes(
    connection: &Connection,
    what: &str,
    acls: &[Acl],
    results: Vec<Result<(), AclError>>,
) -> Result<Outcomes, Error> {
    if results.len() != acls.len() {
        let reason = format!("{what} response with {} results for {} ACLs", results.len(), acls.len());
        return Err(Error::Protocol { address: connection.address().to_owned(), reason });
    }
    Ok(acls.iter().cloned().zip(results).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_code_and_by_its_name_in_any_case() {
        for kind in Operation::EVERY {
            assert_eq!(Operation::of_code(kind.code()), Some(*kind));
            assert_eq!(Operation::of_name(&kind.name().to_lowercase()), Some(*kind));
        }
        let codes = |codes: &mut dyn Iterator<Item = i8>| codes.collect::<Vec<_>>();
        assert_eq!(codes(&mut ResourceType::EVERY.iter().map(|k| k.code())), (2..=7).collect::<Vec<_>>());
        assert_eq!(codes(&mut Operation::EVERY.iter().map(|k| k.code())), (2..=15).collect::<Vec<_>>());
        // Unknown, and what only filters say: any and match.
        assert_eq!([0, 1, 2, 5].map(PatternType::of_code), [None; 4]);
        assert_eq!((Permission::of_code(1), ResourceType::of_name("any")), (None, None));
    }
}
