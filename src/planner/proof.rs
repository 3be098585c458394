//! What user-defined functions may do, told from the names in their bodies: a body is never run to find out.

use std::collections::HashSet;

use super::clock::NOW;
use super::functions::{PER_ROW, PER_SERVER, WRITES, looks_at_catalog};
use crate::catalog::{Catalog, Distribution, Function, FunctionKind, TableKind, Volatility};

/// Where a function gives the answer of a server with all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    /// On any shard, for the rows there: it reads nothing but its arguments.
    Everywhere,
    /// On any one shard: what it reads is on all of them, or belongs to the server it runs on.
    OnePlace,
    /// Nothing is known, or it is known to read or change rows of one shard.
    None,
}

/// Functions that run a text, or read the tables that an argument names.
const READS_BY_TEXT: [&str; 15] = [
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "connectby",
    "xpath_table",
];

/// Values without parentheses that depend on the moment or the server.
const MOMENT_WORDS: [&str; 7] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "current_catalog",
    "current_schema",
];

/// Proves what it can of one overload, by its body and those of the functions it calls.
pub(super) fn of_function(catalog: &Catalog, function: &Function) -> Proof {
    of_overload(catalog, function, &mut HashSet::new())
}

/// The same for all functions of a name.
pub(super) fn of_functions(catalog: &Catalog, name: &str) -> Proof {
    of_name(catalog, name, &mut HashSet::new())
}

/// The same for a text with these names in it: worst case of whatever they may name.
pub(super) fn of_text(catalog: &Catalog, names: &[String]) -> Proof {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    of_names(catalog, &sorted, &mut HashSet::new())
}

/// The same for an operator, by the functions behind it.
pub(super) fn of_operator(catalog: &Catalog, operator: &str) -> Proof {
    let functions = &catalog.operator_functions;
    functions
        .iter()
        .filter(|(name, _)| name == operator)
        .map(|(_, function)| of_functions(catalog, function))
        .max()
        .unwrap_or(Proof::Everywhere)
}

fn of_overload<'c>(
    catalog: &'c Catalog,
    function: &'c Function,
    seen: &mut HashSet<&'c str>,
) -> Proof {
    if reads_by_text(function) {
        return Proof::None;
    }
    match function.schema.as_str() {
        "pg_catalog" => return of_builtin(function),
        "information_schema" => return Proof::OnePlace,
        _ => {}
    }
    let of_names = match &function.names {
        Some(names) => of_names(catalog, names, seen),
        None => Proof::None,
    };
    match function.language.as_str() {
        // What is written in C is taken to be as its author declares it.
        _ if function.kind == FunctionKind::Aggregate => of_names,
        "c" | "internal" if function.volatility == Volatility::Volatile => {
            of_names.max(Proof::OnePlace)
        }
        "c" | "internal" | "sql" | "plpgsql" => of_names,
        _ => Proof::None,
    }
}

/// True for a function of PostgreSQL or its extensions that runs a query it is given, or reads the table it is given.
pub(super) fn reads_by_text(function: &Function) -> bool {
    let name = function.name.as_str();
    let rewrites_by_value = name == "ts_rewrite" && function.arguments.len() != 2;
    (READS_BY_TEXT.contains(&name) || name.starts_with("crosstab")) && !rewrites_by_value
}

fn of_builtin(function: &Function) -> Proof {
    let name = function.name.as_str();
    if WRITES.contains(&name) || name.starts_with("lo_") || name == "lowrite" {
        return Proof::None;
    }
    let volatile =
        function.volatility == Volatility::Volatile && function.kind != FunctionKind::Aggregate;
    let of_server = NOW.contains(&name)
        || PER_ROW.contains(&name)
        || PER_SERVER.contains(&name)
        || looks_at_catalog(name);
    match volatile || of_server {
        true => Proof::OnePlace,
        false => Proof::Everywhere,
    }
}

/// A name may be that of a table, a function or an operator, in any schema: the worst of them counts.
fn of_names<'c>(catalog: &'c Catalog, names: &'c [String], seen: &mut HashSet<&'c str>) -> Proof {
    let mut proof = Proof::Everywhere;
    for ((_, name), table) in &catalog.tables {
        if names.binary_search(name).is_ok() {
            proof = proof.max(match (&table.distribution, table.kind) {
                (Distribution::Reference | Distribution::System, _) | (_, TableKind::System) => {
                    Proof::OnePlace
                }
                _ => Proof::None,
            });
        }
    }
    for name in names {
        proof = proof.max(of_name(catalog, name, seen));
        for (_, function) in catalog
            .operator_functions
            .iter()
            .filter(|(operator, _)| operator == name || operator.strip_prefix("::") == Some(name))
        {
            proof = proof.max(of_name(catalog, function, seen));
        }
    }
    proof
}

fn of_name<'c>(catalog: &'c Catalog, name: &'c str, seen: &mut HashSet<&'c str>) -> Proof {
    if MOMENT_WORDS.contains(&name) {
        return Proof::OnePlace;
    }
    // One that calls itself is as good as the rest of its body.
    if !seen.insert(name) {
        return Proof::Everywhere;
    }
    let overloads = catalog.functions.get(name).into_iter().flatten();
    overloads
        .map(|f| of_overload(catalog, f, seen))
        .max()
        .unwrap_or(Proof::Everywhere)
}
