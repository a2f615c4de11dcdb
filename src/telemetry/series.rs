//! Two kinds of series that the metrics crate has not: a histogram whose observation is two relaxed additions, and
//! counters that somebody else keeps and that are only copied when somebody scrapes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Result;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::name::{Kind, Name};

fn desc(name: Name) -> Result<Desc> {
    let labels = name.labels().iter().map(|&label| label.to_owned()).collect();
    Desc::new(name.as_str().to_owned(), name.help().to_owned(), labels, HashMap::new())
}

fn family(name: Name, kind: proto::MetricType, series: Vec<proto::Metric>) -> Vec<proto::MetricFamily> {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.as_str().to_owned());
    family.set_help(name.help().to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    vec![family]
}

/// A histogram of durations in whole microseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Arc<HistogramCore>);

#[derive(Debug)]
struct HistogramCore {
    name: Name,
    desc: Desc,
    bounds_us: &'static [u64],
    /// One more than there are bounds; not cumulative.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn new(name: Name, bounds_us: &'static [u64]) -> Result<Self> {
        debug_assert_eq!(name.kind(), Kind::Histogram, "{name:?}");
        let counts = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        Ok(Self(Arc::new(HistogramCore { name, desc: desc(name)?, bounds_us, counts, sum_us: AtomicU64::new(0) })))
    }

    /// Counts one duration.
    pub(super) fn observe(&self, us: u64) {
        let bucket = self.0.bounds_us.partition_point(|bound| *bound < us);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Takes over what somebody else has counted, in the same buckets.
    pub(super) fn replace(&self, counts: &[u64], sum_us: u64) {
        debug_assert_eq!(counts.len(), self.0.counts.len());
        for (count, value) in self.0.counts.iter().zip(counts) {
            count.fetch_max(*value, Ordering::Relaxed);
        }
        self.0.sum_us.fetch_max(sum_us, Ordering::Relaxed);
    }
}

impl Collector for Histogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let core = &self.0;
        let mut cumulative = 0;
        let buckets = core.bounds_us.iter().zip(&core.counts).map(|(bound, count)| {
            cumulative += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(Duration::from_micros(*bound).as_secs_f64());
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut values = proto::Histogram::default();
        values.set_bucket(buckets.collect());
        let beyond = core.counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        // From the buckets, so that the whole is never less than a part of it.
        values.set_sample_count(cumulative + beyond);
        values.set_sample_sum(core.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
        let mut series = proto::Metric::default();
        series.set_histogram(values);
        family(core.name, proto::MetricType::HISTOGRAM, vec![series])
    }
}

/// Counters kept elsewhere; [`Totals::set`] copies them.
#[derive(Clone, Debug)]
pub(super) struct Totals(Arc<TotalsCore>);

#[derive(Debug)]
struct TotalsCore {
    name: Name,
    desc: Desc,
    values: &'static [&'static str],
    totals: Box<[AtomicU64]>,
}

impl Totals {
    /// `values` are the values of the one label; empty for a counter without labels.
    pub(super) fn new(name: Name, values: &'static [&'static str]) -> Result<Self> {
        debug_assert_eq!(name.kind(), Kind::Counter, "{name:?}");
        debug_assert_eq!(name.labels().len(), usize::from(!values.is_empty()), "{name:?}");
        let totals = (0..values.len().max(1)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self(Arc::new(TotalsCore { name, desc: desc(name)?, values, totals })))
    }

    /// The total so far. One that is older than what is known changes nothing: scrapes may overtake one another.
    pub(super) fn set(&self, index: usize, total: u64) {
        self.0.totals[index].fetch_max(total, Ordering::Relaxed);
    }
}

impl Collector for Totals {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let core = &self.0;
        let series = core.totals.iter().enumerate().map(|(index, total)| {
            let mut counter = proto::Counter::default();
            counter.set_value(total.load(Ordering::Relaxed) as f64);
            let mut series = proto::Metric::default();
            series.set_counter(counter);
            if let (Some(&value), Some(&label)) = (core.values.get(index), core.name.labels().first()) {
                let mut pair = proto::LabelPair::default();
                pair.set_name(label.to_owned());
                pair.set_value(value.to_owned());
                series.set_label(vec![pair]);
            }
            series
        });
        family(core.name, proto::MetricType::COUNTER, series.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_every_bucket_that_holds_it() {
        let histogram = Histogram::new(Name::RequestDuration, &[100, 1000]).expect("is valid");
        for us in [0, 100, 101, 1000, 1001, u64::from(u32::MAX)] {
            histogram.observe(us);
        }
        let text = prometheus::TextEncoder::new().encode_to_string(&histogram.collect()).expect("encodes");
        for line in [r#"_bucket{le="0.0001"} 2"#, r#"_bucket{le="0.001"} 4"#, r#"_bucket{le="+Inf"} 6"#, "_count 6"] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains("_sum 4294.969497"), "{text}");
    }

    #[test]
    fn a_total_never_falls() {
        let totals = Totals::new(Name::LimitsErrors, &["timeout", "other"]).expect("is valid");
        totals.set(0, 5);
        totals.set(0, 3);
        let text = prometheus::TextEncoder::new().encode_to_string(&totals.collect()).expect("encodes");
        assert!(text.contains(r#"{kind="timeout"} 5"#) && text.contains(r#"{kind="other"} 0"#), "{text}");
    }
}
