//! A real broker with a listener for each way in: TLS, TLS with client certificates, and SASL with
//! and without TLS; its users, and CAs and certificates made for one test.
//!
//! It only sets up: no client of ours speaks TLS or SASL. The plain listener stays, so that
//! witnesses can look at the same broker from beside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::cluster::{KafkaCluster, KafkaConfig};
use crate::ports::PortLease;

/// A user with a password.
pub type User = (&'static str, &'static str);

/// Its password has characters that mean something to JAAS and to properties files.
pub const PLAIN_USER: User = ("alice", r#"p "q" \\ü,="#);
/// `kafka-storage format` takes no such password.
pub const SCRAM_USER: User = ("bob", "bobs-password");

pub const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// PLAIN sessions on the listener BRIEF end after this.
pub const BRIEF_SESSION_MS: u64 = 3_000;

/// Name, protocol, and what a client's certificate is to this listener.
const LISTENERS: [(&str, &str, &str); 5] = [
    ("TLS", "SSL", "none"),
    ("MUTUAL", "SSL", "required"),
    ("LOGIN", "SASL_PLAINTEXT", "none"),
    ("BRIEF", "SASL_PLAINTEXT", "none"),
    ("BOTH", "SASL_SSL", "none"),
];

/// A CA of one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a broker under these host names and addresses, or for a client.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Result<Issued> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Issued { chain: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A lone broker, known as `localhost` on its secured listeners.
pub struct SecuredKafka {
    pub cluster: KafkaCluster,
    pub authority: Authority,
    /// A certificate that the listener MUTUAL takes.
    pub client: Issued,
    ports: BTreeMap<&'static str, PortLease>,
}

impl SecuredKafka {
    /// Starts a broker of the default version, its data and certificates in `parent`/`name`.
    pub fn start(name: &str, parent: &Path) -> Result<SecuredKafka> {
        Self::start_as(KafkaConfig::single(name, parent))
    }

    /// [`start`](Self::start) with another version, or with properties beside those of its listeners.
    pub fn start_as(mut config: KafkaConfig) -> Result<SecuredKafka> {
        let authority = Authority::new(&format!("CA of {}", config.name))?;
        let broker = authority.issue("broker", &["localhost"])?;
        fs::create_dir_all(&config.directory)
            .with_context(|| format!("create {}", config.directory.display()))?;
        let ca_path = config.directory.join("ca.pem").display().to_string();
        let broker_path = config.directory.join("broker.pem").display().to_string();
        fs::write(&ca_path, authority.pem()).context("write the CA")?;
        fs::write(&broker_path, format!("{}{}", broker.key, broker.chain))
            .context("write the certificate")?;

        let first_port = two_free_ports()?;
        config.first_port = Some(first_port);
        let ports = LISTENERS.iter().map(|(name, ..)| Ok((*name, PortLease::take()?)));
        let ports = ports.collect::<Result<BTreeMap<_, _>>>()?;
        config.properties.extend(listener_properties(first_port, &ports));
        for (name, protocol, client_auth) in LISTENERS {
            let prefix = format!("listener.name.{}", name.to_lowercase());
            let more = [
                if protocol.ends_with("SSL") { tls(&broker_path, &ca_path, client_auth) } else { vec![] },
                if protocol.starts_with("SASL") { sasl() } else { vec![] },
            ];
            let more = more.concat();
            config.properties.extend(more.into_iter().map(|(key, value)| (format!("{prefix}.{key}"), value)));
        }
        let scram = format!("name={},password={}", SCRAM_USER.0, SCRAM_USER.1);
        let users = ["256", "512"].map(|hash| format!("SCRAM-SHA-{hash}=[{scram}]"));
        let users = users.map(|user| ["--add-scram".to_owned(), user]).concat();
        let cluster = KafkaCluster::start_formatted(config, &users)?;
        let client = authority.issue("client", &[])?;
        Ok(SecuredKafka { cluster, authority, client, ports })
    }

    /// The port of the listener TLS, MUTUAL, LOGIN, BRIEF or BOTH.
    ///
    /// # Panics
    /// For another name.
    pub fn port(&self, listener: &str) -> u16 {
        self.ports[listener].port()
    }

    /// A properties file for SASL_SSL with SCRAM: CA and password in files.
    pub fn login_properties(&self, password: &Path, directory: &Path) -> Result<PathBuf> {
        let name = self.cluster.name();
        let ca = directory.join(format!("{name}-ca.pem"));
        fs::write(&ca, self.authority.pem()).context("write the CA")?;
        let keys = format!(
            "bootstrap.servers=localhost:{}\n\
             security.protocol=SASL_SSL\n\
             sasl.mechanism=SCRAM-SHA-512\n\
             sasl.username={}\n\
             sasl.password=file:{}\n\
             ssl.truststore.location={}\n",
            self.port("BOTH"),
            SCRAM_USER.0,
            password.display(),
            ca.display()
        );
        write(directory.join(format!("{name}.properties")), &keys)
    }

    /// A properties file for SASL_PLAINTEXT with PLAIN: the password in a file.
    pub fn plain_properties(&self, password: &Path, directory: &Path) -> Result<PathBuf> {
        let keys = format!(
            "bootstrap.servers=localhost:{}\n\
             security.protocol=SASL_PLAINTEXT\n\
             sasl.mechanism=PLAIN\n\
             sasl.username={}\n\
             sasl.password=file:{}\n",
            self.port("LOGIN"),
            PLAIN_USER.0,
            password.display()
        );
        write(directory.join(format!("{}.properties", self.cluster.name())), &keys)
    }

    /// A properties file for SSL with a certificate of our own, in one file with its key; the CA
    /// stands in the properties.
    pub fn certificate_properties(&self, directory: &Path) -> Result<PathBuf> {
        let name = self.cluster.name();
        let client = directory.join(format!("{name}-client.pem"));
        fs::write(&client, format!("{}{}", self.client.key, self.client.chain)).context("write the key")?;
        let keys = format!(
            "bootstrap.servers=localhost:{}\n\
             security.protocol=SSL\n\
             ssl.keystore.location={}\n\
             ssl.truststore.certificates={}\n",
            self.port("MUTUAL"),
            client.display(),
            self.authority.pem().trim_end().replace('\n', "\\n\\\n")
        );
        write(directory.join(format!("{name}.properties")), &keys)
    }

    /// The `security.protocol` of a listener.
    ///
    /// # Panics
    /// For a name that is none.
    pub fn protocol(&self, listener: &str) -> &'static str {
        LISTENERS.iter().find(|(name, ..)| *name == listener).expect("a listener's name").1
    }
}

fn write(path: PathBuf, text: &str) -> Result<PathBuf> {
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn listener_properties(first_port: u16, ports: &BTreeMap<&str, PortLease>) -> BTreeMap<String, String> {
    let secured = ports.iter().map(|(name, port)| format!(",{name}://localhost:{}", port.port()));
    let advertised = format!("PLAINTEXT://127.0.0.1:{first_port}{}", secured.collect::<String>());
    let protocols = LISTENERS.iter().map(|(name, protocol, _)| format!(",{name}:{protocol}"));
    let protocols = format!("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{}", protocols.collect::<String>());
    [
        ("listeners", format!("{advertised},CONTROLLER://127.0.0.1:{}", first_port + 1)),
        ("advertised.listeners", advertised),
        ("listener.security.protocol.map", protocols),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("sasl.enabled.mechanisms", MECHANISMS.join(",")),
        ("listener.name.brief.plain.connections.max.reauth.ms", BRIEF_SESSION_MS.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn tls(broker_path: &str, ca_path: &str, client_auth: &str) -> Vec<(String, String)> {
    [
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.location", broker_path),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", ca_path),
        ("ssl.client.auth", client_auth),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

fn sasl() -> Vec<(String, String)> {
    let plain = jaas("plain.PlainLoginModule", &format!("user_{}={}", PLAIN_USER.0, quoted(PLAIN_USER.1)));
    // A properties file has escapes of its own and is read as Latin-1.
    let plain = plain.replace('\\', "\\\\").replace('ü', "\\u00fc");
    let scram = jaas("scram.ScramLoginModule", "");
    vec![
        ("plain.sasl.jaas.config".to_owned(), plain),
        ("scram-sha-256.sasl.jaas.config".to_owned(), scram.clone()),
        ("scram-sha-512.sasl.jaas.config".to_owned(), scram),
    ]
}

/// A `sasl.jaas.config` line.
pub fn jaas(module: &str, options: &str) -> String {
    format!("org.apache.kafka.common.security.{module} required {options};")
}

/// A value as JAAS takes it.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The harness takes a port and the one above it for a broker; listeners are written with both.
pub fn two_free_ports() -> Result<u16> {
    loop {
        let port = PortLease::take()?.port();
        if PortLease::fixed(port + 1).is_ok() {
            return Ok(port);
        }
    }
}
