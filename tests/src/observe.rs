//! What the daemon says about itself, in the types of its own contract.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lbagent_api::status::{
    AgentStatus, CountersData, InterfaceStatus, StatusData, TableBackend, TableData, TableVip,
};
use lbagent_api::trace::{Trace, TraceData};
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::client::Transport;

impl Agent {
    /// `GET /v1/x/status`.
    pub fn status(&self) -> Result<AgentStatus> {
        Ok(self.observe::<StatusData>("/v1/x/status")?.status)
    }

    /// Reasons of the conditions that the status lists, sorted.
    pub fn condition_reasons(&self) -> Result<Vec<String>> {
        let conditions = self.status()?.conditions;
        let mut reasons: Vec<_> = conditions.into_iter().map(|found| found.reason).collect();
        reasons.sort();
        Ok(reasons)
    }

    /// The status of one interface.
    pub fn interface(&self, name: &str) -> Result<InterfaceStatus> {
        let interfaces = self.status()?.interfaces;
        let found = interfaces
            .into_iter()
            .find(|interface| interface.name == name);
        found.with_context(|| format!("the status lists no interface {name}"))
    }

    /// Every published port of every VIP address.
    pub fn vips(&self) -> Result<Vec<TableVip>> {
        let table = self.observe::<TableData>("/v1/x/table")?.table;
        Ok(table
            .groups
            .into_iter()
            .flat_map(|group| group.vips)
            .collect())
    }

    /// Every row of a backend, one for each published port of each VIP address.
    pub fn backend_rows(&self, name: &str) -> Result<Vec<TableBackend>> {
        let rows = self.vips()?.into_iter().flat_map(|vip| vip.backends);
        Ok(rows.filter(|row| row.name == name).collect())
    }

    /// Packets that ended with an outcome.
    pub fn outcome(&self, label: &str) -> Result<u64> {
        let outcomes = self
            .observe::<CountersData>("/v1/x/counters")?
            .counters
            .outcomes;
        let found = outcomes.iter().find(|counter| counter.outcome == label);
        Ok(found
            .with_context(|| format!("no counter {label}"))?
            .packets)
    }

    /// Where a packet of a flow that goes on would go, and why.
    pub fn trace(&self, transport: Transport, from: SocketAddr, to: SocketAddr) -> Result<Trace> {
        let path = format!("/v1/x/trace?protocol={transport}&source={from}&destination={to}");
        Ok(self.observe::<TraceData>(&path)?.trace)
    }

    fn observe<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let data = self.call("GET", path, None)?;
        serde_json::from_value(data.clone()).with_context(|| format!("{path}: {data}"))
    }
}
