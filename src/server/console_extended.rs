//! The extended protocol at the console: commands without parameters, in text and in binary form. Drivers change to it by themselves, some
//! after a few times of the same text.

use bytes::{BufMut, Bytes};
use hashbrown::HashMap;

use super::bind::{Bind, read_kind_and_name, read_parse, text};
use super::console::{ConsoleSession, Failed};
use crate::admin::console::{self, Answer, Command, Table, Type, Value};
use crate::protocol::error::ServerError;
use crate::protocol::messages::{self, ColumnDescription, Reader};
use crate::protocol::sqlstate;
use crate::types::oid;

/// Statements and portals that a session may have at once, of each; drivers stop at some hundred.
const NAMES_MAX: usize = 256;

/// What a session has prepared and bound.
#[derive(Default)]
pub(super) struct Prepared {
    /// Commands by name; `None` is the empty query.
    statements: HashMap<String, Option<Command>>,
    portals: HashMap<String, Portal>,
}

struct Portal {
    command: Option<Command>,
    /// One for all columns, or one for each.
    formats: Vec<i16>,
    /// Carried out, with the rows that have gone out.
    answer: Option<(Answer, usize)>,
}

impl Prepared {
    /// Portals end with their transaction, which Sync ends.
    pub fn end_portals(&mut self) {
        self.portals.clear();
    }

    /// A Query ends the unnamed statement.
    pub fn end_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.clear();
    }
}

impl ConsoleSession {
    /// Carries out a message of the extended protocol.
    pub(super) async fn extended(&mut self, tag: u8, body: &Bytes) -> Result<(), Failed> {
        match tag {
            b'P' => Ok(self.parse(body)?),
            b'B' => Ok(self.bind(body)?),
            b'D' => self.describe(body).await,
            b'E' => self.execute(body).await,
            _ => Ok(self.close(body)?),
        }
    }

    fn parse(&mut self, body: &Bytes) -> Result<(), ServerError> {
        let (name, sql, types) = read_parse(body).ok_or_else(|| malformed("Parse"))?;
        if !types.is_empty() {
            return Err(no_parameters());
        }
        let command = match console::split(sql).as_slice() {
            [] => None,
            [command] => Some(console::parse(command)?),
            _ => {
                let message = "cannot insert multiple commands into a prepared statement";
                return Err(ServerError::new(sqlstate::SYNTAX_ERROR, message));
            }
        };
        let statements = &mut self.prepared.statements;
        if !name.is_empty() && statements.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(ServerError::new(sqlstate::DUPLICATE_STATEMENT, message));
        }
        if statements.len() >= NAMES_MAX && !name.is_empty() {
            return Err(too_many());
        }
        statements.insert(name.to_owned(), command);
        messages::bare(b'1', self.client.out());
        Ok(())
    }

    fn bind(&mut self, body: &Bytes) -> Result<(), ServerError> {
        let bind = Bind::read(body).ok_or_else(|| malformed("Bind"))?;
        let Some(command) = self.prepared.statements.get(bind.statement) else {
            return Err(no_statement(bind.statement));
        };
        if bind.has_values() {
            return Err(no_parameters());
        }
        let portals = &mut self.prepared.portals;
        if !bind.portal.is_empty() && portals.contains_key(bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(ServerError::new(sqlstate::DUPLICATE_CURSOR, message));
        }
        if portals.len() >= NAMES_MAX && !bind.portal.is_empty() {
            return Err(too_many());
        }
        let portal = Portal {
            command: command.clone(),
            formats: bind.result_formats(),
            answer: None,
        };
        portals.insert(bind.portal.to_owned(), portal);
        messages::bare(b'2', self.client.out());
        Ok(())
    }

    async fn describe(&mut self, body: &Bytes) -> Result<(), Failed> {
        let (kind, name) = read_kind_and_name(body).ok_or_else(|| malformed("Describe"))?;
        match kind {
            b'S' => {
                let statements = &self.prepared.statements;
                let command = statements.get(name).ok_or_else(|| no_statement(name))?;
                let command = command.clone();
                messages::parameter_description(&[], self.client.out());
                let columns = match command {
                    // Its columns are known when it has been looked at.
                    Some(command @ Command::Show { .. }) => match self.carry_out(&command).await? {
                        Answer::Rows(table) => Some(descriptions(&table, &[])?),
                        Answer::Done(_) => None,
                    },
                    _ => None,
                };
                self.say_columns(columns.as_deref());
            }
            _ => {
                let portal = self.prepared.portals.get(name);
                let portal = portal.ok_or_else(|| no_portal(name))?;
                let command = portal.command.clone();
                if let (Some(command @ Command::Show { .. }), None) = (command, &portal.answer) {
                    let answer = self.carry_out(&command).await?;
                    self.answer(name, answer);
                }
                let columns = match self.prepared.portals.get(name) {
                    Some(Portal {
                        answer: Some((Answer::Rows(table), _)),
                        formats,
                        ..
                    }) => Some(descriptions(table, formats)?),
                    _ => None,
                };
                self.say_columns(columns.as_deref());
            }
        }
        Ok(())
    }

    async fn execute(&mut self, body: &Bytes) -> Result<(), Failed> {
        let mut r = Reader(body);
        let name = r
            .cstr()
            .and_then(text)
            .ok_or_else(|| malformed("Execute"))?;
        let rows_max = r.i32().ok_or_else(|| malformed("Execute"))?;
        // Nothing and less mean all.
        let rows_max = usize::try_from(rows_max).ok().filter(|n| *n > 0);
        let portal = self.prepared.portals.get(name);
        let portal = portal.ok_or_else(|| no_portal(name))?;
        let Some(command) = portal.command.clone() else {
            messages::bare(b'I', self.client.out());
            return Ok(());
        };
        if portal.answer.is_none() {
            let answer = self.carry_out(&command).await?;
            self.answer(name, answer);
        }
        let Some(portal) = self.prepared.portals.get_mut(name) else {
            return Ok(());
        };
        let out = self.client.out();
        match &mut portal.answer {
            Some((Answer::Rows(table), sent)) => {
                let formats = descriptions(table, &portal.formats)?;
                let rows = table.rows.iter().skip(*sent);
                let mut left = rows_max.unwrap_or(usize::MAX);
                for row in rows.take(left) {
                    data_row(row, formats.iter().map(|c| c.format), out);
                    (*sent, left) = (*sent + 1, left - 1);
                }
                match *sent < table.rows.len() {
                    true => messages::bare(b's', out),
                    false => messages::command_complete("SHOW", out),
                }
            }
            Some((Answer::Done(tag), _)) => messages::command_complete(tag, out),
            None => {}
        }
        Ok(())
    }

    fn close(&mut self, body: &Bytes) -> Result<(), ServerError> {
        let (kind, name) = read_kind_and_name(body).ok_or_else(|| malformed("Close"))?;
        match kind {
            b'S' => drop(self.prepared.statements.remove(name)),
            _ => drop(self.prepared.portals.remove(name)),
        }
        messages::bare(b'3', self.client.out());
        Ok(())
    }

    fn answer(&mut self, portal: &str, answer: Answer) {
        if let Some(portal) = self.prepared.portals.get_mut(portal) {
            portal.answer = Some((answer, 0));
        }
    }

    fn say_columns(&mut self, columns: Option<&[ColumnDescription]>) {
        match columns {
            Some(columns) => messages::row_description(columns, self.client.out()),
            None => messages::bare(b'n', self.client.out()),
        }
    }
}

/// A table's columns in these formats: none, one for all, or one for each.
pub(super) fn descriptions(
    table: &Table,
    formats: &[i16],
) -> Result<Vec<ColumnDescription>, ServerError> {
    let formats = spread(formats, table.columns.len())?;
    let columns = table.columns.iter().zip(formats);
    let description = |(column, format): (&console::Column, i16)| {
        let (type_oid, type_length) = match column.kind {
            Type::Integer => (oid::INT8, 8),
            Type::Float => (oid::FLOAT8, 8),
            Type::Text => (oid::TEXT, -1),
        };
        ColumnDescription {
            name: column.name.into(),
            table_oid: 0,
            attribute: 0,
            type_oid,
            type_length,
            type_modifier: -1,
            format,
        }
    };
    Ok(columns.map(description).collect())
}

fn spread(formats: &[i16], count: usize) -> Result<Vec<i16>, ServerError> {
    if let Some(bad) = formats.iter().find(|code| !(0..=1).contains(*code)) {
        let message = format!("unsupported format code: {bad}");
        return Err(ServerError::new("22023", message));
    }
    match *formats {
        [] => Ok(vec![0; count]),
        [one] => Ok(vec![one; count]),
        _ if formats.len() == count => Ok(formats.to_vec()),
        _ => {
            let given = formats.len();
            let message = format!("bind message has {given} result formats but {count} results");
            Err(ServerError::new(sqlstate::PROTOCOL_VIOLATION, message))
        }
    }
}

/// A DataRow in these formats.
pub(super) fn data_row(
    row: &[Value],
    formats: impl Iterator<Item = i16>,
    out: &mut bytes::BytesMut,
) {
    messages::frame(b'D', out, |out| {
        out.put_i16(row.len() as i16);
        for (value, format) in row.iter().zip(formats) {
            match (value, format) {
                (Value::Null, _) => out.put_i32(-1),
                (Value::Integer(n), 1) => {
                    out.put_i32(8);
                    out.put_i64(*n);
                }
                (Value::Float(n), 1) => {
                    out.put_i32(8);
                    out.put_f64(*n);
                }
                (value, _) => {
                    let text = value.text().unwrap_or_default();
                    out.put_i32(text.len() as i32);
                    out.put_slice(text.as_bytes());
                }
            }
        }
    });
}

fn malformed(what: &str) -> ServerError {
    let message = format!("invalid message format: {what}");
    ServerError::new(sqlstate::PROTOCOL_VIOLATION, message)
}

fn no_parameters() -> ServerError {
    let message = "commands of the console take no parameters";
    ServerError::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
        .with_hint("Write the values into the command.")
}

fn no_statement(name: &str) -> ServerError {
    let message = format!("prepared statement \"{name}\" does not exist");
    ServerError::new(sqlstate::INVALID_STATEMENT_NAME, message)
}

fn no_portal(name: &str) -> ServerError {
    let message = format!("portal \"{name}\" does not exist");
    ServerError::new(sqlstate::INVALID_CURSOR_NAME, message)
}

fn too_many() -> ServerError {
    let message = format!("more than {NAMES_MAX} statements or portals at once");
    ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).with_hint("Close some.")
}
