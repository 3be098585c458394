//! A mock shard: answers statements over `bench_rows` with rows made in advance, at memory speed, and passes everything else on
//! to a real PostgreSQL, so that catalogs, descriptions and settings are real.
//!
//! `… where id < N` gets N rows over all mock shards, everything else one row a shard, where it says so in a comment
//! after a millisecond. int8 columns count up, interleaved over the
//! shards (each shard's rows are in order); int4 columns repeat after 65,536; other types are constant.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, BytesMut};
use pgbraid::protocol::messages::{self, ColumnDescription, Reader};

use crate::wire::{self, Message, Result, Wire};

/// Answers up to this size are kept, so that measured runs only write.
const KEPT_BYTES: usize = 64 << 20;
const CHUNK_BYTES: usize = 256 * 1024;
/// int8 columns start here: ten digits whatever the row.
const FIRST_ID: i64 = 1_000_000_000;
const GROUPS: i64 = 65_536;

/// What all connections to one mock shard share.
struct Shard {
    index: i64,
    shards: i64,
    upstream: SocketAddr,
    shapes: Mutex<HashMap<String, Arc<Shape>>>,
    kept: Mutex<HashMap<AnswerKey, Arc<Vec<u8>>>>,
}

/// A statement and the formats of its columns.
type AnswerKey = (String, Vec<i16>);

/// What PostgreSQL says of a statement.
struct Shape {
    parameters: Message,
    columns: Vec<ColumnDescription>,
}

/// Starts the `index`-th of `shards` mock shards; it serves as long as the process lives.
pub fn start(index: usize, shards: usize, upstream: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let shard = Arc::new(Shard {
        index: index as i64,
        shards: shards as i64,
        upstream,
        shapes: Mutex::default(),
        kept: Mutex::default(),
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shard = shard.clone();
            std::thread::spawn(move || {
                // The peer hanging up is how every session ends.
                let _ = Session::open(shard, stream).and_then(|s| s.map_or(Ok(()), Session::run));
            });
        }
    });
    Ok(address)
}

fn is_mine(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    sql.contains("from bench_rows") || sql.contains("from public.bench_rows")
}

impl Shard {
    /// Rows of the whole answer that come from this shard.
    fn rows(&self, sql: &str) -> i64 {
        let digits = sql.split_once('<').map(|(_, rest)| rest.trim_start());
        let digits = digits.and_then(|d| d.split(|c: char| !c.is_ascii_digit()).next());
        match digits.and_then(|d| d.parse::<i64>().ok()) {
            Some(all) => (all - self.index + self.shards - 1) / self.shards,
            None => 1,
        }
    }

    fn encode(&self, columns: &[ColumnDescription], formats: &[i16], row: i64, out: &mut BytesMut) {
        messages::frame(b'D', out, |out| {
            out.put_u16(columns.len() as u16);
            for (i, column) in columns.iter().enumerate() {
                let id = FIRST_ID + row * self.shards + self.index;
                put_value(column.type_oid, format_of(formats, i), id, row, out);
            }
        });
    }
}

fn format_of(formats: &[i16], column: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(column).copied().unwrap_or(0),
    }
}

fn put_value(type_oid: u32, format: i16, id: i64, row: i64, out: &mut BytesMut) {
    let group = row % GROUPS + GROUPS;
    let mut text = itoa::Buffer::new();
    let mut value = |bytes: &[u8]| {
        out.put_u32(bytes.len() as u32);
        out.put_slice(bytes);
    };
    match (type_oid, format) {
        (20, 0) => value(text.format(id).as_bytes()),
        (20, _) => value(&id.to_be_bytes()),
        (23, 0) => value(text.format(group).as_bytes()),
        (23, _) => value(&(group as i32).to_be_bytes()),
        (1700, 0) => value(b"12345678.25"),
        // Three digits to base 10,000, weight 1, positive, scale 2: 1234 5678 . 25
        (1700, _) => value(&[0, 3, 0, 1, 0, 0, 0, 2, 0x04, 0xd2, 0x16, 0x2e, 0x09, 0xc4]),
        _ => value(b"abcdefgh"),
    }
}

struct Portal {
    sql: String,
    formats: Vec<i16>,
}

struct Session {
    shard: Arc<Shard>,
    client: Wire,
    upstream: Wire,
    out: BytesMut,
    /// Messages since the last Sync or Flush.
    batch: Vec<Message>,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Tags of messages the upstream still has to answer.
    pending: VecDeque<u8>,
    status: u8,
}

impl Session {
    /// Login; `None` for a cancel request.
    fn open(shard: Arc<Shard>, stream: TcpStream) -> Result<Option<Self>> {
        let mut client = Wire::new(stream)?;
        let startup = loop {
            let length = wire::length(client.peek(4)?);
            let packet = client.peek(length)?[..length].to_vec();
            client.consume(length);
            match wire::length(&packet[4..8]) {
                80_877_103 | 80_877_104 => client.stream.write_all(b"N")?,
                80_877_102 => return Ok(None),
                _ => break packet,
            }
        };
        let (upstream, greeting) = Wire::connect(shard.upstream, &startup)?;
        client.stream.write_all(&greeting)?;
        Ok(Some(Self {
            shard,
            client,
            upstream,
            out: BytesMut::new(),
            batch: Vec::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            pending: VecDeque::new(),
            status: b'I',
        }))
    }

    fn run(mut self) -> Result<()> {
        loop {
            let message = self.client.message()?;
            match message.tag {
                b'X' => return Ok(()),
                b'Q' => self.simple(message)?,
                b'S' | b'H' => {
                    self.batch.push(message);
                    self.extended()?;
                }
                _ => self.batch.push(message),
            }
            self.client.stream.write_all(&self.out)?;
            self.out.clear();
        }
    }

    fn simple(&mut self, message: Message) -> Result<()> {
        let sql = Reader(&message.body)
            .cstr()
            .map(String::from_utf8_lossy)
            .unwrap_or_default()
            .into_owned();
        if !is_mine(&sql) {
            return self.pass_on(vec![message]);
        }
        let shape = self.shape(&sql)?;
        messages::row_description(&shape.columns, &mut self.out);
        self.rows(&sql, &[])?;
        messages::ready_for_query(self.status, &mut self.out);
        Ok(())
    }

    fn extended(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let mut mine = false;
        for message in &batch {
            let mut body = Reader(&message.body);
            match message.tag {
                b'P' => {
                    let (name, sql) = (
                        body.cstr().unwrap_or_default(),
                        body.cstr().unwrap_or_default(),
                    );
                    self.statements
                        .insert(name.to_vec(), String::from_utf8_lossy(sql).into_owned());
                }
                b'B' => mine |= self.bind(&message.body).is_some_and(|mine| mine),
                _ => {}
            }
        }
        if !mine {
            return self.pass_on(batch);
        }
        batch.iter().try_for_each(|message| self.answer(message))
    }

    /// Notes the portal of a Bind; true when its statement is answered here.
    fn bind(&mut self, body: &[u8]) -> Option<bool> {
        let mut body = Reader(body);
        let (portal, statement) = (body.cstr()?.to_vec(), body.cstr()?);
        let sql = self.statements.get(statement)?.clone();
        let formats = body.i16()?;
        body.take(2 * formats as usize)?;
        for _ in 0..body.i16()? {
            body.value()?;
        }
        let formats = (0..body.i16()?)
            .map(|_| body.i16())
            .collect::<Option<_>>()?;
        let mine = is_mine(&sql);
        self.portals.insert(portal, Portal { sql, formats });
        Some(mine)
    }

    /// Answers one message of the extended protocol here.
    fn answer(&mut self, message: &Message) -> Result<()> {
        match message.tag {
            b'P' => messages::bare(b'1', &mut self.out),
            b'B' => messages::bare(b'2', &mut self.out),
            b'C' => messages::bare(b'3', &mut self.out),
            b'D' => self.describe(&message.body)?,
            b'E' => {
                let portal = Reader(&message.body).cstr().unwrap_or_default();
                let portal = self
                    .portals
                    .remove(portal)
                    .ok_or("Execute of an unknown portal")?;
                self.rows(&portal.sql, &portal.formats)?;
            }
            b'S' => messages::ready_for_query(self.status, &mut self.out),
            _ => {}
        }
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<()> {
        let name = &body[1..body.len() - 1];
        let portal = self.portals.get(name).filter(|_| body[0] == b'P');
        let formats = portal.map(|p| p.formats.clone()).unwrap_or_default();
        let sql = portal
            .map(|p| &p.sql)
            .or_else(|| self.statements.get(name))
            .cloned();
        let shape = self.shape(&sql.ok_or("Describe of something unknown")?)?;
        if body[0] == b'S' {
            shape.parameters.put(&mut self.out);
        }
        let mut columns = shape.columns.clone();
        for (i, column) in columns.iter_mut().enumerate() {
            column.format = format_of(&formats, i);
        }
        messages::row_description(&columns, &mut self.out);
        Ok(())
    }

    /// Parameters and columns of a statement, asked of the upstream once.
    fn shape(&mut self, sql: &str) -> Result<Arc<Shape>> {
        if let Some(shape) = lock(&self.shard.shapes).get(sql) {
            return Ok(shape.clone());
        }
        let mut ask = BytesMut::new();
        messages::parse("mock", sql, &[], &mut ask);
        messages::describe_or_close(b'D', b'S', "mock", &mut ask);
        messages::describe_or_close(b'C', b'S', "mock", &mut ask);
        messages::sync(&mut ask);
        self.upstream.stream.write_all(&ask)?;
        let (mut parameters, mut columns) = (None, None);
        loop {
            let message = self.upstream.message()?;
            match message.tag {
                b't' => parameters = Some(message),
                b'T' => columns = messages::parse_row_description(&message.body),
                b'E' => return Err(wire::error_text(&message.body).into()),
                b'Z' => break,
                _ => {}
            }
        }
        let shape = Arc::new(Shape {
            parameters: parameters.ok_or("no ParameterDescription")?,
            columns: columns.ok_or("no RowDescription")?,
        });
        lock(&self.shard.shapes).insert(sql.to_owned(), shape.clone());
        Ok(shape)
    }

    /// DataRows and CommandComplete.
    fn rows(&mut self, sql: &str, formats: &[i16]) -> Result<()> {
        let rows = self.shard.rows(sql);
        if sql.contains("after 1 ms") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if rows == 1 {
            let shape = self.shape(sql)?;
            self.shard.encode(&shape.columns, formats, 0, &mut self.out);
        } else {
            self.client.stream.write_all(&self.out)?;
            self.out.clear();
            self.many_rows(sql, formats, rows)?;
        }
        messages::command_complete(&format!("SELECT {rows}"), &mut self.out);
        Ok(())
    }

    fn many_rows(&mut self, sql: &str, formats: &[i16], rows: i64) -> Result<()> {
        let key = (sql.to_owned(), formats.to_vec());
        let kept = lock(&self.shard.kept).get(&key).cloned();
        if let Some(kept) = kept {
            return Ok(kept
                .chunks(CHUNK_BYTES)
                .try_for_each(|chunk| self.client.stream.write_all(chunk))?);
        }
        let shape = self.shape(sql)?;
        let (mut keep, mut all, mut chunk) = (true, Vec::new(), BytesMut::new());
        for row in 0..rows {
            self.shard.encode(&shape.columns, formats, row, &mut chunk);
            if chunk.len() >= CHUNK_BYTES || row == rows - 1 {
                self.client.stream.write_all(&chunk)?;
                keep &= all.len() + chunk.len() <= KEPT_BYTES;
                if keep {
                    all.extend_from_slice(&chunk);
                }
                chunk.clear();
            }
        }
        if keep {
            lock(&self.shard.kept).insert(key, Arc::new(all));
        }
        Ok(())
    }

    /// Sends messages upstream and the answers back, until nothing more can come.
    fn pass_on(&mut self, messages: Vec<Message>) -> Result<()> {
        let mut ask = BytesMut::new();
        for message in messages {
            message.put(&mut ask);
            self.pending
                .extend((message.tag != b'H').then_some(message.tag));
        }
        self.upstream.stream.write_all(&ask)?;
        while let Some(&asked) = self.pending.front() {
            let answer = self.upstream.message()?;
            answer.put(&mut self.out);
            match (answer.tag, asked) {
                (b'Z', _) => {
                    self.status = answer.body[0];
                    self.pending.pop_front();
                }
                // After an error everything up to Sync is skipped; a simple query's error is followed by its ReadyForQuery.
                (b'E', b'Q') => {}
                (b'E', _) => {
                    while self.pending.front().is_some_and(|tag| *tag != b'S') {
                        self.pending.pop_front();
                    }
                }
                (b'1', b'P')
                | (b'2', b'B')
                | (b'3', b'C')
                | (b'T' | b'n', b'D')
                | (b'C' | b'I' | b's', b'E') => {
                    self.pending.pop_front();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
