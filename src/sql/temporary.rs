//! What a statement does to relations that may be temporary: which it makes, and which it changes.

use pg_query::protobuf::{self as ast, node::Node};

use super::Statement;
use super::classify::string_of;

/// INCLUDING DEFAULTS, GENERATED and CONSTRAINTS: they bring functions and sequences along. Bits of `TableLikeOption`.
const LIKE_EXPRESSIONS: u32 = 1 << 2 | 1 << 3 | 1 << 4;

/// A relation as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationName {
    /// As written; empty without one.
    pub schema: String,
    /// Not quoted.
    pub name: String,
}

/// Work on relations that have a name of their own in the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelationWork {
    /// CREATE TEMPORARY TABLE or VIEW, SELECT INTO TEMPORARY.
    Creates {
        /// The new relation.
        name: String,
        /// Its rows or its query come from a SELECT.
        by_query: bool,
        /// Tables whose columns it gets, by LIKE.
        like: Vec<String>,
        /// Relations of which it becomes a child.
        parents: Vec<RelationName>,
    },
    /// Any other DDL, a write, COPY FROM.
    Changes {
        /// All of them.
        relations: Vec<RelationName>,
        /// By RENAME.
        new_name: Option<String>,
        /// DROP or ALTER … IF EXISTS.
        if_exists: bool,
    },
}

/// What a statement makes or changes; `None` where that cannot be told, or where it is more than tables.
pub fn relation_work(statement: &Statement) -> Option<RelationWork> {
    match &statement.node {
        Node::CreateStmt(c) => created(c),
        Node::CreateTableAsStmt(c) => created_by_query(c.into.as_ref()?.rel.as_ref()?),
        Node::SelectStmt(s) => created_by_query(into_of(s)?.rel.as_ref()?),
        Node::ViewStmt(v) => created_by_query(v.view.as_ref()?),
        Node::DropStmt(d) => dropped(d),
        Node::TruncateStmt(t) => changed(t.relations.iter().map(range_var).collect::<Option<_>>()?),
        Node::AlterTableStmt(a) if a.cmds.iter().all(is_plain_change) => {
            Some(RelationWork::Changes {
                relations: vec![relation(a.relation.as_ref()?)],
                new_name: None,
                if_exists: a.missing_ok,
            })
        }
        Node::RenameStmt(r) => renamed(r),
        Node::IndexStmt(i) => changed(vec![relation(i.relation.as_ref()?)]),
        Node::VacuumStmt(v) if !v.rels.is_empty() => {
            changed(v.rels.iter().map(vacuumed).collect::<Option<_>>()?)
        }
        Node::CopyStmt(c) if c.filename.is_empty() && !c.is_program => {
            changed(vec![relation(c.relation.as_ref()?)])
        }
        Node::InsertStmt(i) => written(i.relation.as_ref(), i.with_clause.as_ref()),
        Node::UpdateStmt(u) => written(u.relation.as_ref(), u.with_clause.as_ref()),
        Node::DeleteStmt(d) => written(d.relation.as_ref(), d.with_clause.as_ref()),
        Node::MergeStmt(m) => written(m.relation.as_ref(), m.with_clause.as_ref()),
        _ => None,
    }
}

/// True for a table made of a SELECT's rows.
pub fn reads_rows(statement: &Statement) -> bool {
    matches!(
        &statement.node,
        Node::CreateTableAsStmt(_) | Node::SelectStmt(_)
    )
}

/// True for a statement that may change what others mean: their columns, types or functions.
pub fn changes_schema(statement: &Statement) -> bool {
    let new = |v: Option<&ast::RangeVar>| !v.is_some_and(is_temporary);
    match &statement.node {
        Node::CreateStmt(c) => new(c.relation.as_ref()),
        Node::CreateTableAsStmt(c) => new(c.into.as_ref().and_then(|i| i.rel.as_ref())),
        // Rows, how they lie, and who may see them.
        Node::TruncateStmt(_)
        | Node::VacuumStmt(_)
        | Node::ClusterStmt(_)
        | Node::ReindexStmt(_)
        | Node::RefreshMatViewStmt(_)
        | Node::IndexStmt(_)
        | Node::CommentStmt(_)
        | Node::GrantStmt(_) => false,
        _ => super::classify(statement) == super::Kind::Ddl,
    }
}

/// The body of a DO block in PL/pgSQL.
pub fn do_body(statement: &Statement) -> Option<String> {
    let Node::DoStmt(block) = &statement.node else {
        return None;
    };
    let option = |name: &str| {
        let mut all = block.args.iter().filter_map(|n| match &n.node {
            Some(Node::DefElem(d)) if d.defname == name => Some(d),
            _ => None,
        });
        all.next().map(|d| string_of(d.arg.as_deref()))
    };
    match option("language") {
        None => {}
        Some(Some(language)) if language.eq_ignore_ascii_case("plpgsql") => {}
        Some(_) => return None,
    }
    option("as")?
}

fn is_temporary(v: &ast::RangeVar) -> bool {
    v.relpersistence == "t" || v.schemaname == "pg_temp"
}

fn relation(v: &ast::RangeVar) -> RelationName {
    RelationName {
        schema: v.schemaname.clone(),
        name: v.relname.clone(),
    }
}

fn range_var(node: &ast::Node) -> Option<RelationName> {
    match &node.node {
        Some(Node::RangeVar(v)) => Some(relation(v)),
        _ => None,
    }
}

fn changed(relations: Vec<RelationName>) -> Option<RelationWork> {
    Some(RelationWork::Changes {
        relations,
        new_name: None,
        if_exists: false,
    })
}

fn created(create: &ast::CreateStmt) -> Option<RelationWork> {
    let new = create.relation.as_ref().filter(|v| is_temporary(v))?;
    let mut like = Vec::new();
    for element in &create.table_elts {
        if let Some(Node::TableLikeClause(clause)) = &element.node {
            if clause.options & LIKE_EXPRESSIONS != 0 {
                return None;
            }
            like.push(clause.relation.as_ref()?.relname.clone());
        }
    }
    let parents = create.inh_relations.iter().map(range_var);
    Some(RelationWork::Creates {
        name: new.relname.clone(),
        by_query: false,
        like,
        parents: parents.collect::<Option<_>>()?,
    })
}

fn created_by_query(new: &ast::RangeVar) -> Option<RelationWork> {
    is_temporary(new).then(|| RelationWork::Creates {
        name: new.relname.clone(),
        by_query: true,
        like: Vec::new(),
        parents: Vec::new(),
    })
}

/// INTO stands in the first arm of a set operation.
fn into_of(select: &ast::SelectStmt) -> Option<&ast::IntoClause> {
    match &select.into_clause {
        Some(into) => Some(into),
        None => into_of(select.larg.as_deref()?),
    }
}

fn dropped(drop: &ast::DropStmt) -> Option<RelationWork> {
    use ast::ObjectType as O;
    let kinds = [O::ObjectTable, O::ObjectView, O::ObjectIndex];
    if !kinds.iter().any(|k| *k as i32 == drop.remove_type) {
        return None;
    }
    let name = |node: &ast::Node| {
        let Some(Node::List(list)) = &node.node else {
            return None;
        };
        let parts: Option<Vec<_>> = list.items.iter().map(|i| string_of(Some(i))).collect();
        match parts?.as_slice() {
            [name] => Some(RelationName {
                schema: String::new(),
                name: name.clone(),
            }),
            [schema, name] => Some(RelationName {
                schema: schema.clone(),
                name: name.clone(),
            }),
            _ => None,
        }
    };
    Some(RelationWork::Changes {
        relations: drop.objects.iter().map(name).collect::<Option<_>>()?,
        new_name: None,
        if_exists: drop.missing_ok,
    })
}

/// ALTER TABLE that changes only the table itself.
fn is_plain_change(command: &ast::Node) -> bool {
    use ast::AlterTableType as T;
    let plain = [
        T::AtAddColumn,
        T::AtColumnDefault,
        T::AtDropNotNull,
        T::AtSetNotNull,
        T::AtSetStatistics,
        T::AtSetOptions,
        T::AtResetOptions,
        T::AtSetStorage,
        T::AtDropColumn,
        T::AtAddConstraint,
        T::AtDropConstraint,
        T::AtValidateConstraint,
        T::AtAlterColumnType,
        T::AtSetRelOptions,
        T::AtResetRelOptions,
        T::AtAddIdentity,
        T::AtSetIdentity,
        T::AtDropIdentity,
    ];
    matches!(&command.node, Some(Node::AlterTableCmd(c)) if plain.iter().any(|t| *t as i32 == c.subtype))
}

fn renamed(rename: &ast::RenameStmt) -> Option<RelationWork> {
    use ast::ObjectType as O;
    let kinds = [
        O::ObjectTable,
        O::ObjectView,
        O::ObjectIndex,
        O::ObjectColumn,
        O::ObjectTabconstraint,
    ];
    if !kinds.iter().any(|k| *k as i32 == rename.rename_type) {
        return None;
    }
    Some(RelationWork::Changes {
        relations: vec![relation(rename.relation.as_ref()?)],
        new_name: Some(rename.newname.clone()),
        if_exists: rename.missing_ok,
    })
}

fn vacuumed(node: &ast::Node) -> Option<RelationName> {
    match &node.node {
        Some(Node::VacuumRelation(v)) => v.relation.as_ref().map(relation),
        _ => None,
    }
}

/// A WITH may change other tables.
fn written(target: Option<&ast::RangeVar>, with: Option<&ast::WithClause>) -> Option<RelationWork> {
    let reads = |node: &ast::Node| {
        let Some(Node::CommonTableExpr(cte)) = &node.node else {
            return false;
        };
        let query = cte.ctequery.as_ref().and_then(|q| q.node.as_ref());
        matches!(query, Some(Node::SelectStmt(_)))
    };
    match with.is_none_or(|w| w.ctes.iter().all(reads)) {
        true => changed(vec![relation(target?)]),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(sql: &str) -> Option<RelationWork> {
        relation_work(&crate::sql::parse(sql).expect("valid")[0])
    }

    #[test]
    fn what_is_made_is_told_only_where_it_is_temporary() {
        for sql in [
            "create temp table t (a int)",
            "create table pg_temp.t (a int, like u)",
            "create temporary table t as select 1",
            "select 1 into temp t",
            "select 1 into temp t union select 2",
            "create temp view t as select 1",
        ] {
            let made = work(sql);
            assert!(
                matches!(&made, Some(RelationWork::Creates { name, .. }) if name == "t"),
                "{sql}: {made:?}"
            );
        }
        for sql in [
            "create table t (a int)",
            "create table t as select 1",
            "create temp table t (like u including all)",
            "create temp sequence s",
            "create function pg_temp.f() returns int language sql as 'select 1'",
        ] {
            assert_eq!(work(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_is_changed_is_told_where_it_is_all() {
        for sql in [
            "drop table t",
            "drop table if exists t cascade",
            "truncate t",
            "alter table t add column b int",
            "alter table t rename to u",
            "create index on t (a)",
            "analyze t",
            "copy t from stdin",
            "insert into t select 1",
            "with x as (select 1) update t set a = 1",
            "delete from t",
            "merge into t using u on true when matched then delete",
        ] {
            let done = work(sql);
            assert!(
                matches!(&done, Some(RelationWork::Changes { relations, .. }) if relations.len() == 1 && relations[0].name == "t"),
                "{sql}: {done:?}"
            );
        }
        for sql in [
            "with x as (delete from u returning *) insert into t select * from x",
            "alter table t inherit u",
            "vacuum",
            "copy (select 1) to stdout",
            "copy t from '/tmp/x'",
            "drop schema s",
            "select 1",
        ] {
            assert_eq!(work(sql), None, "{sql}");
        }
    }

    #[test]
    fn blocks_have_a_body() {
        let body = |sql: &str| do_body(&crate::sql::parse(sql).expect("valid")[0]);
        assert_eq!(
            body("do $$begin null; end$$").as_deref(),
            Some("begin null; end")
        );
        assert_eq!(
            body("do language PLpgSQL 'begin end'").as_deref(),
            Some("begin end")
        );
        assert_eq!(body("do language plpython3u 'x'"), None);
        assert_eq!(body("select 1"), None);
    }
}
