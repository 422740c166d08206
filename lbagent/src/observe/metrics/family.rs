//! A metric with its samples, as prometheus-client writes it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// A metric with its samples.
#[derive(Debug)]
pub struct Family {
    /// Without the prefix `lbagent_`, and without the `_total` of a counter.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
    is_counter: bool,
    samples: Vec<(Vec<(&'static str, String)>, u64)>,
}

impl Family {
    /// A number that only rises while its source lives.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            is_counter: true,
            samples: Vec::new(),
        }
    }

    /// A number that rises and falls.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            is_counter: false,
            samples: Vec::new(),
        }
    }

    /// The name that collectors store.
    pub fn full_name(&self) -> String {
        let end = if self.is_counter { "_total" } else { "" };
        format!("lbagent_{}{end}", self.name)
    }

    /// Adds a sample.
    pub fn add<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: u64) {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        self.samples.push((labels.into(), value));
    }

    /// With this one sample, without labels.
    #[must_use]
    pub fn of(mut self, value: u64) -> Self {
        self.add([], value);
        self
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.is_counter {
            true => MetricType::Counter,
            false => MetricType::Gauge,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        if let [(labels, value)] = &self.samples[..]
            && labels.is_empty()
        {
            return self.encode_value(*value, metric);
        }
        for (labels, value) in &self.samples {
            self.encode_value(*value, metric.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn encode_value(&self, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.is_counter {
            true => ConstCounter::new(value).encode(encoder),
            false => ConstGauge::new(value).encode(encoder),
        }
    }
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = self.0.iter();
        families.try_for_each(|family| family.encode(&mut encoder))
    }
}

/// Content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All of them in the text format of OpenMetrics, which Prometheus reads.
pub fn text(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("lbagent");
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}
