//! What a TLS failure means for the person who configured the cluster.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a handshake failed.
pub fn in_handshake(error: &std::io::Error) -> String {
    if let Some(reason) = in_stream(error) {
        return reason;
    }
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::BrokenPipe => {
            "the peer closed the connection in the handshake; a listener that doesn't speak TLS does that \
             (see security.protocol)"
                .into()
        }
        _ => error.to_string(),
    }
}

/// Why a stream that was handshaken before failed, when TLS is the reason. With TLS 1.3 a broker
/// that refuses our certificate says so only after the handshake.
pub fn in_stream(error: &std::io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(describe)
}

/// What begins like this isn't a Kafka response: who speaks here instead.
pub fn not_kafka(first: [u8; 4]) -> Option<&'static str> {
    match &first {
        // Alert, major version 3.
        [0x15, 0x03, ..] => Some("this listener speaks TLS; set security.protocol to SSL or SASL_SSL"),
        b"HTTP" => Some("this is an HTTP server, not a Kafka broker"),
        b"SSH-" => Some("this is an SSH server, not a Kafka broker"),
        _ => None,
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => {
            "the peer answered with something that isn't TLS; is this a TLS listener? (see security.protocol)"
                .into()
        }
        Error::PeerIncompatible(why) => {
            format!("broker and client have no TLS in common: {why:?}; TLS 1.2 or 1.3 is needed")
        }
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    let text = format!("{error:?}");
    match error {
        CertificateError::UnknownIssuer => "the broker's certificate isn't signed by a CA that is trusted; \
             ssl.truststore.certificates (or .location) must hold the CA that signed it"
            .into(),
        CertificateError::BadSignature => "the broker's certificate isn't signed by the CA that is trusted, \
             only by one of the same name; ssl.truststore.certificates (or .location) must hold the CA that \
             signed it"
            .into(),
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => format!(
            "the broker's certificate names no host (it has no subjectAltName), so it isn't valid for '{}'; \
             have it issued with one, or set ssl.endpoint.identification.algorithm=none",
            expected.to_str()
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the broker's certificate is for {}, not for '{}'; connect by a name that it holds, have it \
             issued with this one, or set ssl.endpoint.identification.algorithm=none",
            names(presented),
            expected.to_str()
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("a certificate of the broker has expired{}", age(error))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("a certificate of the broker isn't valid yet{}; is this node's clock right?", age(error))
        }
        _ if text.contains("UnsupportedCertVersion") => {
            "the broker's certificate is of X.509 version 1, which \
             isn't accepted; have it issued as version 3, with a subjectAltName"
                .into()
        }
        _ if text.contains("CaUsedAsEndEntity") => {
            "the broker shows a CA's certificate as its own (made with \
             basicConstraints CA:TRUE), which isn't accepted; have one issued for it"
                .into()
        }
        other => format!("the broker's certificate is refused: {other}"),
    }
}

/// webpki shows `DnsName("host")` and `IpAddress(address)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').to_owned()
    };
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

fn age(error: &CertificateError) -> String {
    let hours = |from: rustls::pki_types::UnixTime, to: rustls::pki_types::UnixTime| {
        to.as_secs().saturating_sub(from.as_secs()).div_ceil(3600)
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!(" {} hours ago", hours(*not_after, *time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(" for {} hours", hours(*time, *not_before))
        }
        _ => String::new(),
    }
}

fn alert_received(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the broker asks for a client certificate; give ssl.keystore.certificate.chain and \
                ssl.keystore.key"
                .into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => format!(
            "the broker refuses the client certificate, or asks for one and got none ({alert:?}); see \
             ssl.keystore.certificate.chain"
        ),
        AlertDescription::UnrecognisedName => "the broker serves no such host name (UnrecognisedName)".into(),
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            format!("broker and client have no TLS in common ({alert:?}); TLS 1.2 or 1.3 is needed")
        }
        other => format!("the broker ended TLS with {other:?}"),
    }
}
