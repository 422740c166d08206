//! `lbctl certificate`: what TLS is ended with. Private keys are read from files and sent; nothing
//! that is printed holds one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lbagent_api::certificate::{
    Certificate, CertificateSpec, Certificates, ExpiryAlarm, RotationSpec,
};
use lbagent_api::request::validate_name;
use lbagent_api::{ErrorCode, paths};
use time::OffsetDateTime;
use ureq::http::Method;

use super::removal::{self, Chosen};
use super::{Kind, advise_names, listing, query, watch};
use crate::client::{Client, all};
use crate::error::{CtlError, advise};
use crate::output::{Column, Format, left, list, print, record, table, time};
use crate::pem::{Examined, Pair};

/// Explains the files.
pub const HELP: &str = "\
  lbctl certificate create --name www --chain fullchain.pem --pkey privkey.pem
  lbctl certificate rotate www --chain fullchain.pem --pkey privkey.pem

A chain holds the server's certificate first, then each one's issuer. Domains of service groups are
served with the certificate that fits their name and lasts longest. A key is never shown again.";

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a certificate with its private key
    #[command(visible_alias = "new", after_help = HELP)]
    Create(Create),
    /// Replace chain and key of a certificate, which keeps its name and its users
    #[command(visible_aliases = ["replace", "update"], after_help = HELP)]
    Rotate(Rotate),
    /// Show certificates
    #[command(visible_aliases = ["gt", "inspect", "show"])]
    Get {
        /// Names or UUIDs
        #[arg(required = true, value_name = "NAME|UUID")]
        names: Vec<String>,
        #[command(flatten)]
        watch: watch::Arguments,
    },
    /// List certificates
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        listing: listing::Arguments,
        #[command(flatten)]
        watch: watch::Arguments,
    },
    /// Delete certificates that no service group uses
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(Chosen),
}

/// Chain and key.
#[derive(Debug, Args)]
struct Files {
    /// File with the certificates in PEM; `-` is stdin
    #[arg(long, value_name = "FILE")]
    chain: PathBuf,
    /// File with the private key in PEM, not encrypted; `-` is stdin
    #[arg(long, alias = "key", value_name = "FILE")]
    pkey: PathBuf,
}

impl Files {
    /// What they hold, if it is a pair.
    fn read(&self) -> Result<(Pair, Examined), CtlError> {
        let Self { chain, pkey } = self;
        if chain == pkey && chain == Path::new("-") {
            let text = "stdin holds one of both; give --chain or --pkey a file";
            return Err(CtlError::Usage(text.to_owned()));
        }
        let pair = Pair::read(chain, pkey).map_err(CtlError::Usage)?;
        let examined = pair.examine().map_err(|error| {
            let (chain, pkey) = (chain.display(), pkey.display());
            CtlError::Usage(format!("chain '{chain}' and key '{pkey}': {error}"))
        })?;
        Ok((pair, examined))
    }
}

/// `lbctl certificate create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the certificate; made from its domain name when absent
    #[arg(short, long)]
    name: Option<String>,
    /// The domain name that it is for: by default the first one of the chain
    #[arg(long = "cn", visible_alias = "common-name", value_name = "DOMAIN")]
    common_name: Option<String>,
    #[command(flatten)]
    files: Files,
}

/// `lbctl certificate rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Name or UUID
    #[arg(value_name = "NAME|UUID")]
    name: String,
    #[command(flatten)]
    files: Files,
}

impl Command {
    /// When it is asked for again.
    pub const fn watch(&self) -> Option<watch::Pace> {
        match self {
            Self::Get { watch, .. } | Self::Ls { watch, .. } => watch.pace,
            _ => None,
        }
    }
}

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Create(arguments) => create(arguments, client, format),
        Command::Rotate(arguments) => rotate(arguments, client, format),
        Command::Get { names, .. } => get(names, client, format),
        Command::Ls { listing, .. } => {
            let found = listing.select(fetch(&[], client)?, MEMBERS)?;
            let now = OffsetDateTime::now_utc();
            listing.print(format, &found, || render_list(&found, format, now))
        }
        Command::Rm(chosen) => {
            let words = chosen.words(|| fetch(&[], client), MEMBERS)?;
            removal::remove(Kind::Certificate, &words, client, format, |error| {
                advise(error, ErrorCode::Attached, |_| {
                    "create its successor first, or take the domain from the service group"
                        .to_owned()
                })
            })
        }
    }
}

/// What a certificate's answer may hold.
const MEMBERS: &[&str] = &[
    "uuid",
    "name",
    "created_at",
    "common_name",
    "subject",
    "issuer",
    "serial_number",
    "not_before",
    "not_after",
    "state",
    "service_groups",
];

/// The certificates of these names; all of them when there are none.
pub fn fetch(names: &[String], client: &Client) -> Result<Vec<Certificate>, CtlError> {
    if names.is_empty() {
        return client.list(paths::CERTIFICATES, |data: Certificates<_>| {
            data.certificates
        });
    }
    let path = format!("{}{}", paths::CERTIFICATES, query(names));
    all(client.get::<Certificates<Certificate>>(&path)?.certificates)
}

fn create(arguments: &Create, client: &Client, format: Format) -> Result<(), CtlError> {
    if let Some(name) = &arguments.name {
        validate_name(name).map_err(|error| CtlError::Usage(error.to_string()))?;
    }
    let (pair, examined) = arguments.files.read()?;
    let common_name = arguments.common_name.clone().or(examined.domain);
    let common_name = common_name.ok_or_else(|| {
        CtlError::Usage("the certificate names no domain; give one with --cn".to_owned())
    })?;
    let made = send_new(arguments.name.clone(), common_name, pair, client)?;
    print(format, &made, || render(&made))
}

/// Stores a certificate.
pub fn send_new(
    name: Option<String>,
    common_name: String,
    Pair { chain, pkey }: Pair,
    client: &Client,
) -> Result<Certificate, CtlError> {
    let spec = CertificateSpec {
        name,
        common_name: Some(common_name),
        cn: None,
        chain,
        pkey,
    };
    one(client.send(Method::POST, paths::CERTIFICATES, &spec)?)
}

fn rotate(arguments: &Rotate, client: &Client, format: Format) -> Result<(), CtlError> {
    let (pair, _) = arguments.files.read()?;
    let rotated = send_rotated(&arguments.name, pair, client)
        .map_err(|error| advise_names(error, client, Kind::Certificate))?;
    print(format, &rotated, || render(&rotated))
}

/// Replaces chain and key of a certificate.
pub fn send_rotated(
    word: &str,
    Pair { chain, pkey }: Pair,
    client: &Client,
) -> Result<Certificate, CtlError> {
    let (uuid, name) = super::selector(word);
    let spec = RotationSpec {
        uuid,
        name,
        chain,
        pkey,
    };
    one(client.send(Method::PUT, paths::CERTIFICATES, &spec)?)
}

fn one(answer: Certificates<Certificate>) -> Result<Certificate, CtlError> {
    let mut certificates = all(answer.certificates)?;
    let made = "the agent told of no certificate";
    certificates
        .pop()
        .ok_or_else(|| CtlError::Local(made.to_owned()))
}

fn get(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    let found =
        fetch(names, client).map_err(|error| advise_names(error, client, Kind::Certificate))?;
    let records = || found.iter().map(render).collect::<Vec<_>>().join("\n\n");
    match &found[..] {
        [certificate] => print(format, certificate, records),
        certificates => print(format, &certificates, records),
    }
}

fn groups(certificate: &Certificate) -> String {
    list(certificate.service_groups.iter().map(|group| &group.name))
}

fn render_list(certificates: &[Certificate], format: Format, now: OffsetDateTime) -> String {
    let mut columns = vec![
        Column::Left("NAME"),
        Column::Wrap("COMMON NAME"),
        Column::State("STATE"),
        Column::Left("EXPIRES"),
        Column::Wrap("SERVICES"),
    ];
    let is_wide = format == Format::Wide;
    if is_wide {
        columns.extend(["NOT AFTER", "ISSUER", "SERIAL NUMBER", "UUID"].map(Column::Left));
    }
    let row = |certificate: &Certificate| {
        let mut row = vec![
            certificate.name.clone(),
            certificate.common_name.clone(),
            certificate.state.name().to_owned(),
            expiry(certificate.not_after, now),
            groups(certificate),
        ];
        if is_wide {
            row.extend([
                time(certificate.not_after),
                certificate.issuer.clone(),
                certificate.serial_number.clone(),
                certificate.uuid.to_string(),
            ]);
        }
        row
    };
    table(&columns, &certificates.iter().map(row).collect::<Vec<_>>())
}

/// How long it lasts, and whether that is short.
fn expiry(not_after: OffsetDateTime, now: OffsetDateTime) -> String {
    let left = left(not_after, now);
    match ExpiryAlarm::of(not_after, now) {
        Some(ExpiryAlarm::Soon | ExpiryAlarm::VerySoon) => format!("{left}, renew"),
        Some(ExpiryAlarm::Over) | None => left,
    }
}

fn render(certificate: &Certificate) -> String {
    record(&[
        ("uuid", certificate.uuid.to_string()),
        ("name", certificate.name.clone()),
        ("common name", certificate.common_name.clone()),
        ("state", certificate.state.name().to_owned()),
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("serial number", certificate.serial_number.clone()),
        ("not before", time(certificate.not_before)),
        ("not after", time(certificate.not_after)),
        ("services", groups(certificate)),
        ("created at", time(certificate.created_at)),
    ])
}

#[cfg(test)]
mod tests {
    use lbagent_api::certificate::CertificateState;
    use lbagent_api::envelope::Reference;
    use uuid::Uuid;

    use super::*;
    use crate::table::tests::check_fits;

    #[test]
    fn certificates_are_shown() {
        let reference = |name: &str| Reference {
            uuid: Uuid::from_u128(2),
            name: name.to_owned(),
        };
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(100);
        let certificate = Certificate {
            uuid: Uuid::from_u128(1),
            name: "www".into(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            common_name: "www.example.com".into(),
            subject: "CN=www.example.com".into(),
            issuer: "CN=CA".into(),
            serial_number: "01:02".into(),
            not_before: OffsetDateTime::UNIX_EPOCH,
            not_after: now + time::Duration::hours(50),
            state: CertificateState::Valid,
            service_groups: vec![reference("web"), reference("shop")],
        };
        assert_eq!(
            render_list(std::slice::from_ref(&certificate), Format::Table, now),
            "NAME  COMMON NAME      STATE  EXPIRES       SERVICES\n\
             www   www.example.com  valid  in 2d, renew  web shop"
        );
        let long = "l".repeat(63);
        let worst = Certificate {
            name: long.clone(),
            common_name: [long.as_str(); 3].join("."),
            issuer: format!("CN={long}"),
            serial_number: "01:".repeat(20),
            service_groups: vec![reference(&long); 30],
            ..certificate
        };
        check_fits("certificate ls", || {
            render_list(std::slice::from_ref(&worst), Format::Table, now)
        });
        check_fits("certificate get", || render(&worst));
    }
}
