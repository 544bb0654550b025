//! ACLs of a cluster, by requests of our own: an ACL is a line of seven words, such as
//! `ALLOW User:app READ TOPIC LITERAL orders *`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wire::{Api, Connection, Cursor, put_string};

const LIMIT: Duration = Duration::from_secs(30);

const DESCRIBE: Api = Api { name: "DescribeAcls", key: 29, version: 1 };
const CREATE: Api = Api { name: "CreateAcls", key: 30, version: 1 };
const DELETE: Api = Api { name: "DeleteAcls", key: 31, version: 1 };

/// By code, from the first that an ACL may have.
const RESOURCES: (i8, &[&str]) =
    (2, &["TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID", "DELEGATION_TOKEN", "USER"]);
const PATTERNS: (i8, &[&str]) = (3, &["LITERAL", "PREFIXED"]);
const OPERATIONS: (i8, &[&str]) = (
    2,
    &[
        "ALL",
        "READ",
        "WRITE",
        "CREATE",
        "DELETE",
        "ALTER",
        "DESCRIBE",
        "CLUSTER_ACTION",
        "DESCRIBE_CONFIGS",
        "ALTER_CONFIGS",
        "IDEMPOTENT_WRITE",
        "CREATE_TOKENS",
        "DESCRIBE_TOKENS",
    ],
);
const PERMISSIONS: (i8, &[&str]) = (2, &["DENY", "ALLOW"]);
const ANY: u8 = 1;

pub type Acls = BTreeSet<String>;

pub fn acls(bootstrap: &str) -> Result<Acls> {
    let mut body = vec![ANY];
    put_string(&mut body, None);
    body.push(ANY);
    put_string(&mut body, None);
    put_string(&mut body, None);
    body.extend([ANY, ANY]);
    let answer = open(bootstrap)?.call(DESCRIBE, &body)?;
    let mut cursor = Cursor::new(&answer);
    cursor.i32()?;
    let (code, message) = (cursor.i16()?, cursor.string()?);
    ensure!(code == 0, "DescribeAcls: error {code}: {message:?}");
    let of_resource = cursor.list(|cursor| {
        let resource = name(RESOURCES, cursor.i8()?)?;
        let resource_name = cursor.string()?.context("a resource without a name")?;
        let pattern = name(PATTERNS, cursor.i8()?)?;
        cursor.list(|cursor| {
            let principal = cursor.string()?.context("an ACL without a principal")?;
            let host = cursor.string()?.context("an ACL without a host")?;
            let operation = name(OPERATIONS, cursor.i8()?)?;
            let permission = name(PERMISSIONS, cursor.i8()?)?;
            Ok(format!("{permission} {principal} {operation} {resource} {pattern} {resource_name} {host}"))
        })
    })?;
    Ok(of_resource.into_iter().flatten().collect())
}

pub fn create(bootstrap: &str, acls: &[&str]) -> Result<()> {
    let mut body = count(acls)?;
    for acl in acls {
        put(&mut body, acl)?;
    }
    let answer = open(bootstrap)?.call(CREATE, &body)?;
    let mut cursor = Cursor::new(&answer);
    cursor.i32()?;
    cursor.list(|cursor| {
        let (code, message) = (cursor.i16()?, cursor.string()?);
        ensure!(code == 0, "CreateAcls: error {code}: {message:?}");
        Ok(())
    })?;
    Ok(())
}

/// Each of them must be there.
pub fn delete(bootstrap: &str, acls: &[&str]) -> Result<()> {
    let mut body = count(acls)?;
    for acl in acls {
        put(&mut body, acl)?;
    }
    let answer = open(bootstrap)?.call(DELETE, &body)?;
    let mut cursor = Cursor::new(&answer);
    cursor.i32()?;
    cursor.list(|cursor| {
        let (code, message) = (cursor.i16()?, cursor.string()?);
        ensure!(code == 0, "DeleteAcls: error {code}: {message:?}");
        let matching = cursor.list(|cursor| {
            cursor.i16()?;
            cursor.string()?;
            cursor.i8()?;
            cursor.string()?;
            cursor.i8()?;
            cursor.string()?;
            cursor.string()?;
            cursor.i8()?;
            cursor.i8()
        })?;
        ensure!(matching.len() == 1, "{} ACLs deleted for one of {acls:?}", matching.len());
        Ok(())
    })?;
    Ok(())
}

fn open(bootstrap: &str) -> Result<Connection> {
    let address: SocketAddr = bootstrap.parse().with_context(|| format!("one address, not {bootstrap}"))?;
    Connection::open(address, LIMIT)
}

fn count(acls: &[&str]) -> Result<Vec<u8>> {
    Ok(i32::try_from(acls.len()).context("too many ACLs")?.to_be_bytes().to_vec())
}

/// A creation and a filter that matches only it look the same.
fn put(body: &mut Vec<u8>, acl: &str) -> Result<()> {
    let words: Vec<&str> = acl.split(' ').collect();
    let [permission, principal, operation, resource, pattern, resource_name, host] = words[..] else {
        bail!("'{acl}' isn't of seven words");
    };
    body.push(code(RESOURCES, resource)?);
    put_string(body, Some(resource_name));
    body.push(code(PATTERNS, pattern)?);
    put_string(body, Some(principal));
    put_string(body, Some(host));
    body.extend([code(OPERATIONS, operation)?, code(PERMISSIONS, permission)?]);
    Ok(())
}

fn name((first, names): (i8, &'static [&'static str]), code: i8) -> Result<&'static str> {
    let index = usize::try_from(code - first).ok();
    index.and_then(|index| names.get(index)).copied().with_context(|| format!("code {code} of {names:?}"))
}

fn code((first, names): (i8, &[&str]), name: &str) -> Result<u8> {
    let index = names.iter().position(|known| *known == name).with_context(|| format!("no {name}"))?;
    Ok(u8::try_from(index)? + first.cast_unsigned())
}
