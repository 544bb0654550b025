//! A node's key, its certificate and whom it trusts, in its data directory: `peer.key`, `peer.crt`,
//! `peer-ca.crt`.
//!
//! The key never leaves that directory, and is made once. Files are replaced whole: after a crash there is
//! the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use catalog::NodeId;
use catalog::fleet::FleetId;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::names;

const KEY_FILE: &str = "peer.key";
const CERTIFICATE_FILE: &str = "peer.crt";
const AUTHORITIES_FILE: &str = "peer-ca.crt";

/// For the owner alone.
const MODE: u32 = 0o600;

/// As RFC 7468 writes PEM.
const PEM_LINE_CHARACTERS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: {why}")]
    Contents { path: PathBuf, why: String },
    #[error("the system gave no random bytes for a key")]
    NoKey,
}

/// The node's private key: ECDSA on P-256.
pub struct NodeKey {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl NodeKey {
    /// The key in the directory; a new one, durable, where there is none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn open_or_create(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(KEY_FILE);
        if let Some(text) = read(&path)? {
            let contents = |why: String| IdentityError::Contents { path: path.clone(), why };
            let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|e| contents(e.to_string()))?;
            return Self::of(key.secret_pkcs8_der().to_vec())
                .ok_or_else(|| contents("this isn't a key for ECDSA on P-256".into()));
        }
        let key = Self::generate()?;
        replace(&path, &to_pem("PRIVATE KEY", [&*key.pkcs8]))?;
        Ok(key)
    }

    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
        let pkcs8 = pkcs8.map_err(|_| IdentityError::NoKey)?;
        Self::of(pkcs8.as_ref().to_vec()).ok_or(IdentityError::NoKey)
    }

    fn of(pkcs8: Vec<u8>) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &SystemRandom::new());
        Some(Self { pair: pair.ok()?, pkcs8 })
    }

    /// What an authority signs: the point on the curve.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.clone()).into()
    }

    /// None: the system gave no random bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.pair.sign(&SystemRandom::new(), message).ok().map(|signature| signature.as_ref().to_vec())
    }
}

/// Who a node is among its peers.
pub struct Identity {
    pub key: NodeKey,
    pub certificate: CertificateDer<'static>,
    pub authorities: Vec<CertificateDer<'static>>,
    /// As the certificate says.
    pub fleet: FleetId,
    pub node: NodeId,
}

impl Identity {
    /// What the directory holds; none where the node has no certificate yet.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let certificates = certificates(&directory.join(CERTIFICATE_FILE))?;
        let Some(certificate) = certificates.into_iter().next() else { return Ok(None) };
        let authorities = self::certificates(&directory.join(AUTHORITIES_FILE))?;
        let key = NodeKey::open_or_create(directory)?;
        Self::of(key, certificate, authorities).map(Some).map_err(|why| {
            let path = directory.join(CERTIFICATE_FILE);
            IdentityError::Contents { path, why }
        })
    }

    /// # Errors
    /// In words: the certificate names no node.
    pub fn of(
        key: NodeKey,
        certificate: CertificateDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let (fleet, node) =
            names::named(&certificate).ok_or("the certificate names no node of a fleet".to_owned())?;
        Ok(Self { key, certificate, authorities, fleet, node })
    }

    /// Makes certificate and authorities durable. Authorities first: they must be there with the
    /// certificate.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let authorities = self.authorities.iter().map(|authority| &**authority);
        replace(&directory.join(AUTHORITIES_FILE), &to_pem("CERTIFICATE", authorities))?;
        replace(&directory.join(CERTIFICATE_FILE), &to_pem("CERTIFICATE", [&*self.certificate]))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let Some(text) = read(path)? else { return Ok(Vec::new()) };
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    parsed.map_err(|error| IdentityError::Contents { path: path.to_owned(), why: error.to_string() })
}

pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

/// The whole file or the one before, whenever the machine stops.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), IdentityError> {
    let written = || -> io::Result<()> {
        let new = path.with_extension("new");
        // One that a crash left may have other rights.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    written().map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

fn to_pem<'a>(label: &str, contents: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for der in contents {
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        let mut rest = &*STANDARD.encode(der);
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(PEM_LINE_CHARACTERS));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority;
    use std::os::unix::fs::PermissionsExt;

    fn identity(directory: &Path) -> Identity {
        let fleet = FleetId("aB_-xyzXYZ0123456789ab".into());
        let authority = authority::found(&fleet, 0).expect("an authority");
        let key = NodeKey::open_or_create(directory).expect("a key");
        let authorities = vec![CertificateDer::from(authority.certificate.to_vec())];
        let certificate = authority::sign(&[authority], &fleet, NodeId(7), key.public(), 0).expect("signed");
        Identity::of(key, CertificateDer::from(certificate.to_vec()), authorities).expect("an identity")
    }

    #[test]
    fn what_was_saved_is_loaded_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Identity::load(directory.path()).expect("loads").is_none(), "before there is one");
        let saved = identity(directory.path());
        saved.save(directory.path()).expect("saves");
        saved.save(directory.path()).expect("and again");
        let loaded = Identity::load(directory.path()).expect("loads").expect("there");
        assert_eq!(loaded.key.pkcs8, saved.key.pkcs8);
        assert_eq!((loaded.certificate, loaded.authorities), (saved.certificate, saved.authorities));
        assert_eq!((loaded.node, loaded.fleet), (NodeId(7), saved.fleet));
        for name in [KEY_FILE, CERTIFICATE_FILE, AUTHORITIES_FILE] {
            let mode = fs::metadata(directory.path().join(name)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, MODE, "{name}");
        }
        let left = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 3, "no temporary file is left");
    }

    #[test]
    fn what_a_crash_left_of_a_file_that_was_being_replaced_does_no_harm() {
        let directory = tempfile::tempdir().expect("a directory");
        let saved = identity(directory.path());
        fs::write(directory.path().join("peer.new"), "half of").expect("written");
        saved.save(directory.path()).expect("saves");
        assert!(Identity::load(directory.path()).expect("loads").is_some());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        identity(directory.path()).save(directory.path()).expect("saves");
        for name in [KEY_FILE, CERTIFICATE_FILE, AUTHORITIES_FILE] {
            let path = directory.path().join(name);
            let good = fs::read(&path).expect("a file");
            fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n").expect("written");
            let error = Identity::load(directory.path()).err().expect("damaged");
            assert!(error.to_string().contains(name), "{error}");
            fs::write(&path, good).expect("written");
        }
    }
}
