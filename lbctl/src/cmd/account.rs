//! `lbctl account`: who shares the gateway, and how much of it each may have.

use clap::{Args, Subcommand};
use lbagent_api::access::{Account, AccountSpec, AccountsData, Quotas, QuotasSpec};
use lbagent_api::paths;
use ureq::http::Method;

use crate::client::{Client, encode};
use crate::error::CtlError;
use crate::output::{self, Column, Format};

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an account; its quotas are 253 groups, 253 services, 4096 instances and 4 raw ports
    /// unless given
    #[command(visible_alias = "new")]
    Create {
        /// Its name
        name: String,
        /// Other quotas.
        #[command(flatten)]
        quotas: Changes,
    },
    /// List accounts: what each has, and may have
    #[command(visible_alias = "list")]
    Ls,
    /// Delete an account that has nothing, with its tokens
    #[command(visible_aliases = ["delete", "remove"])]
    Rm {
        /// Its name or UUID
        #[arg(value_name = "ACCOUNT")]
        account: String,
    },
    /// Change what an account may have; without options, show it
    Quota {
        /// Its name or UUID
        #[arg(value_name = "ACCOUNT")]
        account: String,
        /// What to change.
        #[command(flatten)]
        quotas: Changes,
    },
}

/// Quotas as given.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Service groups: a number, or `none` for no limit
    #[arg(long, value_name = "NUMBER", value_parser = limit)]
    service_groups: Option<Limit>,
    /// Published ports: a number, or `none` for no limit
    #[arg(long, value_name = "NUMBER", value_parser = limit)]
    services: Option<Limit>,
    /// Instances: a number, or `none` for no limit
    #[arg(long, value_name = "NUMBER", value_parser = limit)]
    instances: Option<Limit>,
    /// Published ports without handlers: a number, or `none` for no limit
    #[arg(long, value_name = "NUMBER", value_parser = limit)]
    raw_ports: Option<Limit>,
}

/// How many there may be; no limit when absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u32>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => text
            .parse()
            .map(|limit| Limit(Some(limit)))
            .map_err(|_| "expected a number or `none`".to_owned()),
    }
}

impl Changes {
    fn of(self, mut quotas: Quotas) -> Quotas {
        let Self {
            service_groups,
            services,
            instances,
            raw_ports,
        } = self;
        for (given, quota) in [
            (service_groups, &mut quotas.service_groups),
            (services, &mut quotas.services),
            (instances, &mut quotas.instances),
            (raw_ports, &mut quotas.raw_ports),
        ] {
            if let Some(Limit(limit)) = given {
                *quota = limit;
            }
        }
        quotas
    }
}

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    let path = |account: &str| format!("{}/{}", paths::ACCOUNTS, encode(account));
    let data: AccountsData = match command {
        Command::Ls => client.get(paths::ACCOUNTS)?,
        Command::Create { name, quotas } => {
            let quotas = Some(quotas.of(Quotas::CREATED));
            let name = name.clone();
            let spec = AccountSpec { name, quotas };
            client.send(Method::POST, paths::ACCOUNTS, &spec)?
        }
        Command::Rm { account } => {
            client.send(Method::DELETE, &path(account), &serde_json::json!({}))?
        }
        Command::Quota { account, quotas } => {
            let found: AccountsData = client.get(&path(account))?;
            match found.accounts.first() {
                Some(former) if *quotas != Changes::default() => {
                    let quotas = quotas.of(former.quotas);
                    let path = format!("{}/quotas", path(account));
                    client.send(Method::PUT, &path, &QuotasSpec { quotas })?
                }
                _ => found,
            }
        }
    };
    let shown = || table(&data.accounts, format);
    match &data.accounts[..] {
        [account] if !matches!(command, Command::Ls) => output::print(format, account, shown),
        accounts => output::print(format, &accounts, shown),
    }
}

fn table(accounts: &[Account], format: Format) -> String {
    let mut columns = vec![
        Column::Left("NAME"),
        Column::Right("GROUPS"),
        Column::Right("SERVICES"),
        Column::Right("INSTANCES"),
        Column::Right("RAW PORTS"),
    ];
    let is_wide = format == Format::Wide;
    if is_wide {
        columns.push(Column::Left("UUID"));
    }
    let of = |used: u32, quota: Option<u32>| match quota {
        Some(quota) => format!("{used}/{quota}"),
        None => format!("{used}/-"),
    };
    let row = |account: &Account| {
        let (used, quotas) = (account.used, account.quotas);
        let mut row = vec![
            account.name.clone(),
            of(used.service_groups, quotas.service_groups),
            of(used.services, quotas.services),
            of(used.instances, quotas.instances),
            of(used.raw_ports, quotas.raw_ports),
        ];
        if is_wide {
            row.push(account.uuid.to_string());
        }
        row
    };
    output::table(&columns, &accounts.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::check_fits;

    #[test]
    fn accounts_are_listed() {
        let mut account: Account = serde_json::from_value(serde_json::json!({
            "uuid": "00000000-0000-0000-0000-000000000001", "name": "shop",
            "quotas": {"service_groups": 10}, "used": {"service_groups": 1, "services": 2,
            "instances": 3, "live_instances": 3, "raw_ports": 0}
        }))
        .unwrap();
        assert_eq!(
            table(std::slice::from_ref(&account), Format::Table),
            "NAME  GROUPS  SERVICES  INSTANCES  RAW PORTS\n\
             shop    1/10       2/-        3/-        0/-"
        );
        account.name = "n".repeat(63);
        let most = Some(u32::MAX);
        account.used.services = u32::MAX;
        account.quotas.services = most;
        account.quotas.instances = most;
        account.quotas.raw_ports = most;
        check_fits("account ls", || {
            table(std::slice::from_ref(&account), Format::Table)
        });
    }
}
