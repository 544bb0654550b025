//! Whose certificate it is: one URI among its alternative names, `lockstep://FLEET/NODE`. Fleet ids tell
//! capitals apart and may contain `_`, which host names don't.

use catalog::NodeId;
use catalog::fleet::FleetId;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

const SCHEME: &str = "lockstep://";

/// Hexadecimal, as ids are shown.
const NODE_CHARACTERS: usize = 16;

pub(crate) fn uri(fleet: &FleetId, node: NodeId) -> String {
    format!("{SCHEME}{fleet}/{node}")
}

/// The fleet and node that a certificate of a fleet's own authority names.
pub(crate) fn named(certificate: &CertificateDer<'_>) -> Option<(FleetId, NodeId)> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_uri_names().find_map(parse)
}

fn parse(uri: &str) -> Option<(FleetId, NodeId)> {
    let (fleet, node) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    if node.len() != NODE_CHARACTERS || !node.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some((FleetId(fleet.into()), NodeId(u64::from_str_radix(node, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_with_its_capitals() {
        let fleet = FleetId("aB_-xyzXYZ0123456789ab".into());
        let name = uri(&fleet, NodeId(0xab));
        assert_eq!(name, "lockstep://aB_-xyzXYZ0123456789ab/00000000000000ab");
        assert_eq!(parse(&name), Some((fleet, NodeId(0xab))));
    }

    #[test]
    fn other_names_are_none() {
        for other in ["", "https://a/00000000000000ab", "lockstep://a/ab", "lockstep://a/+0000000000000ab"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
