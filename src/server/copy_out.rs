//! COPY … TO STDOUT over several shards: its rows are those of a SELECT, its words PostgreSQL's.
//!
//! ```text
//! COPY table, text and CSV         the client's text on every shard, whose data is passed on as one
//! COPY (query) that one shard has  the client's text on that shard
//! COPY (query) of several          the query's plan; data is made of its rows here
//! ```
//! What PostgreSQL has to say of options and columns, CopyOutResponse and the line of names come from the catalog shard, which is
//! sent the same COPY without rows.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::control;
use super::encoding::no_copy;
use super::prepare::{CATALOG_SHARD, no_connection};
use super::prepared::Prepared;
use super::run::unsupported;
use super::session::Session;
use super::wording::refuse;
use crate::backend::raw_conn::{Event, RawConn};
use crate::catalog::{Table, TableKind};
use crate::executor::{CopyHead, CopyOut, CsvForm, Execution, TextForm, Written};
use crate::metrics::{QueryKind, Reason};
use crate::plan::{Plan, Planned, ShardId, Targets};
use crate::planner;
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription};
use crate::sql::{CopyFormat, CopySource, CopyTable, CopyTo, ForceQuote, Kind};
use crate::types::encoding::Encoding;
use crate::types::oid;

/// The same query without a row; what follows is the client's own again.
const BEFORE_QUERY: &str = "COPY (SELECT * FROM (";
/// A comment may end the query.
const BEHIND_QUERY: &str = "\n) q LIMIT 0) ";

impl Session {
    /// The execution of a COPY … TO STDOUT over several shards. `sync`: the client's Sync is next.
    ///
    /// # Errors
    /// What PostgreSQL finds wrong with it; the refusal of its query.
    pub async fn open_copy_out(
        &mut self,
        prepared: &Prepared,
        sync: bool,
    ) -> Result<Execution, ServerError> {
        let Kind::CopyTo(copy) = &prepared.kind else {
            return Err(refuse(&prepared.kind));
        };
        match &copy.source {
            CopySource::Table(table) => self.open_table(prepared, copy, table, sync).await,
            CopySource::Query { sql } => {
                let places = Places::new(&prepared.sql, sql, &copy.options);
                let opened = self.open_query(prepared, copy, sql, &places, sync).await;
                opened.map_err(|(error, from)| places.moved(error, from))
            }
            CopySource::Change => Err(refuse(&prepared.kind)),
        }
    }

    async fn open_table(
        &mut self,
        prepared: &Prepared,
        copy: &CopyTo,
        table: &CopyTable,
        sync: bool,
    ) -> Result<Execution, ServerError> {
        let head = match (&copy.format, copy.header) {
            (CopyFormat::Binary, _) => CopyHead::Binary,
            (_, true) => CopyHead::Names,
            (_, false) => CopyHead::None,
        };
        match self.known_table(table).await?.as_deref().map(|t| t.kind) {
            Some(TableKind::Table) => {}
            None if self.is_table(table).await? => {}
            // Of catalogs there is one. None of the others, and nothing that is not there, can be copied: PostgreSQL says why.
            _ => return self.relayed(prepared, vec![CATALOG_SHARD], head, sync),
        }
        let query = format!("SELECT * FROM ONLY {}", table.quoted());
        // Its position would be in a text that the client has not written.
        let selected = self.prepare(query, &[]).await.map_err(without_position)?;
        let shards = self.shards_of(&selected, sync)?;
        self.tie(&selected);
        if copy.format == CopyFormat::Binary && !self.is_same_everywhere(&selected) {
            return self.open_columns(prepared, copy, table, sync).await;
        }
        self.relayed(prepared, shards, head, sync)
    }

    /// The client's own text, on shards whose data needs no look.
    fn relayed(
        &mut self,
        prepared: &Prepared,
        shards: Vec<ShardId>,
        head: CopyHead,
        sync: bool,
    ) -> Result<Execution, ServerError> {
        self.refuse_encoding_functions(&prepared.sql)?;
        let kind = match shards.len() {
            1 => QueryKind::Routed,
            _ => QueryKind::PushDown,
        };
        self.count(kind, &prepared.sql);
        let bound = self.bound(Arc::default(), Arc::from([]), 0, sync)?;
        self.check_known(prepared, &shards)?;
        let execution = Execution::copied(shards, prepared.sql.clone(), head, bound);
        if self.steered {
            self.tell_routing(prepared, kind, &execution);
        }
        Ok(execution)
    }

    async fn known_table(&mut self, table: &CopyTable) -> Result<Option<Arc<Table>>, ServerError> {
        self.find_path().await?;
        let loaded = self.loaded()?;
        let path = self.search_path(&loaded.catalog);
        let found = planner::find_table(&loaded.catalog, &path, &table.schema, &table.name);
        Ok(found.cloned())
    }

    /// True for a table that was made just now: it is there, though it is not known.
    async fn is_table(&mut self, table: &CopyTable) -> Result<bool, ServerError> {
        let name = crate::sql::quote_literal(&table.quoted());
        let asked = format!(
            "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({name})"
        );
        let kind = self.ask_catalog_shard(&asked).await?.into_iter().next();
        Ok(kind.flatten().is_some_and(|kind| kind == "r"))
    }

    /// Where a table's rows are.
    fn shards_of(&mut self, selected: &Prepared, sync: bool) -> Result<Vec<ShardId>, ServerError> {
        let count = self.shared.shard_names.len();
        let bound = self.bound(Arc::default(), Arc::from([]), 0, sync)?;
        let planned = selected.planned.as_ref();
        let one = planned.and_then(|p| Execution::single_shard(&p.route, &bound, count));
        if let Some(shard) = one {
            return Ok(vec![shard]);
        }
        match planned.map(|p| &p.fan_out) {
            Some(Ok(plan)) if reads_all(plan) => {
                Ok((0..count).map(|shard| ShardId(shard as u16)).collect())
            }
            _ => Err(unreadable(planned)),
        }
    }

    /// True when the binary form of all columns is the same on every server.
    fn is_same_everywhere(&self, selected: &Prepared) -> bool {
        let columns = selected.columns.as_deref().unwrap_or_default();
        columns.iter().all(is_builtin)
    }

    /// COPY table as the SELECT of its columns, which knows how to deal with types that users made.
    async fn open_columns(
        &mut self,
        prepared: &Prepared,
        copy: &CopyTo,
        table: &CopyTable,
        sync: bool,
    ) -> Result<Execution, ServerError> {
        let mut names = table.columns.clone();
        if names.is_empty() {
            let name = crate::sql::quote_literal(&table.quoted());
            let asked = format!(
                "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) \
                 FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass({name}) \
                 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
            );
            let list = self.ask_catalog_shard(&asked).await?.into_iter().next();
            names.extend(list.flatten());
        } else {
            let quoted = names.iter().map(|n| crate::sql::quote_identifier(n));
            names = quoted.collect();
        }
        let query = format!("SELECT {} FROM ONLY {}", names.join(", "), table.quoted());
        let mut copy = copy.clone();
        if table.binary_first {
            copy.options.push_str(" BINARY");
        }
        let places = Places::new("", "", "");
        let opened = self.open_query(prepared, &copy, &query, &places, sync);
        opened.await.map_err(|(error, _)| without_position(error))
    }

    /// COPY (query). An error comes with the text that its position is in.
    async fn open_query(
        &mut self,
        prepared: &Prepared,
        copy: &CopyTo,
        query: &str,
        places: &Places,
        sync: bool,
    ) -> Result<Execution, (ServerError, Text)> {
        let in_query = |error| (error, Text::Query);
        let mut head = None;
        let inner = match self.cached(&self.cache_key(query)) {
            Some(inner) if inner.parameter_types.is_empty() => inner,
            _ => {
                // Before the query itself: PostgreSQL looks at the options first.
                head = Some(self.copy_head(query, copy).await?);
                let inner = self.prepare(query.to_owned(), &[]).await;
                inner.map_err(in_query)?
            }
        };
        let Some(planned) = &inner.planned else {
            return Err((refuse(&prepared.kind), Text::None));
        };
        if !inner.set_config.is_empty() {
            let hint = "Call it in a SELECT of its own.";
            return Err((
                unsupported(Reason::Copy, "set_config in a COPY is not supported", hint),
                Text::None,
            ));
        }
        let columns = inner.columns.clone().unwrap_or_else(|| Arc::from([]));
        let is_binary = copy.format == CopyFormat::Binary;
        if let Some(shard) = self.one_shard(planned, sync).map_err(in_query)?
            && !places.is_empty()
            && (!is_binary || columns.iter().all(is_builtin))
        {
            self.tie(&inner);
            self.pinned |= inner.pins;
            let relayed = self.relayed(prepared, vec![shard], CopyHead::None, sync);
            return relayed.map_err(in_query);
        }
        let columns = match is_binary {
            true => inner.binary_columns(&columns).clone(),
            false => columns,
        };
        let written = written(copy, &columns);
        let head = match head {
            Some(head) => head,
            None => self.copy_head(query, copy).await?,
        };
        if self.client.encoding.is_some() {
            return Err((no_copy(), Text::None));
        }
        if converts(copy) {
            let message = "COPY of a query over several shards writes UTF8 only";
            return Err((
                unsupported(Reason::Copy, message, "Leave ENCODING out."),
                Text::None,
            ));
        }
        let execution = self.open(&inner, Arc::default(), columns, 0, sync);
        let execution = execution.map_err(in_query)?;
        self.pinned |= inner.pins;
        Ok(execution.copying(CopyOut::new(head, written)))
    }

    /// The one shard that has all rows of a query and may read the clock for itself.
    fn one_shard(&mut self, planned: &Planned, sync: bool) -> Result<Option<ShardId>, ServerError> {
        let count = self.shared.shard_names.len();
        let bound = self.bound(Arc::default(), Arc::from([]), 0, sync)?;
        let reads_clock = planned.uses_now && (planned.frozen || !self.is_alone());
        let one = Execution::single_shard(&planned.route, &bound, count);
        Ok(one.filter(|_| !reads_clock))
    }

    /// CopyOutResponse and the line of names that a query's COPY begins with, or what is wrong with it.
    async fn copy_head(
        &mut self,
        query: &str,
        copy: &CopyTo,
    ) -> Result<Bytes, (ServerError, Text)> {
        let unplaced = |error| (error, Text::None);
        let joined = self.join_and_wait(&[CATALOG_SHARD]).await;
        joined.map_err(unplaced)?;
        let conn = self.connections.get(CATALOG_SHARD);
        let conn = conn.ok_or_else(|| unplaced(no_connection()))?;
        let sql = [BEFORE_QUERY, query, BEHIND_QUERY, &copy.options].concat();
        let head = read_head(conn, &sql).await;
        head.map_err(|error| (error, Text::Head))
    }
}

/// Runs a COPY of no rows; what it sends, without the frame of the binary format.
async fn read_head(conn: &mut RawConn, sql: &str) -> Result<Bytes, ServerError> {
    // In the middle of a pipeline a Sync would end portals.
    let sync = !conn.unsynced();
    let out = conn.write_buffer();
    messages::parse("", sql, &[], out);
    messages::frame(b'B', out, |out| out.put_slice(&[0; 8]));
    messages::execute("", 0, out);
    match sync {
        true => conn.sync(),
        false => messages::flush(conn.write_buffer()),
    }
    let mut head = BytesMut::new();
    loop {
        match control::event(conn).await? {
            // The binary format's frame is empty of names.
            Event::Rows(_) if head.get(5) == Some(&1) => {}
            Event::Rows(run) => head.put_slice(&run.frames),
            Event::Message { tag: b'H', frame } => head.put_slice(&frame),
            Event::Message { tag: b'E', frame } => {
                if !sync {
                    conn.sync();
                }
                control::drain(conn).await?;
                return Err(ServerError::parse(frame.get(5..).unwrap_or_default()));
            }
            Event::Message { tag: b'C', .. } => {
                if sync {
                    control::drain(conn).await?;
                }
                return Ok(head.freeze());
            }
            Event::Message { .. } => {}
        }
    }
}

/// How the rows of a query are written.
fn written(copy: &CopyTo, columns: &[ColumnDescription]) -> Written {
    let bytes = |text: &String| Bytes::from(text.clone().into_bytes());
    match &copy.format {
        CopyFormat::Binary => Written::Binary,
        CopyFormat::Text { delimiter, null } => {
            Written::Text(Box::new(TextForm::new(*delimiter, bytes(null))))
        }
        CopyFormat::Csv {
            delimiter,
            null,
            quote,
            escape,
            force_quote,
        } => Written::Csv(Box::new(CsvForm {
            delimiter: *delimiter,
            null: bytes(null),
            quote: *quote,
            escape: *escape,
            force_quote: forced(force_quote, columns),
        })),
    }
}

/// A name stands for the first column that has it.
fn forced(force_quote: &ForceQuote, columns: &[ColumnDescription]) -> Vec<bool> {
    match force_quote {
        ForceQuote::All => vec![true; columns.len()],
        ForceQuote::Columns(names) => {
            let mut forced = vec![false; columns.len()];
            for name in names {
                if let Some(at) = columns.iter().position(|c| c.name == name.as_bytes()) {
                    forced[at] = true;
                }
            }
            forced
        }
    }
}

/// True when the data would have to be in another encoding than rows are.
fn converts(copy: &CopyTo) -> bool {
    let named = copy.encoding.as_deref().map(Encoding::named);
    named.is_some_and(|named| !named.is_ok_and(|encoding| !encoding.converts()))
}

/// A type that is the same on every server, and whose values name nothing that is not.
fn is_builtin(column: &ColumnDescription) -> bool {
    let object =
        oid::REG_TYPES.contains(&column.type_oid) || oid::REG_ARRAYS.contains(&column.type_oid);
    let record = matches!(column.type_oid, oid::RECORD | oid::RECORD_ARRAY);
    column.type_oid < oid::FIRST_NORMAL_OBJECT && !object && !record
}

/// True for a plan that is one step on every shard.
fn reads_all(plan: &Plan) -> bool {
    match plan {
        Plan::Gather { input } => reads_all(input),
        Plan::Remote(remote) => remote.targets == Targets::All && remote.first_sql.is_none(),
        _ => false,
    }
}

fn unreadable(planned: Option<&Planned>) -> ServerError {
    match planned.map(|p| &p.fan_out) {
        Some(Err(refusal)) => unsupported(refusal.reason, refusal.message.clone(), &refusal.hint),
        _ => unsupported(
            Reason::Copy,
            "COPY of this table is not supported over several shards",
            "Use COPY (SELECT …) TO.",
        ),
    }
}

fn without_position(error: ServerError) -> ServerError {
    error.without(b'P')
}

/// Which text an error's position is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// None, or the client's.
    None,
    /// The query alone.
    Query,
    /// That of [`Session::copy_head`].
    Head,
}

/// Where the parts of a COPY stand in the client's text, in characters.
#[derive(Debug)]
struct Places {
    query: usize,
    query_length: usize,
    options: usize,
}

impl Places {
    fn new(text: &str, query: &str, options: &str) -> Self {
        let before = |at: Option<usize>| at.map_or(0, |at| text[..at].chars().count());
        Self {
            query: before(text.find(query)),
            query_length: query.chars().count(),
            options: before(text.rfind(options)),
        }
    }

    /// True when the query is not the client's.
    fn is_empty(&self) -> bool {
        self.query_length == 0
    }

    /// The error with its position in the client's text.
    fn moved(&self, error: ServerError, from: Text) -> ServerError {
        let position = error.field(b'P').and_then(|p| p.parse::<usize>().ok());
        let (Some(position), false) = (position, from == Text::None) else {
            return error;
        };
        let before = match from {
            Text::Head => BEFORE_QUERY.len(),
            _ => 0,
        };
        let behind = before + self.query_length + BEHIND_QUERY.len();
        let moved = match position.checked_sub(before + 1) {
            Some(at) if at <= self.query_length => self.query + at,
            _ if from == Text::Query => return error.without(b'P'),
            _ => match position.checked_sub(behind + 1) {
                Some(at) => self.options + at,
                None => return error.without(b'P'),
            },
        };
        error.with_position(moved + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_clients_text() {
        let (query, options) = ("select 'ä', x", "to stdout (form csv)");
        let text = format!("copy ( {query}) {options}");
        let places = Places::new(&text, query, options);
        let at = |position: usize, from| {
            let error = ServerError::new("42703", "m").with_position(position);
            places
                .moved(error, from)
                .field(b'P')
                .map(|p| p.parse::<usize>().expect("a number"))
        };
        let chars = |part: &str| text[..text.find(part).expect("a part")].chars().count() + 1;
        assert_eq!(at(13, Text::Query), Some(chars("x)")));
        assert_eq!(at(BEFORE_QUERY.len() + 13, Text::Head), Some(chars("x)")));
        let head = [BEFORE_QUERY, query, BEHIND_QUERY, options].concat();
        let option = head[..head.find("form").expect("a part")].chars().count() + 1;
        assert_eq!(at(option, Text::Head), Some(chars("form")));
        assert_eq!(at(7, Text::None), Some(7));
    }
}
