//! What the settings of `[api]` mean: who can reach the REST server, and who is let in.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lbagent_api::request::qualify_domain;
use nix::unistd::Group;

use super::reader::{Located, Table};
use super::reserved::RESERVED_NAMES;
use super::settings::Value;
use super::validate::Checker;
use super::{ApiConfig, Problem, TlsFiles};

/// Longest path of a Unix socket (`sun_path` less the closing zero).
const MAX_SOCKET_PATH: usize = 107;
/// Switches a listener off.
pub(super) const NONE: &str = "none";

/// `[api]` as written down.
#[derive(Default)]
pub(super) struct ApiSettings {
    pub(super) listen: Value<String>,
    pub(super) unix_socket: Value<String>,
    unix_socket_group: Value<String>,
    loopback_without_token: Value<bool>,
    pub(super) token_file: Value<String>,
    tls_certificate: Value<String>,
    tls_key: Value<String>,
    pub(super) metro_domain: Value<String>,
    listen_2024: Value<String>,
    metrics_listen: Value<String>,
    metrics_public: Value<bool>,
    reserved_names: Option<Vec<Located<String>>>,
    private_domain: Value<String>,
}

impl ApiSettings {
    pub(super) fn read(table: &mut Table<'_, '_>, problems: &mut Vec<Problem>) -> Self {
        Self {
            listen: table.string("listen", problems),
            unix_socket: table.string("unix_socket", problems),
            unix_socket_group: table.string("unix_socket_group", problems),
            loopback_without_token: table.boolean("loopback_without_token", problems),
            token_file: table.string("token_file", problems),
            tls_certificate: table.string("tls_certificate", problems),
            tls_key: table.string("tls_key", problems),
            metro_domain: table.string("metro_domain", problems),
            listen_2024: table.string("listen_2024", problems),
            metrics_listen: table.string("metrics_listen", problems),
            metrics_public: table.boolean("metrics_public", problems),
            reserved_names: table.strings("reserved_names", problems),
            private_domain: table.string("private_domain", problems),
        }
    }
}

impl Checker<'_> {
    pub(super) fn api(&mut self, settings: ApiSettings) -> ApiConfig {
        let without_token = settings.loopback_without_token;
        let listen = match settings.listen {
            None => Some(SocketAddr::from(([127, 0, 0, 1], 7480))),
            Some(listen) if listen.value == NONE => None,
            Some(listen) => self.listen("listen", &listen, without_token.as_ref()),
        };
        let unix_socket = match settings.unix_socket {
            None => Some(lbagent_api::DEFAULT_SOCKET.into()),
            Some(path) if path.value == NONE => None,
            Some(path) => Some(self.socket_path("api.unix_socket", path)),
        };
        let unix_socket_group = settings
            .unix_socket_group
            .and_then(|group| self.gid(&group));
        if let Some(file) = &settings.token_file {
            self.token_file(file);
        }
        let listen_2024 = settings.listen_2024;
        let listen_2024 = listen_2024
            .and_then(|listen| self.listen("listen_2024", &listen, without_token.as_ref()));
        let is_public = settings.metrics_public.is_some_and(|public| public.value);
        let metrics_listen = settings.metrics_listen;
        let metrics_listen =
            metrics_listen.and_then(|listen| self.metrics_listen(&listen, is_public));
        let metro_domain = self.domain("metro_domain", settings.metro_domain);
        let private_domain = self.domain("private_domain", settings.private_domain);
        let reserved_names = match settings.reserved_names {
            Some(names) => names
                .into_iter()
                .map(|name| name.value.to_ascii_lowercase())
                .collect(),
            None => RESERVED_NAMES.map(str::to_owned).into(),
        };
        ApiConfig {
            listen,
            listen_2024,
            metrics_listen,
            unix_socket,
            unix_socket_group,
            loopback_without_token: without_token.is_some_and(|allowed| allowed.value),
            token_file: settings.token_file.map(|path| path.value.into()),
            tls: self.tls(settings.tls_certificate, settings.tls_key),
            metro_domain: metro_domain.unwrap_or_else(|| "lb.internal".to_owned()),
            reserved_names,
            private_domain,
        }
    }

    fn domain(&mut self, key: &str, domain: Value<String>) -> Option<String> {
        let Located { value, origin } = domain?;
        if qualify_domain("name", &value).is_err() {
            let text = format!("api.{key}: `{value}` is no valid domain name");
            self.problem(&origin, text);
        }
        Some(value)
    }

    fn listen(
        &mut self,
        key: &str,
        listen: &Located<String>,
        without_token: Option<&Located<bool>>,
    ) -> Option<SocketAddr> {
        let address = self.socket_address(key, listen)?;
        if let Some(Located {
            value: true,
            origin,
        }) = without_token
            && !address.ip().to_canonical().is_loopback()
        {
            let text = format!(
                "api.loopback_without_token: {address} can be reached from other hosts, so clients \
                 must show a token there; `lbctl token create` makes one"
            );
            self.problem(origin, text);
        }
        Some(address)
    }

    fn socket_address(&mut self, key: &str, listen: &Located<String>) -> Option<SocketAddr> {
        let Located { value, origin } = listen;
        let address = value.parse().ok();
        if address.is_none() {
            let text = format!(
                "api.{key}: `{value}` is no address with port, such as 127.0.0.1:7480 or [::1]:7480"
            );
            self.problem(origin, text);
        }
        address
    }

    fn metrics_listen(&mut self, listen: &Located<String>, is_public: bool) -> Option<SocketAddr> {
        let address = self.socket_address("metrics_listen", listen)?;
        if !is_public && !address.ip().to_canonical().is_loopback() {
            let text = format!(
                "api.metrics_listen: {address} can be reached from other hosts, and metrics name \
                 accounts, groups and certificates; set api.metrics_public = true if whoever \
                 reaches it may read them"
            );
            self.problem(&listen.origin, text);
        }
        Some(address)
    }

    pub(super) fn socket_path(&mut self, key: &str, path: Located<String>) -> PathBuf {
        let Located { value, origin } = path;
        if !Path::new(&value).is_absolute() || value.len() > MAX_SOCKET_PATH {
            let text = format!(
                "{key}: `{value}` must be an absolute path of {MAX_SOCKET_PATH} bytes at \
                 most, or `{NONE}`"
            );
            self.problem(&origin, text);
        }
        value.into()
    }

    fn gid(&mut self, group: &Located<String>) -> Option<u32> {
        let Located { value, origin } = group;
        match Group::from_name(value) {
            Ok(Some(group)) => Some(group.gid.as_raw()),
            Ok(None) => {
                let text = format!(
                    "api.unix_socket_group: there is no group `{value}`; `groupadd {value}` makes it"
                );
                self.problem(origin, text);
                None
            }
            Err(error) => {
                let text = format!("api.unix_socket_group: cannot look up `{value}`: {error}");
                self.problem(origin, text);
                None
            }
        }
    }

    fn tls(&mut self, certificate: Value<String>, key: Value<String>) -> Option<TlsFiles> {
        let (certificate, key) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return None,
            (Some(one), None) | (None, Some(one)) => {
                let text = "api: tls_certificate and tls_key go together";
                self.problem(&one.origin, text);
                return None;
            }
        };
        let files = TlsFiles {
            certificate: PathBuf::from(&certificate.value),
            key: PathBuf::from(&key.value),
        };
        if is_open(&files.key) {
            let text = format!(
                "api.tls_key: {} is open to every user of the host; run `chmod 640` on it",
                key.value
            );
            self.problem(&key.origin, text);
        }
        if let Err(error) = crate::agent::tls::check(&files) {
            self.problem(&certificate.origin, format!("api: {error:#}"));
        }
        Some(files)
    }

    fn token_file(&mut self, file: &Located<String>) {
        let Located { value, origin } = file;
        let refusal = match std::fs::read_to_string(value) {
            Err(error) => Some(format!("cannot be read: {error}")),
            Ok(token) if token.trim().is_empty() => Some(
                "is empty; write a token into it, such as the output of `openssl rand -hex 32`"
                    .into(),
            ),
            Ok(token) if token.trim().contains(|c: char| !c.is_ascii_graphic()) => {
                Some("must hold one token of visible ASCII characters on one line".into())
            }
            Ok(_) if is_open(Path::new(value)) => {
                Some("is open to every user of the host; run `chmod 640` on it".into())
            }
            Ok(_) => None,
        };
        if let Some(refusal) = refusal {
            self.problem(origin, format!("api.token_file: {value} {refusal}"));
        }
    }
}

fn is_open(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}
