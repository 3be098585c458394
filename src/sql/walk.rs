//! Walks over the part of the tree that SELECTs are made of. A node outside that part is reported, never skipped: what
//! was not looked at cannot be proved.

use pg_query::protobuf::{self as ast, node::Node};

/// A node's direct part: an expression or FROM item, or a SELECT that is a set operation's arm.
#[derive(Clone, Copy)]
pub enum Child<'a> {
    /// Any other node.
    Node(&'a ast::Node),
    /// A set operation's arm.
    Select(&'a ast::SelectStmt),
}

/// As [`Child`], to be changed.
pub enum ChildMut<'a> {
    /// Any other node.
    Node(&'a mut ast::Node),
    /// A set operation's arm.
    Select(&'a mut ast::SelectStmt),
}

/// Writes a function over a node's children once for shared and once for exclusive references.
macro_rules! children_function {
    ($children:ident, $select_children:ident, $window:ident, $with:ident, $child:ident, $iter:ident, $as_opt:ident, $($mutable:tt)?) => {
        fn $window<'a>(w: &'a $($mutable)? ast::WindowDef, out: &mut Vec<$child<'a>>) {
            out.extend(w.partition_clause.$iter().map($child::Node));
            out.extend(w.order_clause.$iter().map($child::Node));
            out.extend(w.start_offset.$as_opt().map($child::Node));
            out.extend(w.end_offset.$as_opt().map($child::Node));
        }

        fn $with<'a>(w: &'a $($mutable)? ast::WithClause, out: &mut Vec<$child<'a>>) {
            out.extend(w.ctes.$iter().map($child::Node));
        }

        /// Direct parts of a SELECT in a fixed order: WITH, arms, FROM, then the rest.
        pub fn $select_children<'a>(s: &'a $($mutable)? ast::SelectStmt) -> Vec<$child<'a>> {
            let mut out = Vec::new();
            if let Some(w) = & $($mutable)? s.with_clause {
                $with(w, &mut out);
            }
            out.extend(s.larg.$as_opt().map($child::Select));
            out.extend(s.rarg.$as_opt().map($child::Select));
            out.extend(s.from_clause.$iter().map($child::Node));
            out.extend(s.where_clause.$as_opt().map($child::Node));
            out.extend(s.target_list.$iter().map($child::Node));
            out.extend(s.values_lists.$iter().map($child::Node));
            out.extend(s.group_clause.$iter().map($child::Node));
            out.extend(s.having_clause.$as_opt().map($child::Node));
            out.extend(s.window_clause.$iter().map($child::Node));
            out.extend(s.distinct_clause.$iter().map($child::Node));
            out.extend(s.sort_clause.$iter().map($child::Node));
            out.extend(s.limit_offset.$as_opt().map($child::Node));
            out.extend(s.limit_count.$as_opt().map($child::Node));
            out
        }

        /// Direct parts of a node; `None` for a kind of node that no SELECT pgbraid understands contains.
        pub fn $children<'a>(node: &'a $($mutable)? ast::Node) -> Option<Vec<$child<'a>>> {
            let mut out = Vec::new();
            let Some(node) = & $($mutable)? node.node else {
                return Some(out);
            };
            macro_rules! list { ($e:expr) => { out.extend($e.$iter().map($child::Node)) } }
            macro_rules! one { ($e:expr) => { out.extend($e.$as_opt().map($child::Node)) } }
            match node {
                Node::ColumnRef(_) | Node::ParamRef(_) | Node::AConst(_) | Node::AStar(_) | Node::String(_)
                | Node::Integer(_) | Node::Float(_) | Node::SqlvalueFunction(_) | Node::RangeVar(_)
                | Node::SetToDefault(_) | Node::LockingClause(_) | Node::ColumnDef(_) => {}
                Node::AExpr(e) => { one!(e.lexpr); one!(e.rexpr); }
                Node::BoolExpr(e) => list!(e.args),
                Node::NullTest(e) => one!(e.arg),
                Node::BooleanTest(e) => one!(e.arg),
                Node::SubLink(e) => { one!(e.testexpr); one!(e.subselect); }
                Node::FuncCall(e) => {
                    list!(e.args);
                    list!(e.agg_order);
                    one!(e.agg_filter);
                    if let Some(w) = & $($mutable)? e.over { $window(w, &mut out); }
                }
                Node::AIndices(e) => { one!(e.lidx); one!(e.uidx); }
                Node::AIndirection(e) => { one!(e.arg); list!(e.indirection); }
                Node::AArrayExpr(e) => list!(e.elements),
                Node::ResTarget(e) => one!(e.val),
                Node::TypeCast(e) => one!(e.arg),
                Node::CollateClause(e) => one!(e.arg),
                Node::SortBy(e) => one!(e.node),
                Node::WindowDef(w) => $window(w, &mut out),
                Node::CaseExpr(e) => { one!(e.arg); list!(e.args); one!(e.defresult); }
                Node::CaseWhen(e) => { one!(e.expr); one!(e.result); }
                Node::CoalesceExpr(e) => list!(e.args),
                Node::MinMaxExpr(e) => list!(e.args),
                Node::RowExpr(e) => list!(e.args),
                Node::NamedArgExpr(e) => one!(e.arg),
                Node::GroupingFunc(e) => list!(e.args),
                Node::GroupingSet(e) => list!(e.content),
                Node::List(e) => list!(e.items),
                Node::XmlExpr(e) => { list!(e.named_args); list!(e.args); }
                Node::XmlSerialize(e) => one!(e.expr),
                Node::RangeSubselect(e) => one!(e.subquery),
                Node::RangeFunction(e) => list!(e.functions),
                Node::JoinExpr(e) => { one!(e.larg); one!(e.rarg); one!(e.quals); }
                Node::RangeTableSample(e) => { one!(e.relation); list!(e.args); one!(e.repeatable); }
                Node::RangeTableFunc(e) => {
                    one!(e.docexpr); one!(e.rowexpr); list!(e.namespaces); list!(e.columns);
                }
                Node::RangeTableFuncCol(e) => { one!(e.colexpr); one!(e.coldefexpr); }
                Node::CommonTableExpr(e) => one!(e.ctequery),
                Node::WithClause(w) => $with(w, &mut out),
                Node::SelectStmt(s) => return Some($select_children(s)),
                _ => return None,
            }
            Some(out)
        }
    };
}

children_function!(
    children,
    select_children,
    window_children,
    with_children,
    Child,
    iter,
    as_deref,
);
children_function!(
    children_mut,
    select_children_mut,
    window_children_mut,
    with_children_mut,
    ChildMut,
    iter_mut,
    as_deref_mut,
    mut
);

/// Calls `f` for a node and, where it returns true, for what is below it. False when some node's kind is not known.
pub fn walk<'a>(child: Child<'a>, f: &mut dyn FnMut(Child<'a>) -> bool) -> bool {
    if !f(child) {
        return true;
    }
    let parts = match child {
        Child::Node(n) => children(n),
        Child::Select(s) => Some(select_children(s)),
    };
    let Some(parts) = parts else {
        return false;
    };
    let mut known = true;
    for part in parts {
        known &= walk(part, f);
    }
    known
}

/// As [`walk`], over what is below a statement.
pub fn walk_statement<'a>(statement: &'a Node, f: &mut dyn FnMut(Child<'a>) -> bool) -> bool {
    let Node::SelectStmt(select) = statement else {
        return false;
    };
    let mut known = true;
    for part in select_children(select) {
        known &= walk(part, f);
    }
    known
}

/// True when `f` holds for the node or any below it.
pub fn any_node(node: &ast::Node, f: &mut dyn FnMut(&Node) -> bool) -> bool {
    let mut found = false;
    walk(Child::Node(node), &mut |c| {
        if let Child::Node(ast::Node { node: Some(n) }) = c {
            found = found || f(n);
        }
        !found
    });
    found
}

/// Lower-case names of the functions a statement calls, without schema, each once. Functions behind operators, casts and
/// views are not among them.
pub fn functions_called(node: &Node) -> Vec<String> {
    statement_functions(node)
        .into_iter()
        .map(|(_, name)| name)
        .collect()
}

/// As [`functions_called`], with the schema where one is written.
pub fn statement_functions(node: &Node) -> Vec<(Option<String>, String)> {
    let mut names: Vec<(Option<String>, String)> = Vec::new();
    walk_statement(node, &mut |c| {
        if let Child::Node(ast::Node {
            node: Some(Node::FuncCall(call)),
        }) = c
        {
            let mut parts = call.funcname.iter().filter_map(|n| match &n.node {
                Some(Node::String(s)) => Some(s.sval.clone()),
                _ => None,
            });
            let name = match (parts.next(), parts.next()) {
                (Some(schema), Some(name)) => (Some(schema), name),
                (Some(name), None) => (None, name),
                _ => return true,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        true
    });
    names
}
