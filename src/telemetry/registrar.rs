use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

use super::name::{Kind, Name};
use super::series::{Histogram, Totals};

/// Registers metrics by their [`Name`], so that none exists without its row there.
pub(super) struct Registrar<'a>(pub &'a Registry);

impl Registrar<'_> {
    pub(super) fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn opts(name: Name, kind: Kind) -> Opts {
        debug_assert_eq!(name.kind(), kind, "{name:?}");
        Opts::new(name.as_str(), name.help())
    }

    pub(super) fn counter(&self, name: Name) -> Result<IntCounter> {
        self.add(IntCounter::with_opts(Self::opts(name, Kind::Counter))?)
    }

    pub(super) fn counters(&self, name: Name) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Self::opts(name, Kind::Counter), name.labels())?)
    }

    pub(super) fn counter_each(&self, name: Name, values: &[&str]) -> Result<Vec<IntCounter>> {
        let family = self.counters(name)?;
        values.iter().map(|value| family.get_metric_with_label_values(&[value])).collect()
    }

    pub(super) fn gauge(&self, name: Name) -> Result<IntGauge> {
        self.add(IntGauge::with_opts(Self::opts(name, Kind::Gauge))?)
    }

    pub(super) fn gauges(&self, name: Name) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Self::opts(name, Kind::Gauge), name.labels())?)
    }

    pub(super) fn gauge_each(&self, name: Name, values: &[&str]) -> Result<Vec<IntGauge>> {
        let family = self.gauges(name)?;
        values.iter().map(|value| family.get_metric_with_label_values(&[value])).collect()
    }

    /// A counter that somebody else keeps; one series, or one for each value of its label.
    pub(super) fn totals(&self, name: Name, values: &'static [&'static str]) -> Result<Totals> {
        self.add(Totals::new(name, values)?)
    }

    /// Bounds in microseconds, ascending.
    pub(super) fn histogram(&self, name: Name, bounds_us: &'static [u64]) -> Result<Histogram> {
        self.add(Histogram::new(name, bounds_us)?)
    }
}
