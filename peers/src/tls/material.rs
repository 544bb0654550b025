//! What TLS is made of: this node's chain and key, and the authorities that it trusts.

use std::path::Path;

use catalog::fleet::FleetId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::CertificateError;
use crate::identity::Identity;

#[derive(Debug, PartialEq, Eq)]
pub struct Material {
    /// This node's certificate, then what leads to the authority.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub authorities: Vec<CertificateDer<'static>>,
    /// Certificates name nodes of this fleet. None: any certificate of those authorities is a peer's, and
    /// its id is the one that it says.
    pub fleet: Option<FleetId>,
}

impl Material {
    /// Of the fleet's own authority.
    pub fn of_fleet(identity: &Identity) -> Self {
        Self {
            chain: vec![identity.certificate.clone()],
            key: identity.key.private(),
            authorities: identity.authorities.clone(),
            fleet: Some(identity.fleet.clone()),
        }
    }

    /// Certificates that an operator gives (PEM files). May block on the file system.
    ///
    /// # Errors
    /// [`CertificateError::Unusable`] with the file and what is wrong with it.
    pub fn own(certificate: &Path, key: &Path, authorities: &Path) -> Result<Self, CertificateError> {
        Ok(Self {
            chain: certificates(certificate)?,
            key: PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?,
            authorities: certificates(authorities)?,
            fleet: None,
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(unusable(path, &"it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> CertificateError {
    CertificateError::Unusable { what: path.display().to_string(), why: why.to_string() }
}
