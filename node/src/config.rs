//! Settings of a node: a flag beats a `LOCKSTEP_…` variable beats the file.
//!
//! An error names the flag, the variable, or the file and its key. Nothing is read but what is
//! listed in [`Layer`]; an unknown key in the file is an error.

mod fleet;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use serde::Deserialize;

pub use self::fleet::join_token;
use crate::peering::OwnCertificates;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7780);
const PEER_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7781);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServerArgs {
    /// TOML file with the same keys as the flags, `_` for `-` [env: LOCKSTEP_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Stop when standard input ends, as on SIGTERM: for whoever starts a node and may be killed
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
    #[command(flatten)]
    pub flags: Layer,
}

/// What may be set, from any one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// Directory of everything this node must not lose [env: LOCKSTEP_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where API and CLI reach this node, 127.0.0.1:7780 by default [env: LOCKSTEP_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where this node listens for other nodes, 127.0.0.1:7781 by default [env: LOCKSTEP_PEER_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    peer_listen: Option<SocketAddr>,
    /// Where other nodes reach this one, by default where it listens for them [env: LOCKSTEP_ADVERTISE]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// A second place for /healthz, /readyz and /metrics [env: LOCKSTEP_METRICS_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Join the fleet of these nodes when the data directory is empty [env: LOCKSTEP_JOIN]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    join: Option<Vec<String>>,
    /// What lets it join: a token of 'lockstep node token', or file:PATH [env: LOCKSTEP_JOIN_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    join_token: Option<String>,
    /// A secret that all nodes were given: lets in whoever knows it, any number of times [env: LOCKSTEP_JOIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Own certificate for peers (PEM), in place of the fleet's authority [env: LOCKSTEP_PEER_CERTIFICATE]
    #[arg(long, value_name = "FILE")]
    peer_certificate: Option<PathBuf>,
    /// Its key (PEM) [env: LOCKSTEP_PEER_KEY]
    #[arg(long, value_name = "FILE")]
    peer_key: Option<PathBuf>,
    /// The authority whose certificates are peers' (PEM) [env: LOCKSTEP_PEER_AUTHORITY]
    #[arg(long, value_name = "FILE")]
    peer_authority: Option<PathBuf>,
    /// Found a new fleet when the data directory is empty [env: LOCKSTEP_BOOTSTRAP]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false", hide_possible_values = true)]
    bootstrap: Option<bool>,
    /// A label for this node; at its first start the host's name by default, later what it was [env: LOCKSTEP_NODE_NAME]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Allow listening beyond loopback although anybody there could change everything [env: LOCKSTEP_INSECURE]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false", hide_possible_values = true)]
    insecure: Option<bool>,
    /// How log lines look on stderr, text by default [env: LOCKSTEP_LOG_FORMAT]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// Which log lines, such as `info` or `info,actors=debug` [env: LOCKSTEP_LOG]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What a node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub peer_listen: SocketAddr,
    /// `host:port`; `None`: where it listens for peers.
    pub advertise: Option<String>,
    pub metrics_listen: Option<SocketAddr>,
    pub bootstrap: bool,
    /// Empty: it doesn't join.
    pub join: Vec<String>,
    pub join_token: Option<String>,
    pub join_token_file: Option<PathBuf>,
    pub own_certificates: Option<OwnCertificates>,
    /// `None`: the name it had, or the host's at its first start.
    pub node_name: Option<String>,
    pub insecure: bool,
    pub log_format: LogFormat,
    pub log: String,
    pub until_stdin_ends: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{variable}: {message}")]
    Variable { variable: String, message: String },
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
    #[error("can't read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("no data directory: give --data-dir, LOCKSTEP_DATA_DIR, or data_dir in the configuration file")]
    NoDataDir,
    #[error("{0}: must be HOST:PORT, such as node-1.example:7781")]
    Address(&'static str),
    #[error(
        "--peer-listen {0}: listens on every address; say with --advertise HOST:PORT where other nodes reach this one"
    )]
    NoAdvertise(SocketAddr),
    #[error(
        "--join: needs --join-token TOKEN (from 'lockstep node token' at a member) or --join-token-file FILE"
    )]
    NoToken,
    #[error("{flag}: {message}")]
    Token { flag: &'static str, message: String },
    #[error("--peer-certificate, --peer-key and --peer-authority belong together: give all three or none")]
    OwnCertificates,
    #[error("--bootstrap and --join: a node founds a fleet or joins one, not both")]
    BootstrapAndJoin,
    #[error("node_name: must be 1 to {NODE_NAME_CHARS_MAX} characters, none of them a control character")]
    NodeName,
    #[error(
        "{flag} {address}: anybody who reaches this address could change everything, because this version \
         has no TLS and no authentication; listen on 127.0.0.1, or accept that with --insecure"
    )]
    Exposed { flag: &'static str, address: SocketAddr },
}

const NODE_NAME_CHARS_MAX: usize = 200;

impl ServerArgs {
    /// Puts the layers together.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place that is wrong.
    pub fn settings(self, variable: impl Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
        let variables = Layer::from_variables(&variable)?;
        let file = self.config.or_else(|| variable("LOCKSTEP_CONFIG").map(PathBuf::from));
        let file = file.map(|file| Layer::from_file(&file)).transpose()?.unwrap_or_default();
        let settings = self.flags.over(variables).over(file).settings()?;
        Ok(Settings { until_stdin_ends: self.until_stdin_ends, ..settings })
    }
}

impl Layer {
    fn from_variables(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        fn parsed<T: FromStr>(
            variable: &impl Fn(&str) -> Option<String>,
            name: &str,
            wanted: &str,
        ) -> Result<Option<T>, ConfigError> {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| ConfigError::Variable {
                variable: name.to_owned(),
                message: format!("'{text}' must be {wanted}"),
            })
        }
        const WANTED_ADVERTISE: &str = "HOST:PORT";
        const ADDRESS: &str = "IP:PORT, such as 127.0.0.1:7780";
        const SWITCH: &str = "true or false";
        Ok(Self {
            data_dir: parsed(variable, "LOCKSTEP_DATA_DIR", "a path")?,
            listen: parsed(variable, "LOCKSTEP_LISTEN", ADDRESS)?,
            peer_listen: parsed(variable, "LOCKSTEP_PEER_LISTEN", ADDRESS)?,
            advertise: parsed(variable, "LOCKSTEP_ADVERTISE", WANTED_ADVERTISE)?,
            join: parsed::<String>(variable, "LOCKSTEP_JOIN", "HOST:PORT,…")?
                .map(|list| list.split(',').map(|address| address.trim().to_owned()).collect()),
            join_token: parsed(variable, "LOCKSTEP_JOIN_TOKEN", "a token")?,
            join_token_file: parsed(variable, "LOCKSTEP_JOIN_TOKEN_FILE", "a path")?,
            peer_certificate: parsed(variable, "LOCKSTEP_PEER_CERTIFICATE", "a path")?,
            peer_key: parsed(variable, "LOCKSTEP_PEER_KEY", "a path")?,
            peer_authority: parsed(variable, "LOCKSTEP_PEER_AUTHORITY", "a path")?,
            metrics_listen: parsed(variable, "LOCKSTEP_METRICS_LISTEN", ADDRESS)?,
            bootstrap: parsed(variable, "LOCKSTEP_BOOTSTRAP", SWITCH)?,
            node_name: parsed(variable, "LOCKSTEP_NODE_NAME", "a name")?,
            insecure: parsed(variable, "LOCKSTEP_INSECURE", SWITCH)?,
            log_format: parsed(variable, "LOCKSTEP_LOG_FORMAT", "text or json")?,
            log: parsed(variable, "LOCKSTEP_LOG", "a filter")?,
        })
    }

    fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::File {
            file: file.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// This layer where it says something, the one below where it doesn't.
    fn over(self, below: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            listen: self.listen.or(below.listen),
            peer_listen: self.peer_listen.or(below.peer_listen),
            advertise: self.advertise.or(below.advertise),
            join: self.join.or(below.join),
            join_token: self.join_token.or(below.join_token),
            join_token_file: self.join_token_file.or(below.join_token_file),
            peer_certificate: self.peer_certificate.or(below.peer_certificate),
            peer_key: self.peer_key.or(below.peer_key),
            peer_authority: self.peer_authority.or(below.peer_authority),
            metrics_listen: self.metrics_listen.or(below.metrics_listen),
            bootstrap: self.bootstrap.or(below.bootstrap),
            node_name: self.node_name.or(below.node_name),
            insecure: self.insecure.or(below.insecure),
            log_format: self.log_format.or(below.log_format),
            log: self.log.or(below.log),
        }
    }

    fn settings(self) -> Result<Settings, ConfigError> {
        let settings = Settings {
            data_dir: self.data_dir.ok_or(ConfigError::NoDataDir)?,
            listen: self.listen.unwrap_or(LISTEN),
            peer_listen: self.peer_listen.unwrap_or(PEER_LISTEN),
            advertise: self.advertise,
            metrics_listen: self.metrics_listen,
            bootstrap: self.bootstrap.unwrap_or_default(),
            join: self.join.unwrap_or_default(),
            join_token: self.join_token,
            join_token_file: self.join_token_file,
            own_certificates: match (self.peer_certificate, self.peer_key, self.peer_authority) {
                (None, None, None) => None,
                (Some(certificate), Some(key), Some(authority)) => {
                    Some(OwnCertificates { certificate, key, authority })
                }
                _ => return Err(ConfigError::OwnCertificates),
            },
            node_name: self.node_name,
            insecure: self.insecure.unwrap_or_default(),
            log_format: self.log_format.unwrap_or_default(),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            until_stdin_ends: false,
        };
        let is_name = |name: &String| {
            (1..=NODE_NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
        };
        if !settings.node_name.as_ref().is_none_or(is_name) {
            return Err(ConfigError::NodeName);
        }
        settings.check_fleet()?;
        let listens = [("--listen", Some(settings.listen)), ("--metrics-listen", settings.metrics_listen)];
        for (flag, address) in listens {
            if let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback())
                && !settings.insecure
            {
                return Err(ConfigError::Exposed { flag, address });
            }
        }
        Ok(settings)
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(text, true)
    }
}

/// The name of a node that wasn't given one.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "lockstep".to_owned() } else { name }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServerArgs,
    }

    pub fn settings(
        flags: &[&str],
        variables: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("node.toml");
        let mut args = Line::parse_from([&["lockstep"], flags].concat()).args;
        if let Some(text) = file {
            std::fs::write(&path, text).expect("file");
            args.config = Some(path.clone());
        }
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let settings = args.settings(variable);
        settings.map_err(|e| e.to_string().replace(&path.display().to_string(), "node.toml"))
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file() {
        let file = "data_dir = '/file'\nlisten = '127.0.0.1:1'\nnode_name = 'file'\nbootstrap = true\n";
        let variables =
            [("LOCKSTEP_LISTEN", "127.0.0.1:2"), ("LOCKSTEP_NODE_NAME", "variable"), ("LOCKSTEP_LOG", "")];
        let found = settings(&["--node-name", "flag"], &variables, Some(file)).expect("settings");
        assert_eq!(found.node_name.as_deref(), Some("flag"));
        assert_eq!(found.listen.port(), 2);
        assert_eq!(found.data_dir, PathBuf::from("/file"));
        assert!(found.bootstrap);
        assert_eq!(found.log, "info");
        let found = settings(&["--bootstrap=false"], &[], Some(file)).expect("settings");
        assert!(!found.bootstrap);
    }

    #[test]
    fn the_default_address_is_loopback() {
        let found = settings(&["--data-dir", "d"], &[], None).expect("settings");
        assert_eq!(found.listen.to_string(), "127.0.0.1:7780");
        assert_eq!(found.node_name, None);
        assert!(!host_name().is_empty());
        let unnamed = settings(&["--data-dir", "d", "--node-name", ""], &[], None).expect_err("no name");
        assert!(unnamed.starts_with("node_name: must be 1 to"), "{unnamed}");
    }

    #[test]
    fn listening_beyond_loopback_needs_insecure() {
        let flags = ["--data-dir", "d", "--listen", "0.0.0.0:7780"];
        let refused = settings(&flags, &[], None).expect_err("exposed");
        assert!(refused.starts_with("--listen 0.0.0.0:7780: anybody who reaches"), "{refused}");
        assert!(settings(&flags, &[("LOCKSTEP_INSECURE", "true")], None).is_ok());
        let metrics = ["--data-dir", "d", "--metrics-listen", "[::]:9000"];
        assert!(
            settings(&metrics, &[], None).expect_err("exposed").starts_with("--metrics-listen [::]:9000")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let wrong =
            |variables: &[(&str, &str)], file: &str| settings(&[], variables, Some(file)).expect_err("wrong");
        assert_eq!(
            wrong(&[("LOCKSTEP_LISTEN", "7780")], ""),
            "LOCKSTEP_LISTEN: '7780' must be IP:PORT, such as 127.0.0.1:7780"
        );
        assert_eq!(
            wrong(&[("LOCKSTEP_BOOTSTRAP", "yes")], ""),
            "LOCKSTEP_BOOTSTRAP: 'yes' must be true or false"
        );
        let unknown = wrong(&[], "data_dri = 'x'");
        assert!(
            unknown.starts_with("node.toml: ") && unknown.contains("unknown field `data_dri`"),
            "{unknown}"
        );
        let address = wrong(&[], "listen = 'x'");
        assert!(address.contains("listen = 'x'") && address.contains("invalid socket address"), "{address}");
        assert!(wrong(&[], "").starts_with("no data directory"));
    }
}
