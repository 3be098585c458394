//! COPY … TO: what is copied, and how its rows are written. Options that PostgreSQL would refuse are read as well as may be: it is
//! asked about them before a row is copied.

use pg_query::protobuf::{self as ast, node::Node};

use super::Statement;
use super::classify::{is_on, options, string_of};
use super::print::quote_identifier;

/// A COPY … TO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTo {
    /// Whose rows.
    pub source: CopySource,
    /// TO STDOUT; else a file or a program of the server.
    pub to_client: bool,
    /// How values are written.
    pub format: CopyFormat,
    /// HEADER: the names of the columns come first.
    pub header: bool,
    /// ENCODING.
    pub encoding: Option<String>,
    /// From TO on, as the client wrote it.
    pub options: String,
}

/// Whose rows a COPY … TO copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// Those of a table itself, without those of its children.
    Table(CopyTable),
    /// Those of a SELECT, as the client wrote it.
    Query {
        /// Without the parentheses.
        sql: String,
    },
    /// Those that a statement changes, or SELECT INTO.
    Change,
}

/// The table of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTable {
    /// Empty where the search_path decides.
    pub schema: String,
    /// Not quoted, as is the schema.
    pub name: String,
    /// The columns in their order; empty: all that are not generated.
    pub columns: Vec<String>,
    /// `COPY BINARY table`.
    pub binary_first: bool,
}

impl CopyTable {
    /// Its name as SQL.
    pub fn quoted(&self) -> String {
        let name = quote_identifier(&self.name);
        match self.schema.is_empty() {
            true => name,
            false => format!("{}.{name}", quote_identifier(&self.schema)),
        }
    }
}

/// The form of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFormat {
    /// Values behind their lengths.
    Binary,
    /// Lines with backslashes.
    Text {
        /// Between values.
        delimiter: u8,
        /// For NULL.
        null: String,
    },
    /// Lines with quotes.
    Csv {
        /// Between values.
        delimiter: u8,
        /// For NULL.
        null: String,
        /// Around values that need it.
        quote: u8,
        /// Before a quote within a value.
        escape: u8,
        /// Values with quotes in any case.
        force_quote: ForceQuote,
    },
}

/// FORCE_QUOTE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForceQuote {
    /// Those of these columns.
    Columns(Vec<String>),
    /// All but NULL.
    All,
}

/// Reads a COPY … TO.
pub(super) fn copy_to(copy: &ast::CopyStmt, statement: &Statement) -> CopyTo {
    let tokens = pg_query::scan_tokens(&statement.text).unwrap_or_default();
    let (query, tail) = parts(&statement.text, &tokens, copy.query.is_some());
    CopyTo {
        source: source(copy, query, &tokens),
        to_client: copy.filename.is_empty() && !copy.is_program,
        format: format(&copy.options),
        header: option(&copy.options, "header").is_some_and(|h| is_on(h.as_deref())),
        encoding: option(&copy.options, "encoding").flatten(),
        options: tail.to_owned(),
    }
}

fn source(copy: &ast::CopyStmt, query: &str, tokens: &[ast::ScanToken]) -> CopySource {
    match (&copy.relation, copy.query.as_deref()) {
        (_, Some(node)) => match &node.node {
            Some(Node::SelectStmt(s)) if !super::classify::writes(s) => CopySource::Query {
                sql: query.to_owned(),
            },
            _ => CopySource::Change,
        },
        (Some(relation), None) => CopySource::Table(CopyTable {
            schema: relation.schemaname.clone(),
            name: relation.relname.clone(),
            columns: names(&copy.attlist),
            binary_first: {
                let mut words = tokens.iter().filter(|t| !is_comment(t));
                words
                    .nth(1)
                    .is_some_and(|t| t.token() == ast::Token::Binary)
            },
        }),
        (None, None) => CopySource::Change,
    }
}

fn is_comment(token: &ast::ScanToken) -> bool {
    matches!(token.token(), ast::Token::SqlComment | ast::Token::CComment)
}

/// The query between the first parentheses, and what begins with the TO behind it or behind the table.
fn parts<'t>(text: &'t str, tokens: &[ast::ScanToken], is_query: bool) -> (&'t str, &'t str) {
    let (mut depth, mut opened, mut query) = (0, None, "");
    for token in tokens {
        match token.token() {
            ast::Token::Ascii40 => {
                depth += 1;
                opened.get_or_insert(token.end as usize);
            }
            ast::Token::Ascii41 => {
                depth -= 1;
                if let (0, Some(start), true, "") = (depth, opened, is_query, query) {
                    query = text.get(start..token.start as usize).unwrap_or_default();
                }
            }
            // A column may be named so: in the list, or quoted, which is another token.
            ast::Token::To if depth == 0 => {
                return (
                    query.trim(),
                    text.get(token.start as usize..).unwrap_or_default(),
                );
            }
            _ => {}
        }
    }
    (query.trim(), "")
}

fn names(list: &[ast::Node]) -> Vec<String> {
    let name = |node: &ast::Node| match &node.node {
        Some(Node::String(s)) => Some(s.sval.clone()),
        _ => None,
    };
    list.iter().filter_map(name).collect()
}

/// An option's value: `None` where it is not given, `Some(None)` where it is given without one.
fn option(list: &[ast::Node], name: &str) -> Option<Option<String>> {
    let found = options(list).find(|d| d.defname == name)?;
    Some(string_of(found.arg.as_deref()))
}

fn format(list: &[ast::Node]) -> CopyFormat {
    let byte = |name: &str, default: u8| {
        let value = option(list, name).flatten();
        value.and_then(|v| v.bytes().next()).unwrap_or(default)
    };
    let null = |default: &str| option(list, "null").flatten().unwrap_or(default.to_owned());
    match option(list, "format").flatten().as_deref() {
        Some("binary") => CopyFormat::Binary,
        Some("csv") => {
            let quote = byte("quote", b'"');
            CopyFormat::Csv {
                delimiter: byte("delimiter", b','),
                null: null(""),
                quote,
                escape: byte("escape", quote),
                force_quote: force_quote(list),
            }
        }
        _ => CopyFormat::Text {
            delimiter: byte("delimiter", b'\t'),
            null: null("\\N"),
        },
    }
}

fn force_quote(list: &[ast::Node]) -> ForceQuote {
    let given = options(list).find(|d| d.defname == "force_quote");
    match given.and_then(|d| d.arg.as_deref()?.node.as_ref()) {
        Some(Node::AStar(_)) => ForceQuote::All,
        Some(Node::List(columns)) => ForceQuote::Columns(names(&columns.items)),
        _ => ForceQuote::Columns(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, classify, parse};
    use super::*;

    fn copy(sql: &str) -> CopyTo {
        match classify(&parse(sql).expect("valid")[0]) {
            Kind::CopyTo(copy) => *copy,
            other => panic!("{other:?}"),
        }
    }

    fn csv(
        delimiter: u8,
        null: &str,
        quote: u8,
        escape: u8,
        force_quote: ForceQuote,
    ) -> CopyFormat {
        CopyFormat::Csv {
            delimiter,
            null: null.into(),
            quote,
            escape,
            force_quote,
        }
    }

    #[test]
    fn a_query_is_cut_out_as_it_was_written() {
        for (sql, query, options) in [
            ("copy (select 1) to stdout", "select 1", "to stdout"),
            (
                "copy /* ( */ ( (select ')' as \"to\") union (select $$($$) ) TO stdout (format csv)",
                "(select ')' as \"to\") union (select $$($$)",
                "TO stdout (format csv)",
            ),
            (
                "copy (table t -- )\n) to stdout csv",
                "table t -- )",
                "to stdout csv",
            ),
        ] {
            let copy = copy(sql);
            let source = CopySource::Query { sql: query.into() };
            assert_eq!((copy.source, &*copy.options), (source, options), "{sql}");
            assert!(copy.to_client);
        }
        let change = copy("copy (insert into t values (1) returning a) to stdout");
        assert_eq!(change.source, CopySource::Change);
        assert!(!copy("copy t to '/tmp/x'").to_client);
        assert!(!copy("copy t to program 'cat'").to_client);
    }

    #[test]
    fn a_table_has_columns() {
        let binary = copy("copy binary s.t (a, \"to\") to stdout");
        let table = CopyTable {
            schema: "s".into(),
            name: "t".into(),
            columns: vec!["a".into(), "to".into()],
            binary_first: true,
        };
        assert_eq!(binary.source, CopySource::Table(table));
        assert_eq!(binary.format, CopyFormat::Binary);
        assert_eq!(binary.options, "to stdout");
    }

    #[test]
    fn options_old_and_new() {
        let text = |delimiter, null: &str| CopyFormat::Text {
            delimiter,
            null: null.into(),
        };
        let none = || ForceQuote::Columns(Vec::new());
        let two = || ForceQuote::Columns(vec!["a".into(), "b".into()]);
        for (options, format) in [
            ("", text(b'\t', "\\N")),
            ("delimiter '|' null as 'x'", text(b'|', "x")),
            ("(delimiter e'\\x01', null '')", text(1, "")),
            ("with binary", CopyFormat::Binary),
            ("csv", csv(b',', "", b'"', b'"', none())),
            (
                "with csv header quote '''' force quote a, b",
                csv(b',', "", b'\'', b'\'', two()),
            ),
            (
                "(format csv, escape '\\', force_quote (a, b), null 'n', delimiter ';')",
                csv(b';', "n", b'"', b'\\', two()),
            ),
            (
                "(format 'csv', force_quote *)",
                csv(b',', "", b'"', b'"', ForceQuote::All),
            ),
        ] {
            assert_eq!(
                copy(&format!("copy t to stdout {options}")).format,
                format,
                "{options}"
            );
        }
        for (options, header) in [
            ("(header)", true),
            ("csv header", true),
            ("(header off)", false),
            ("(header 1)", true),
            ("(header 'TRUE')", true),
            ("", false),
        ] {
            assert_eq!(
                copy(&format!("copy t to stdout {options}")).header,
                header,
                "{options}"
            );
        }
    }
}
