//! Loads the payments into the one server and into the shards: several workers, each making its part of the rows and sending
//! them to all servers as binary COPY streams of its own.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::task::JoinSet;
use tokio_postgres::{Client, CopyInSink, NoTls};

use super::DemoError;
use super::payments::{self, Transfer};
use crate::catalog::sharding::{KeyClass, KeyDatum, Sharding, ShardingFunction};
use crate::progress::Progress;

/// Bytes collected for a server before they are sent.
const CHUNK_BYTES: usize = 128 * 1024;
/// Rows made between two looks at the progress bar.
const STEP_ROWS: u64 = 4096;

type Copy = Pin<Box<CopyInSink<Bytes>>>;

/// Where rows go: the one server that gets all of them, and the shards.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Connection string of the server that holds everything.
    pub whole: String,
    /// Connection strings of the shards, in order.
    pub shards: Vec<String>,
}

impl Targets {
    fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.whole).chain(&self.shards)
    }
}

/// Opens a connection whose other half ends with the client.
///
/// # Errors
/// Whatever connecting says.
pub async fn connect(target: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(target, NoTls).await?;
    // Its error reaches the client's next call as well.
    tokio::spawn(connection);
    Ok(client)
}

/// Makes tables, rows, indexes and statistics everywhere, `rows` transfers in all.
///
/// # Errors
/// Whatever a server says.
pub async fn load(targets: &Targets, rows: u64) -> Result<(), DemoError> {
    for_each(targets, |client| async move {
        client.batch_execute(payments::SCHEMA).await?;
        copy_companies(&client).await
    })
    .await?;
    copy_transfers(targets, rows).await?;
    let progress = Progress::new("indexes and statistics", targets.shards.len() as u64 + 1);
    for_each(targets, |client| {
        let progress = progress.clone();
        async move {
            for statement in payments::INDEXES {
                client.batch_execute(statement).await?;
            }
            progress.add(1);
            Ok(())
        }
    })
    .await?;
    progress.finish();
    Ok(())
}

/// Does the same to all servers at once.
async fn for_each<F>(targets: &Targets, work: impl Fn(Client) -> F) -> Result<(), DemoError>
where
    F: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for target in targets.all() {
        tasks.spawn(work(connect(target).await?));
    }
    join(tasks).await
}

async fn copy_companies(client: &Client) -> Result<(), tokio_postgres::Error> {
    let mut lines = BytesMut::new();
    payments::companies(&mut lines);
    let mut copy = Box::pin(client.copy_in("copy companies from stdin").await?);
    copy.send(lines.freeze()).await?;
    copy.as_mut().finish().await?;
    Ok(())
}

async fn copy_transfers(targets: &Targets, rows: u64) -> Result<(), DemoError> {
    let progress = Progress::new("payments", rows);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) as u64;
    let share = rows.div_ceil(workers);
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let numbers = (worker * share).min(rows)..((worker + 1) * share).min(rows);
        let mut loader = Loader::open(targets, progress.clone()).await?;
        tasks.spawn(async move { loader.load(numbers).await });
    }
    join(tasks).await?;
    progress.finish();
    Ok(())
}

/// One worker's streams.
struct Loader {
    whole: Stream,
    shards: Vec<Stream>,
    sharding: Sharding,
    progress: Arc<Progress>,
}

impl Loader {
    async fn open(targets: &Targets, progress: Arc<Progress>) -> Result<Self, DemoError> {
        let mut shards = Vec::new();
        for shard in &targets.shards {
            shards.push(Stream::open(shard).await?);
        }
        Ok(Self {
            whole: Stream::open(&targets.whole).await?,
            sharding: Sharding {
                function: ShardingFunction::Postgres,
                class: KeyClass::Integer,
                shards: shards.len(),
            },
            shards,
            progress,
        })
    }

    async fn load(&mut self, numbers: std::ops::Range<u64>) -> Result<(), tokio_postgres::Error> {
        let mut from = numbers.start;
        while from < numbers.end {
            let to = (from + STEP_ROWS).min(numbers.end);
            self.fill(from..to);
            self.whole.send(CHUNK_BYTES).await?;
            for shard in &mut self.shards {
                shard.send(CHUNK_BYTES).await?;
            }
            self.progress.add(to - from);
            from = to;
        }
        self.whole.finish().await?;
        for shard in &mut self.shards {
            shard.finish().await?;
        }
        Ok(())
    }

    fn fill(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let transfer = Transfer::nth(number);
            let shard = self.sharding.shard_of(&KeyDatum::Integer(transfer.payer));
            let shard = shard.expect("hash sharding has a place for every integer");
            transfer.encode(&mut self.whole.buffer);
            transfer.encode(&mut self.shards[usize::from(shard.0)].buffer);
        }
    }
}

/// A COPY in progress and the bytes not yet sent to it.
struct Stream {
    copy: Copy,
    buffer: BytesMut,
    /// Keeps the connection open.
    _client: Client,
}

impl Stream {
    async fn open(target: &str) -> Result<Self, tokio_postgres::Error> {
        let client = connect(target).await?;
        let copy = Box::pin(
            client
                .copy_in("copy transfers from stdin (format binary)")
                .await?,
        );
        Ok(Self {
            copy,
            buffer: BytesMut::from(payments::COPY_HEADER),
            _client: client,
        })
    }

    async fn send(&mut self, at_least: usize) -> Result<(), tokio_postgres::Error> {
        if self.buffer.len() < at_least {
            return Ok(());
        }
        self.copy.send(self.buffer.split().freeze()).await
    }

    async fn finish(&mut self) -> Result<(), tokio_postgres::Error> {
        self.buffer.put_slice(payments::COPY_TRAILER);
        self.send(0).await?;
        self.copy.as_mut().finish().await?;
        Ok(())
    }
}

/// Waits for all; the first error ends the others.
async fn join(mut tasks: JoinSet<Result<(), tokio_postgres::Error>>) -> Result<(), DemoError> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| DemoError::Worker(e.to_string()))??;
    }
    Ok(())
}
