//! Values by name → the text format.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Series, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::catalogue::{CATALOGUE, Kind};

/// Of what [`Exposition::text`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// One page.
#[derive(Debug, Default)]
pub struct Exposition {
    /// By position in the catalogue.
    families: BTreeMap<usize, Vec<Series>>,
}

impl Exposition {
    /// Adds a counter or gauge: label values are in the order of the catalogue. A name that is not in the catalogue,
    /// or the wrong number of labels, is a mistake in the program and left out.
    pub fn add(&mut self, name: &str, labels: &[&str], value: f64) {
        self.series(name, labels, |kind, series| match kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                series.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                series.set_gauge(gauge);
            }
        });
    }

    /// Adds a histogram: upper bounds, ascending, with the number of values up to each; sum and number of all values.
    pub fn add_histogram(&mut self, name: &str, labels: &[&str], buckets: &[(f64, u64)], sum: f64, count: u64) {
        self.series(name, labels, |_, series| {
            let bucket = |(bound, cumulative): &(f64, u64)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(*cumulative);
                bucket
            };
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.iter().map(bucket).collect());
            histogram.set_sample_sum(sum);
            histogram.set_sample_count(count);
            series.set_histogram(histogram);
        });
    }

    /// The page.
    pub fn text(self) -> String {
        let families: Vec<MetricFamily> = self
            .families
            .into_iter()
            .map(|(at, series)| {
                let metric = &CATALOGUE[at];
                let mut family = MetricFamily::default();
                family.set_name(metric.name.to_owned());
                family.set_help(metric.help.to_owned());
                family.set_field_type(match metric.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                family.set_metric(series);
                family
            })
            .collect();
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            log::error!("metrics cannot be encoded: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    fn series(&mut self, name: &str, labels: &[&str], fill: impl FnOnce(Kind, &mut Series)) {
        let found = CATALOGUE.iter().position(|metric| metric.name == name && metric.labels.len() == labels.len());
        debug_assert!(found.is_some(), "`{name}` with {} labels is not in the catalogue", labels.len());
        let Some(at) = found else { return };
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut series = Series::from_label(CATALOGUE[at].labels.iter().zip(labels).map(pair).collect());
        fill(CATALOGUE[at].kind, &mut series);
        self.families.entry(at).or_default().push(series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let mut page = Exposition::default();
        page.add("gnomon_rule_packets_total", &["a\"b\\c\n"], 3.0);
        page.add("gnomon_flow_table_pressure", &[], 1.0);
        page.add_histogram("gnomon_scorer_lag_seconds", &[], &[(0.001, 2), (0.01, 5)], 0.25, 6);
        let want = "# HELP gnomon_rule_packets_total Packets that the rule decided.\n\
                    # TYPE gnomon_rule_packets_total counter\n\
                    gnomon_rule_packets_total{rule=\"a\\\"b\\\\c\\n\"} 3\n\
                    # HELP gnomon_flow_table_pressure 1 while an alert of kind table_pressure is open.\n\
                    # TYPE gnomon_flow_table_pressure gauge\n\
                    gnomon_flow_table_pressure 1\n\
                    # HELP gnomon_scorer_lag_seconds Time from the making of a flow record to its taking by the scorer.\n\
                    # TYPE gnomon_scorer_lag_seconds histogram\n\
                    gnomon_scorer_lag_seconds_bucket{le=\"0.001\"} 2\n\
                    gnomon_scorer_lag_seconds_bucket{le=\"0.01\"} 5\n\
                    gnomon_scorer_lag_seconds_bucket{le=\"+Inf\"} 6\n\
                    gnomon_scorer_lag_seconds_sum 0.25\n\
                    gnomon_scorer_lag_seconds_count 6\n";
        assert_eq!(page.text(), want);
    }

    #[test]
    fn names_follow_the_rules() {
        for metric in CATALOGUE {
            let (name, help) = (metric.name, metric.help);
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.starts_with("gnomon_") && name.chars().all(valid), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
            for scaled in ["_us", "_ms", "_ns", "_microseconds", "_milliseconds", "_kilobytes", "_minutes"] {
                assert!(!name.contains(scaled), "{name}: base units only");
            }
            assert_eq!(CATALOGUE.iter().filter(|other| other.name == name).count(), 1, "{name}");
            let address = metric.labels.iter().any(|l| ["ip", "address", "src", "dst", "host", "mac"].contains(l));
            assert!(!address, "{name}: no label per address");
        }
    }
}
