//! A histogram's figures for those who read them as numbers.

use prometheus::Histogram;
use prometheus::core::Metric;
use serde::Serialize;

/// How many observations lie where.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Upper bounds of all buckets but the last, which has none.
    #[serde(skip)]
    pub bounds: Vec<f64>,
    /// Observations in each bucket, those in lower ones not counted.
    pub counts: Vec<u64>,
    /// Of all observations.
    pub sum: f64,
}

impl Spread {
    /// As of now.
    pub fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket();
        let mut counts = Vec::with_capacity(buckets.len() + 1);
        let mut below = 0;
        let cumulative = buckets
            .iter()
            .map(prometheus::proto::Bucket::cumulative_count);
        for so_far in cumulative.chain([histogram.get_sample_count()]) {
            counts.push(so_far.saturating_sub(below));
            below = so_far;
        }
        Self {
            bounds: buckets.iter().map(|b| b.upper_bound()).collect(),
            counts,
            sum: histogram.get_sample_sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;

    #[test]
    fn each_observation_is_in_one_bucket() {
        let options = HistogramOpts::new("some_seconds", "for a test").buckets(vec![1.0, 2.0]);
        let histogram = Histogram::with_opts(options).unwrap();
        for seconds in [0.5, 1.5, 1.75, 9.0] {
            histogram.observe(seconds);
        }
        let spread = Spread::of(&histogram);
        assert_eq!(spread.bounds, [1.0, 2.0]);
        assert_eq!(spread.counts, [1, 2, 1]);
        assert_eq!(spread.sum, 12.75);
    }
}
