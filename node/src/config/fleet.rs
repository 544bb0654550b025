//! What the settings say of a node's peers: checked at once, but secrets of joining are read only by a
//! node that joins, because a member's `--join` and its token are passed over.

use std::net::SocketAddr;
use std::path::Path;

use peers::Token;
use peers::token::TokenError;

use super::{ConfigError, Settings};
use crate::peering::Setup;

/// Before the file of a token given as a reference.
const FILE_REFERENCE: &str = "file:";

impl Settings {
    /// What the node is to know of its peers; `listens` is where it listens for them.
    ///
    /// # Errors
    /// A shared secret that can't be read or is none.
    pub fn peering(&self, listens: SocketAddr) -> Result<Setup, ConfigError> {
        let shared = self
            .join_token_file
            .as_deref()
            .map(|file| Token::shared(&read(file)?).map_err(|error| wrong("--join-token-file", &error)));
        let address = self.advertise.clone().unwrap_or_else(|| listens.to_string());
        Ok(Setup {
            data_dir: self.data_dir.clone(),
            address: address.into(),
            join: self.join.clone(),
            token: self.join_token.clone(),
            shared: shared.transpose()?,
            own: self.own_certificates.clone(),
        })
    }

    pub(super) fn check_fleet(&self) -> Result<(), ConfigError> {
        if self.bootstrap && !self.join.is_empty() {
            return Err(ConfigError::BootstrapAndJoin);
        }
        if !self.join.is_empty() && self.join_token.is_none() && self.join_token_file.is_none() {
            return Err(ConfigError::NoToken);
        }
        if !self.join.iter().all(|address| is_host_port(address)) {
            return Err(ConfigError::Address("--join"));
        }
        if !self.advertise.as_deref().is_none_or(is_host_port) {
            return Err(ConfigError::Address("--advertise"));
        }
        if self.advertise.is_none() && self.peer_listen.ip().is_unspecified() {
            return Err(ConfigError::NoAdvertise(self.peer_listen));
        }
        Ok(())
    }
}

/// The one-time token that `--join-token` gives, or that the file holds which it names.
///
/// # Errors
/// A file that can't be read, or a text that is no token.
pub fn join_token(text: &str) -> Result<Token, ConfigError> {
    let text = match text.strip_prefix(FILE_REFERENCE) {
        Some(file) => String::from_utf8_lossy(&read(Path::new(file))?).into_owned(),
        None => text.to_owned(),
    };
    Token::parse(&text).map_err(|error| wrong("--join-token", &error))
}

fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })
}

fn wrong(flag: &'static str, error: &TokenError) -> ConfigError {
    ConfigError::Token { flag, message: error.to_string() }
}

fn is_host_port(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
        !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn joining_needs_addresses_and_a_token_and_excludes_founding() {
        let of = |flags: &[&str]| settings(&[&["--data-dir", "d"], flags].concat(), &[], None);
        let joining = of(&["--join", "a:1,b:2", "--join-token", "t"]).expect("settings");
        assert_eq!(joining.join, ["a:1", "b:2"]);
        assert!(of(&["--join", "a:1"]).expect_err("no token").starts_with("--join: needs --join-token"));
        let both = of(&["--join", "a:1", "--join-token", "t", "--bootstrap"]).expect_err("both");
        assert!(both.starts_with("--bootstrap and --join"), "{both}");
        for address in ["a", "a:", ":1", "a:0", "a:99999", "http://a:1"] {
            let wrong = of(&["--join", address, "--join-token", "t"]).expect_err(address);
            assert_eq!(wrong, "--join: must be HOST:PORT, such as node-1.example:7781");
        }
        let variables = [("LOCKSTEP_JOIN", "a:1, b:2"), ("LOCKSTEP_JOIN_TOKEN_FILE", "/t")];
        assert_eq!(settings(&["--data-dir", "d"], &variables, None).expect("settings").join, ["a:1", "b:2"]);
    }

    #[test]
    fn who_listens_everywhere_must_say_where_it_is_reached() {
        let of = |flags: &[&str]| settings(&[&["--data-dir", "d"], flags].concat(), &[], None);
        let found = of(&["--peer-listen", "0.0.0.0:7781"]).expect_err("where?");
        assert!(found.starts_with("--peer-listen 0.0.0.0:7781: listens on every address"), "{found}");
        assert!(of(&["--peer-listen", "0.0.0.0:7781", "--advertise", "node-1:7781"]).is_ok());
        assert_eq!(of(&[]).expect("settings").peer_listen.to_string(), "127.0.0.1:7781");
    }

    #[test]
    fn a_members_token_may_be_gone_and_a_joiners_may_not() {
        let flags = ["--data-dir", "d", "--join", "a:1", "--join-token", "file:/nowhere/token"];
        let found = settings(&flags, &[], None).expect("settings");
        let setup = found.peering(found.peer_listen).expect("a member starts without it");
        let missing = join_token(&setup.token.expect("given")).expect_err("no such file");
        assert_eq!(missing.to_string(), "can't read /nowhere/token");
        let cut = join_token("abc").expect_err("no token");
        assert!(cut.to_string().starts_with("--join-token: a join token is written ID.SECRET"), "{cut}");
    }
}
