//! What a failure of TLS between nodes means for whoever runs them.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a stream failed, when that is because one of the two doesn't accept the other's certificate. With
/// TLS 1.3 the called node says so only after the handshake.
pub(crate) fn of_certificates(error: &std::io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => Some(certificate(error)),
        Error::AlertReceived(alert) => alert_received(*alert),
        _ => None,
    }
}

/// Whether the other end just went.
pub(crate) fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

pub(crate) fn words(error: &std::io::Error) -> String {
    if let Some(words) = of_certificates(error) {
        return words;
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )) => "it answered with something that isn't TLS; is this the peer address of a node?".into(),
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate isn't signed by an authority that this node trusts: is it of this fleet?".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; are both clocks right?".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate isn't valid yet; are both clocks right?".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate isn't for this use: one of a node is for servers and for clients".into()
        }
        other => format!("its certificate isn't accepted: {other}"),
    }
}

fn alert_received(alert: AlertDescription) -> Option<String> {
    match alert {
        AlertDescription::CertificateExpired => {
            Some("it says that this node's certificate has expired or isn't valid yet".into())
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            Some("it doesn't trust the authority that signed this node's certificate: another fleet?".into())
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied => {
            Some(format!("it doesn't accept this node's certificate ({alert:?})"))
        }
        _ => None,
    }
}
