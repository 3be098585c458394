//! The console's language: SHOW with WHERE and ORDER BY, SET, and commands of one or two words.

use crate::protocol::error::ServerError;
use crate::protocol::sqlstate;
use crate::sql::{self, ast};

/// What an operator writes is shorter; carrying out a condition of megabytes would hold up a thread that serves sessions.
const COMMAND_BYTES_MAX: usize = 16 << 10;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Rows of this name, of which those are given that the rest of the text asks for.
    Show {
        /// In lower case.
        what: String,
        /// WHERE and ORDER BY.
        rest: String,
    },
    /// A setting is to have another value.
    Set {
        /// In lower case.
        name: String,
        /// As it was given, without quotes.
        value: String,
    },
    /// Configuration and catalogs are to be read again.
    Reload,
    /// New statements are to wait; of all shards, or of this one.
    Pause(Option<String>),
    /// They may go on.
    Resume(Option<String>),
    /// Connections are to be replaced.
    Reconnect(Option<String>),
    /// The client with this id is to go.
    Kill(i32),
    /// The process is to end.
    Shutdown {
        /// Not before its last client has left.
        wait_for_clients: bool,
    },
}

impl Command {
    /// Whether it only looks.
    pub fn only_looks(&self) -> bool {
        matches!(self, Self::Show { .. })
    }

    /// Its name, as in CommandComplete.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Show { .. } => "SHOW",
            Self::Set { .. } => "SET",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::Kill(_) => "KILL",
            Self::Shutdown { .. } => "SHUTDOWN",
        }
    }
}

/// Cuts a message into statements at semicolons outside of quotes; comments and empty statements are left out.
pub fn split(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '\'' | '"' => rest[1..].find(c).map_or(rest.len(), |at| at + 2),
            '-' if rest.starts_with("--") => {
                rest = rest.find('\n').map_or("", |at| &rest[at..]);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest.find("*/").map_or("", |at| &rest[at + 2..]);
                continue;
            }
            ';' => {
                statements.push(String::new());
                rest = &rest[1..];
                continue;
            }
            c => c.len_utf8(),
        };
        if let Some(statement) = statements.last_mut() {
            statement.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    statements.retain_mut(|statement| {
        statement.trim().to_owned().clone_into(statement);
        !statement.is_empty()
    });
    statements
}

/// Reads one statement.
///
/// # Errors
/// 42601 for what is no command of the console, 54000 for one that is too long.
pub fn parse(text: &str) -> Result<Command, ServerError> {
    if text.len() > COMMAND_BYTES_MAX {
        let message = format!("a command has at most {COMMAND_BYTES_MAX} bytes");
        return Err(ServerError::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message));
    }
    let (first, rest) = word(text);
    let rest = rest.trim();
    Ok(match first.to_ascii_uppercase().as_str() {
        "SHOW" => {
            let (what, rest) = word(rest);
            if what.is_empty() {
                return Err(syntax("SHOW takes the name of what is to be shown"));
            }
            Command::Show {
                what: what.to_ascii_lowercase(),
                rest: rest.trim().to_owned(),
            }
        }
        "SET" => setting(text)?,
        "RELOAD" if rest.is_empty() => Command::Reload,
        "PAUSE" => Command::Pause(shard(rest)?),
        "RESUME" => Command::Resume(shard(rest)?),
        "RECONNECT" => Command::Reconnect(shard(rest)?),
        "KILL_CLIENT" => Command::Kill(client(rest)?),
        "KILL" => {
            let (what, id) = word(rest);
            match what.eq_ignore_ascii_case("client") {
                true => Command::Kill(client(id.trim())?),
                false => Command::Kill(client(rest)?),
            }
        }
        "SHUTDOWN" => match rest.to_ascii_uppercase().as_str() {
            "" => Command::Shutdown {
                wait_for_clients: false,
            },
            "WAIT_FOR_CLIENTS" => Command::Shutdown {
                wait_for_clients: true,
            },
            _ => return Err(syntax("SHUTDOWN stands alone or with WAIT_FOR_CLIENTS")),
        },
        _ => {
            let first = text.split_whitespace().next().unwrap_or_default();
            let message = format!("{first:?} is no command of the console");
            return Err(syntax(message));
        }
    })
}

/// The first word, and what is behind it.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    text.split_at(end.unwrap_or(text.len()))
}

/// A shard's name, quoted or not; none: all.
fn shard(rest: &str) -> Result<Option<String>, ServerError> {
    let quoted = rest.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    let name = quoted.unwrap_or(rest);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match name.is_empty() {
        true if rest.is_empty() => Ok(None),
        false if name.chars().all(is_name) => Ok(Some(name.to_owned())),
        _ => Err(syntax("one shard's name is taken, or none for all")),
    }
}

fn client(rest: &str) -> Result<i32, ServerError> {
    let number = rest.parse().ok().filter(|id| *id > 0);
    number.ok_or_else(|| {
        syntax("KILL takes the id of a client").with_hint("SHOW CLIENTS has it in its column id.")
    })
}

/// `SET name = value`, as PostgreSQL's own grammar has it.
fn setting(text: &str) -> Result<Command, ServerError> {
    let statements = sql::parse(text).map_err(|e| syntax(e.message))?;
    let [statement] = statements.as_slice() else {
        return Err(syntax("SET takes a setting and its value"));
    };
    let ast::node::Node::VariableSetStmt(set) = &statement.node else {
        return Err(syntax("SET takes a setting and its value"));
    };
    let constants: Option<Vec<String>> = set.args.iter().map(constant).collect();
    match constants.as_deref() {
        Some([value]) if !set.is_local => Ok(Command::Set {
            name: set.name.to_ascii_lowercase(),
            value: value.clone(),
        }),
        _ => Err(syntax("SET takes a setting and one value")),
    }
}

/// The text of a constant.
pub(super) fn constant(node: &ast::Node) -> Option<String> {
    use ast::a_const::Val;
    let ast::node::Node::AConst(constant) = node.node.as_ref()? else {
        return None;
    };
    match constant.val.as_ref()? {
        Val::Ival(n) => Some(n.ival.to_string()),
        Val::Fval(n) => Some(n.fval.clone()),
        Val::Boolval(b) => Some(b.boolval.to_string()),
        Val::Sval(text) => Some(text.sval.clone()),
        Val::Bsval(_) => None,
    }
}

fn syntax(message: impl Into<String>) -> ServerError {
    ServerError::new(sqlstate::SYNTAX_ERROR, message).with_hint("SHOW HELP lists the commands.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_outside_of_quotes() {
        assert_eq!(
            split("SHOW POOLS; /* ; */ SHOW CLIENTS WHERE user = 'a;b' ;; -- ping;"),
            ["SHOW POOLS", "SHOW CLIENTS WHERE user = 'a;b'"]
        );
        assert!(split("-- ping").is_empty());
        assert_eq!(split("show x where y = 'ä"), ["show x where y = 'ä"]);
    }

    #[test]
    fn commands_are_read_in_any_case() {
        let show = |what: &str, rest: &str| Command::Show {
            what: what.into(),
            rest: rest.into(),
        };
        for (text, command) in [
            ("show Pools", show("pools", "")),
            ("SHOW pools where a > 1", show("pools", "where a > 1")),
            ("pause", Command::Pause(None)),
            ("PAUSE \"s-1\"", Command::Pause(Some("s-1".into()))),
            ("RESUME s1", Command::Resume(Some("s1".into()))),
            ("KILL 12", Command::Kill(12)),
            ("kill client 12", Command::Kill(12)),
            ("KILL_CLIENT 12", Command::Kill(12)),
            (
                "shutdown wait_for_clients",
                Command::Shutdown {
                    wait_for_clients: true,
                },
            ),
            (
                "set log.level to 'info,pgbraid=debug'",
                Command::Set {
                    name: "log.level".into(),
                    value: "info,pgbraid=debug".into(),
                },
            ),
        ] {
            assert_eq!(parse(text).unwrap(), command, "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for text in [
            "select 1",
            "kill everybody",
            "KILL -1",
            "shutdown now",
            "pause a b",
            "pause \"\"",
            "reload all",
            "set a",
            "set local log.level = debug",
            "set log.level = a, b",
            "ä",
            "show",
            "show \"pools\"",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.sqlstate(), sqlstate::SYNTAX_ERROR, "{text}");
        }
        let error = parse("ä ö").expect_err("no command");
        assert_eq!(error.message(), "\"ä\" is no command of the console");
        let long = format!("show pools where {}", "sv_idle = 0 or ".repeat(10_000));
        assert_eq!(parse(&long).expect_err("long").sqlstate(), "54000");
    }
}
