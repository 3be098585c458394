//! Runs the demo's queries on the one server and through pgbraid, in turn, and holds the answers against each other.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::DemoError;

/// A query of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// What the table says of it.
    pub title: &'static str,
    /// Its text. It orders its rows completely, so that there is one right answer.
    pub sql: &'static str,
}

/// Thirteen filters, two joins with the reference table, grouping and windows by the payer, CASEs: what an analyst asks.
pub const ANALYTIC: Query = Query {
    title: "payers by quarter (analytic query)",
    sql: include_str!("analytic.sql"),
};

/// The others: each one goes another way through pgbraid.
pub const OTHERS: &[Query] = &[
    Query {
        title: "count(*)",
        sql: "select count(*) from transfers",
    },
    Query {
        title: "totals by month",
        sql: "select month, count(*), sum(amount), round(avg(amount), 2) as average, max(transactions) \
              from transfers group by month order by month",
    },
    Query {
        title: "top ten payers",
        sql: "select payer, sum(amount) as paid, count(distinct beneficiary) as partners \
              from transfers group by payer order by paid desc nulls last, payer limit 10",
    },
    Query {
        title: "largest payments (ordered scan, LIMIT)",
        sql: "select month, payer, beneficiary, amount from transfers \
              order by amount desc nulls last, payer, beneficiary, month limit 20",
    },
    Query {
        title: "one payer's history (one shard)",
        sql: "select month, beneficiary, amount, transactions from transfers where payer = 4242 \
              order by month, beneficiary, amount, transactions",
    },
];

/// Rows in order, values as text.
type Rows = Vec<Vec<Option<String>>>;

/// How one query went.
#[derive(Debug)]
pub struct Outcome {
    query: Query,
    rows: usize,
    /// Medians on the one server and through pgbraid.
    times: [Duration; 2],
    /// The first row in which the answers differ.
    difference: Option<usize>,
}

/// Runs `query` once on both to compare the rows (and to warm the caches), then `rounds` times on each, in turn.
///
/// # Errors
/// What the server or pgbraid says, with the query's title.
pub async fn compare(
    query: Query,
    whole: &Client,
    braid: &Client,
    rounds: usize,
) -> Result<Outcome, DemoError> {
    let expected = run(query, whole, "the one server").await?.0;
    let found = run(query, braid, "pgbraid").await?.0;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        times[0].push(run(query, whole, "the one server").await?.1);
        times[1].push(run(query, braid, "pgbraid").await?.1);
    }
    Ok(Outcome {
        query,
        rows: expected.len(),
        difference: first_difference(&expected, &found),
        times: times.map(median),
    })
}

async fn run(
    query: Query,
    client: &Client,
    on: &'static str,
) -> Result<(Rows, Duration), DemoError> {
    let started = Instant::now();
    let messages = client.simple_query(query.sql).await;
    let elapsed = started.elapsed();
    let messages = messages.map_err(|source| DemoError::Query {
        title: query.title,
        on,
        source,
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|i| row.get(i).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    });
    Ok((rows.collect(), elapsed))
}

fn first_difference(a: &Rows, b: &Rows) -> Option<usize> {
    let common = a.len().min(b.len());
    let differing = (0..common).find(|&i| a[i] != b[i]);
    differing.or((a.len() != b.len()).then_some(common))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl Outcome {
    /// True when pgbraid gave the rows that the one server gave.
    pub fn same(&self) -> bool {
        self.difference.is_none()
    }
}

/// The outcomes as a table.
pub fn table(outcomes: &[Outcome], shards: usize) -> String {
    let mut out = format!(
        "{:<40} {:>12} {:>12} {:>9} {:>7}\n",
        "median of several runs",
        "one server",
        format!("{shards} shards"),
        "speed-up",
        "rows"
    );
    for o in outcomes {
        let [whole, braid] = o.times.map(|t| t.as_secs_f64() * 1e3);
        let verdict = match o.difference {
            None => "the same".to_owned(),
            Some(row) => format!("DIFFERENT from row {} on", row + 1),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<40} {:>9.1} ms {:>9.1} ms {:>7.2} × {:>7} {verdict}",
            o.query.title,
            whole,
            braid,
            whole / braid.max(1e-6),
            o.rows
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&str]) -> Rows {
        values.iter().map(|v| vec![Some((*v).to_owned())]).collect()
    }

    #[test]
    fn a_missing_row_and_another_order_are_differences() {
        assert_eq!(
            first_difference(&rows(&["a", "b"]), &rows(&["a", "b"])),
            None
        );
        assert_eq!(first_difference(&rows(&["a", "b"]), &rows(&["a"])), Some(1));
        assert_eq!(first_difference(&rows(&["a"]), &rows(&["a", "b"])), Some(1));
        assert_eq!(
            first_difference(&rows(&["a", "b"]), &rows(&["b", "a"])),
            Some(0)
        );
    }

    #[test]
    fn median_is_the_middle_of_an_unsorted_list() {
        let ms = Duration::from_millis;
        assert_eq!(median(vec![ms(9), ms(1), ms(3)]), ms(3));
    }
}
