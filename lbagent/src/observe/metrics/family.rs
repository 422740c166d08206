//! A metric with its samples, as prometheus-client writes it.

use std::fmt;

use std::iter;

use lbagent_api::terminator::{DURATION_BOUNDS_US, Durations};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
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
    kind: Kind,
    samples: Vec<(Vec<(&'static str, String)>, Sample)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
enum Sample {
    Number(u64),
    Durations(Durations),
}

impl Family {
    /// A number that only rises while its source lives.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Counter,
            samples: Vec::new(),
        }
    }

    /// A number that rises and falls.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            samples: Vec::new(),
        }
    }

    /// How long things took, in seconds.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Histogram,
            samples: Vec::new(),
        }
    }

    /// The name that collectors store.
    pub fn full_name(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("lbagent_{}{end}", self.name)
    }

    /// Adds a sample.
    pub fn add<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: u64) {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        self.samples.push((labels.into(), Sample::Number(value)));
    }

    /// Adds a sample of a histogram.
    pub fn add_durations<const N: usize>(
        &mut self,
        labels: [(&'static str, &str); N],
        durations: &Durations,
    ) {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        let sample = Sample::Durations(durations.clone());
        self.samples.push((labels.into(), sample));
    }

    /// With this one sample, without labels.
    #[must_use]
    pub fn of(mut self, value: u64) -> Self {
        self.add([], value);
        self
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        if let [(labels, value)] = &self.samples[..]
            && labels.is_empty()
        {
            return self.encode_value(value, metric);
        }
        for (labels, value) in &self.samples {
            self.encode_value(value, metric.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn encode_value(&self, value: &Sample, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match value {
            Sample::Number(value) if self.kind == Kind::Counter => {
                ConstCounter::new(*value).encode(encoder)
            }
            Sample::Number(value) => ConstGauge::new(*value).encode(encoder),
            Sample::Durations(durations) => {
                let seconds = |micros: u64| micros as f64 / 1e6;
                let bounds = DURATION_BOUNDS_US.map(seconds).into_iter();
                let bounds = bounds.chain(iter::once(f64::INFINITY));
                // The encoder adds the parts up.
                let counts = durations.counts.iter().copied().chain(iter::repeat(0));
                let parts: Vec<(f64, u64)> = bounds.zip(counts).collect();
                let count = parts.iter().map(|(_, count)| count).sum();
                let sum = seconds(durations.sum_us);
                encoder.encode_histogram::<NoLabelSet>(sum, count, &parts, None)
            }
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
