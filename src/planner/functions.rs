//! What the functions and operators of a statement may do: read tables, change something, or answer differently each time.

use super::clock::{self, Constants};
use super::proof::{self, Proof};
use crate::catalog::{Catalog, Function, FunctionKind, Volatility};
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, walk};

/// What a statement's functions do, views it reads included.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// now() and its like: one value a transaction.
    pub(super) uses_now: bool,
    /// It has constants whose moment is that of its preparation.
    pub(super) frozen: bool,
    /// It may read the clock where no parameter reaches.
    pub(super) hidden_now: bool,
    /// Changes data or what other sessions see.
    pub(super) writes: bool,
    /// Looks at the catalog: right on the catalog shard.
    pub(super) catalog: bool,
    /// Names types by the OIDs of the server it runs on.
    pub(super) types: bool,
    /// Volatile, but right wherever the row is.
    pub(super) volatile_row: bool,
    /// Reads a sample of a table: other rows each time.
    pub(super) samples: bool,
    /// Has one value for the whole statement, which one server must compute.
    pub(super) per_statement: bool,
    /// Why no shard alone, nor all of them, may run the statement.
    pub(super) unproved: Option<Refusal>,
    /// Why the statement must not run on several shards.
    pub(super) forbidden: Option<Refusal>,
}

impl Effects {
    /// Nothing of it outlives it in its transaction.
    pub(super) fn leaves_nothing(&self) -> bool {
        !self.writes && !self.hidden_now && self.unproved.is_none() && self.forbidden.is_none()
    }

    /// It has values that no rows decide.
    pub(super) fn varies(&self) -> bool {
        self.volatile_row || self.samples || self.per_statement || self.catalog || self.uses_now
    }
}

/// Volatile functions whose value belongs to the row they are computed for, wherever that is.
pub(super) const PER_ROW: [&str; 9] = [
    "random",
    "clock_timestamp",
    "timeofday",
    "gen_random_uuid",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "uuid_generate_v4",
    "random_normal",
];

/// Stable functions whose value differs between shards or moments.
pub(super) const PER_SERVER: [&str; 39] = [
    "inet_server_addr",
    "inet_server_port",
    "inet_client_addr",
    "inet_client_port",
    "pg_backend_pid",
    "pg_postmaster_start_time",
    "pg_conf_load_time",
    "txid_current",
    "pg_current_xact_id",
    "pg_current_snapshot",
    "txid_current_snapshot",
    "pg_relation_size",
    "pg_total_relation_size",
    "pg_table_size",
    "pg_indexes_size",
    "pg_database_size",
    "pg_is_in_recovery",
    "pg_current_wal_lsn",
    "pg_my_temp_schema",
    "query_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "table_to_xmlschema",
    "table_to_xml_and_xmlschema",
    "cursor_to_xml",
    "ts_stat",
    "ts_rewrite",
    "has_table_privilege",
    "has_column_privilege",
    "pg_relation_filenode",
    "pg_relation_filepath",
    "pg_stat_get_numscans",
    "lastval",
    "currval",
    "pg_last_wal_receive_lsn",
    "pg_sequence_last_value",
];

/// Functions of the session or the statement: right on whichever server it runs as a whole.
const PER_STATEMENT: [&str; 3] = ["current_setting", "current_schema", "current_schemas"];

pub(super) const WRITES: [&str; 8] = [
    "nextval",
    "setval",
    "pg_notify",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_switch_wal",
    "pg_logical_emit_message",
];

pub(super) fn name_of(call: &ast::FuncCall) -> (Option<&str>, &str) {
    let mut parts = call.funcname.iter().rev().filter_map(|n| match &n.node {
        Some(Node::String(s)) => Some(s.sval.as_str()),
        _ => None,
    });
    let name = parts.next().unwrap_or("");
    (parts.next(), name)
}

/// The name of a function that is unqualified or in pg_catalog.
pub(super) fn bare_name(call: &ast::FuncCall) -> Option<&str> {
    match name_of(call) {
        (None | Some("pg_catalog"), name) => Some(name),
        _ => None,
    }
}

/// The overloads a call may mean, at their worst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Called {
    pub(super) volatility: Volatility,
    pub(super) aggregate: bool,
    pub(super) window: bool,
    pub(super) returns_set: bool,
    /// Where it may run, as far as its body tells.
    pub(super) proof: Proof,
    pub(super) builtin: bool,
}

/// Looks a function up; `None` when the catalog has none that fits.
pub(super) fn find(
    catalog: &Catalog,
    search_path: &[String],
    call: &ast::FuncCall,
) -> Option<Called> {
    find_among(catalog, search_path, call, &|_| true)
}

/// The same among overloads of which `takes` says that they may take the arguments.
pub(super) fn find_among(
    catalog: &Catalog,
    search_path: &[String],
    call: &ast::FuncCall,
    takes: &dyn Fn(&Function) -> bool,
) -> Option<Called> {
    let (schema, name) = name_of(call);
    // In FROM it takes any number of arrays, one call each.
    let count = match name {
        "unnest" => call.args.len().min(1),
        _ => call.args.len(),
    };
    let fits = |f: &crate::catalog::Function| {
        let n = f.arguments.len();
        let named = match schema {
            Some(s) => f.schema == s,
            None => f.schema == "pg_catalog" || search_path.contains(&f.schema),
        };
        // Ordered-set aggregates count their sort arguments too.
        let arity = call.agg_within_group
            || call.agg_star
            || (count <= n && count + f.default_arguments >= n)
            || (f.variadic && count + 1 >= n);
        named && arity && takes(f)
    };
    catalog
        .functions
        .get(name)?
        .iter()
        .filter(|f| fits(f))
        .map(|f| called(catalog, f))
        .reduce(|a, b| Called {
            volatility: a.volatility.max(b.volatility),
            aggregate: a.aggregate || b.aggregate,
            window: a.window || b.window,
            returns_set: a.returns_set || b.returns_set,
            proof: a.proof.max(b.proof),
            builtin: a.builtin && b.builtin,
        })
}

fn called(catalog: &Catalog, f: &Function) -> Called {
    let builtin = f.schema == "pg_catalog";
    // How a built-in function is used decides about it: see `call_effects`.
    let proof = match proof::of_function(catalog, f) {
        Proof::OnePlace if builtin || f.language == "c" => Proof::Everywhere,
        Proof::None if builtin && !proof::reads_by_text(f) => Proof::Everywhere,
        proof => proof,
    };
    let proved = proof == Proof::Everywhere && !builtin && f.language != "c";
    Called {
        // PL/pgSQL functions are volatile unless somebody cared to say something else.
        volatility: match proved {
            true => f.volatility.min(Volatility::Stable),
            false => f.volatility,
        },
        aggregate: f.kind == FunctionKind::Aggregate,
        window: f.kind == FunctionKind::Window,
        returns_set: f.returns_set,
        proof,
        builtin,
    }
}

/// Looks through a statement and the views it reads.
pub(super) fn effects<'a>(
    catalog: &Catalog,
    search_path: &[String],
    roots: impl Iterator<Item = &'a ast::SelectStmt>,
) -> Effects {
    let mut out = Effects::default();
    for root in roots {
        let mut constants = Constants::default();
        let known = walk(Child::Select(root), &mut |child| {
            let node = match child {
                Child::Node(n) => n.node.as_ref(),
                Child::Select(s) => {
                    select_effects(s, &mut out);
                    None
                }
            };
            if let Child::Node(n) = child {
                constants.meet(n, &mut out);
            }
            if let Some(node) = node {
                node_effects(catalog, search_path, node, &mut out);
            }
            true
        });
        if let Some(location) = constants.unsure() {
            // Each shard would read it at its own time.
            out.uses_now = true;
            out.hidden_now = true;
            forbid(
                &mut out,
                "a constant that may depend on the clock is",
                location,
            );
        }
        if !known {
            forbid(
                &mut out,
                "this kind of expression over several shards is",
                -1,
            );
        }
    }
    out
}

fn forbid(out: &mut Effects, what: &str, location: i32) {
    out.forbidden.get_or_insert_with(|| Refusal {
        reason: match what {
            w if w.contains("the clock") => Reason::Clock,
            _ => Reason::Function,
        },
        message: format!("{what} not supported over several shards"),
        hint: match what {
            w if w.contains("the clock") => {
                "Use now(), current_date or the moment itself; cast it to text where it is text."
            }
            w if w.contains("_advisory_") => "Call it in a statement of its own.",
            _ => "Restrict the statement to one shard by its sharding key.",
        }
        .into(),
        location: usize::try_from(location).ok(),
    });
}

/// Notes what a function's or operator's body leaves open.
fn judge(proof: Proof, what: &str, location: i32, out: &mut Effects) {
    let refusal = |hint: &str| Refusal {
        reason: Reason::Function,
        message: format!(
            "{what} may read or change tables, which cannot be proved right over several shards"
        ),
        hint: hint.into(),
        location: usize::try_from(location).ok(),
    };
    match proof {
        Proof::Everywhere => {}
        Proof::OnePlace => {
            out.forbidden.get_or_insert_with(|| {
                refusal("Write its query into the statement, or restrict the statement to one shard by its sharding key.")
            });
        }
        Proof::None => {
            out.unproved
                .get_or_insert_with(|| refusal("Write its query into the statement."));
        }
    }
}

/// `row.function` calls a function of one composite argument, where the row has no such column.
fn attribute_effects(
    catalog: &Catalog,
    search_path: &[String],
    name: Option<&ast::Node>,
    location: i32,
    out: &mut Effects,
) {
    let Some(Node::String(name)) = name.and_then(|n| n.node.as_ref()) else {
        return;
    };
    let of_row = |f: &Function| {
        let kind = |t: &u32| catalog.types.get(t).map(|t| t.kind);
        matches!(f.arguments.first().and_then(kind), Some(b'c' | b'p'))
            && f.schema != "pg_catalog"
            && search_path.contains(&f.schema)
    };
    for f in catalog.functions.get(&name.sval).into_iter().flatten() {
        if of_row(f) {
            let what = format!("function {}", name.sval);
            judge(called(catalog, f).proof, &what, location, out);
        }
    }
}

fn operator_effects(catalog: &Catalog, name: &[ast::Node], location: i32, out: &mut Effects) {
    if let Some(Node::String(name)) = name.last().and_then(|n| n.node.as_ref()) {
        let what = format!("operator {}", name.sval);
        let proof = proof::of_operator(catalog, &name.sval);
        judge(proof, &what, location, out);
    }
}

fn select_effects(select: &ast::SelectStmt, out: &mut Effects) {
    if select.into_clause.is_some() {
        out.writes = true;
    }
}

fn node_effects(catalog: &Catalog, search_path: &[String], node: &Node, out: &mut Effects) {
    match node {
        Node::SelectStmt(s) => select_effects(s, out),
        Node::InsertStmt(_) | Node::UpdateStmt(_) | Node::DeleteStmt(_) | Node::MergeStmt(_) => {
            out.writes = true;
        }
        Node::RangeTableSample(_) => out.samples = true,
        Node::SqlvalueFunction(f) => value_function_effects(f, out),
        Node::TypeCast(t) => cast_effects(catalog, t.type_name.as_ref(), t.location, out),
        Node::RangeTableFuncCol(c) => {
            cast_effects(catalog, c.type_name.as_ref(), c.location, out);
        }
        Node::ColumnDef(c) => cast_effects(catalog, c.type_name.as_ref(), c.location, out),
        Node::RangeFunction(f) => {
            let defined = f.coldeflist.iter().filter_map(|d| d.node.as_ref());
            defined.for_each(|d| node_effects(catalog, search_path, d, out));
        }
        Node::FuncCall(call) => call_effects(catalog, search_path, call, out),
        Node::AExpr(e) => operator_effects(catalog, &e.name, e.location, out),
        Node::SubLink(s) => operator_effects(catalog, &s.oper_name, s.location, out),
        Node::SortBy(s) => operator_effects(catalog, &s.use_op, s.location, out),
        // A bare name is a column or a row.
        Node::ColumnRef(c) if c.fields.len() > 1 => {
            attribute_effects(catalog, search_path, c.fields.last(), c.location, out);
        }
        Node::AIndirection(i) => {
            attribute_effects(catalog, search_path, i.indirection.last(), -1, out);
        }
        _ => {}
    }
}

/// What reading a value as a type does: its own input, a domain's checks.
fn cast_effects(catalog: &Catalog, to: Option<&ast::TypeName>, location: i32, out: &mut Effects) {
    let name = to.and_then(type_name).unwrap_or_default();
    out.catalog |= name.starts_with("reg");
    let proof = proof::of_operator(catalog, &format!("::{name}"));
    judge(proof, &format!("the cast to {name}"), location, out);
}

fn value_function_effects(f: &ast::SqlValueFunction, out: &mut Effects) {
    use ast::SqlValueFunctionOp as F;
    match F::try_from(f.op) {
        Ok(F::SvfopCurrentSchema | F::SvfopCurrentCatalog) => out.catalog = true,
        Ok(F::SvfopCurrentRole | F::SvfopCurrentUser | F::SvfopUser | F::SvfopSessionUser) => {}
        _ => out.uses_now = true,
    }
}

pub(super) fn cast_name(cast: &ast::TypeCast) -> Option<&str> {
    type_name(cast.type_name.as_ref()?)
}

fn type_name(name: &ast::TypeName) -> Option<&str> {
    match name.names.last()?.node.as_ref()? {
        Node::String(s) => Some(&s.sval),
        _ => None,
    }
}

fn call_effects(
    catalog: &Catalog,
    search_path: &[String],
    call: &ast::FuncCall,
    out: &mut Effects,
) {
    let (_, name) = name_of(call);
    let location = call.location;
    let is = |list: &[&str]| list.contains(&name);
    if is(&WRITES) || name.starts_with("lo_") || name == "lowrite" {
        out.writes = true;
    }
    if looks_at_catalog(name) {
        out.catalog = true;
    }
    out.types |= name == "pg_typeof";
    let Some(called) = find(catalog, search_path, call) else {
        forbid(out, &format!("function {name} is not known and"), location);
        return;
    };
    judge(called.proof, &format!("function {name}"), location, out);
    if !called.builtin && clock::is_hidden_in(catalog, name) {
        out.uses_now = true;
        out.hidden_now = true;
    }
    if called.proof != Proof::Everywhere {
        // That is worse than anything below.
    } else if is(&clock::NOW) {
        out.uses_now = true;
    } else if is(&PER_ROW) {
        out.volatile_row = true;
    } else if is(&PER_STATEMENT) {
        out.per_statement = true;
    } else if is(&PER_SERVER) || (called.volatility == Volatility::Volatile && !called.aggregate) {
        forbid(out, &format!("function {name} is"), location);
    } else if looks_at_catalog(name) && name != "pg_typeof" && !name.starts_with("pg_get_expr") {
        forbid(
            out,
            &format!("function {name}, which reads each shard's own catalog, is"),
            location,
        );
    }
}

/// Functions that read the catalog, by their names.
pub(super) fn looks_at_catalog(name: &str) -> bool {
    let prefixes = [
        "pg_get_",
        "to_reg",
        "has_",
        "pg_table_is_",
        "pg_type_is_",
        "pg_function_is_",
        "pg_opclass_is_",
        "pg_conversion_is_",
        "pg_collation_is_",
        "pg_ts_",
    ];
    let names = [
        "format_type",
        "obj_description",
        "col_description",
        "shobj_description",
        "current_schema",
        "current_schemas",
        "current_database",
        "current_setting",
        "version",
        "pg_describe_object",
        "pg_identify_object",
        "pg_encoding_to_char",
        "set_config",
        "pg_my_temp_schema",
        "pg_is_other_temp_schema",
        "pg_backend_pid",
        "pg_is_in_recovery",
        "pg_table_size",
        "pg_total_relation_size",
        "pg_relation_size",
        "pg_advisory_unlock_all",
    ];

    prefixes.iter().any(|p| name.starts_with(p)) || names.contains(&name)
}
