//! Partials of several shards in, the client's rows out.

use super::super::operator::testing::{Row, Script, Step, collect};
use super::super::row::testing::run;
use super::super::testing::bound;
use super::*;
use crate::plan::{Collation, CollationProvider, FinalFunction};
use crate::types::numeric::Numeric;
use crate::types::oid;

type Value = Option<Vec<u8>>;

fn text(value: &str) -> Value {
    Some(value.as_bytes().to_vec())
}

fn int8(value: i64) -> Value {
    Some(value.to_be_bytes().to_vec())
}

fn numeric(value: i64) -> Value {
    let mut out = BytesMut::new();
    Numeric::from(value).put_binary(&mut out).unwrap();
    Some(out.to_vec())
}

fn float8(value: f64) -> Value {
    Some(value.to_be_bytes().to_vec())
}

fn step(rows: &[Row]) -> Step {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|r| r.iter().map(|v| v.as_deref()).collect())
        .collect();
    Step::Run(run(&rows.iter().map(|r| &r[..]).collect::<Vec<_>>()))
}

/// What the client gets, in text: `groups` group columns, then one column an aggregate.
struct Case {
    groups: usize,
    functions: Vec<FinalFunction>,
    /// Types of the shards' columns.
    partials: Vec<u32>,
    /// Types of the client's columns.
    results: Vec<u32>,
    memory_max: usize,
}

impl Case {
    fn run(self, inputs: Vec<Vec<Step>>) -> Result<Vec<Vec<Option<String>>>, ServerError> {
        let mut source = Script::new(inputs).with_types(&self.partials);
        let described = Script::new(vec![]).with_types(&self.results).columns;
        let mut bound = bound();
        bound.columns = described
            .into_iter()
            .map(|c| ColumnDescription { format: 0, ..c })
            .collect();
        bound.memory_max = self.memory_max;
        let groups = (0..self.groups).map(OutputColumn::Group);
        let aggregates = (0..self.functions.len()).map(OutputColumn::Aggregate);
        let functions = self.functions.into_iter().map(|function| Final {
            function,
            text: "aggregate".into(),
        });
        let mut operator = FinalAggregate::new(
            Arc::new(bound),
            self.groups,
            functions.collect(),
            groups.chain(aggregates).collect(),
            (source.inputs.len(), false),
        );
        let rows = collect(&mut operator, &mut source)?;
        let text = |v: Value| v.map(|v| String::from_utf8(v).unwrap());
        let mut rows: Vec<Vec<_>> = rows
            .into_iter()
            .map(|r| r.into_iter().map(text).collect())
            .collect();
        rows.sort();
        Ok(rows)
    }
}

fn one(function: FinalFunction, partials: &[u32], result: u32) -> Case {
    Case {
        groups: 0,
        functions: vec![function],
        partials: partials.to_vec(),
        results: vec![result],
        memory_max: 1 << 20,
    }
}

/// The result of one aggregate without groups over one row a shard.
fn single(case: Case, rows: Vec<Row>) -> Result<Option<String>, ServerError> {
    let inputs = rows.into_iter().map(|r| vec![Step::Pending, step(&[r])]);
    let mut rows = case.run(inputs.collect())?;
    assert_eq!(rows.len(), 1);
    Ok(rows.remove(0).remove(0))
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn equal_values_of_all_shards_count_once() {
    let case = || Case {
        groups: 1,
        functions: vec![
            FinalFunction::CountDistinct { column: 1 },
            FinalFunction::Count { column: 2 },
        ],
        partials: vec![oid::TEXT, oid::INT8, oid::INT8],
        results: vec![oid::TEXT, oid::INT8, oid::INT8],
        memory_max: 1 << 20,
    };
    let rows = case().run(vec![
        vec![step(&[
            vec![text("de"), int8(1), int8(4)],
            vec![text("de"), None, int8(2)],
            vec![text("fr"), None, int8(1)],
        ])],
        vec![step(&[
            vec![text("de"), int8(1), int8(1)],
            vec![text("de"), int8(2), int8(1)],
        ])],
    ]);
    let row = |v: [&str; 3]| v.map(|v| Some(v.to_owned())).to_vec();
    assert_eq!(
        rows.unwrap(),
        [row(["de", "2", "8"]), row(["fr", "0", "1"])]
    );
    let many = (0..5000).map(|n| vec![text("de"), int8(n), int8(1)]);
    let many = vec![vec![step(&many.collect::<Vec<_>>())]];
    let small = Case {
        memory_max: 64 << 10,
        ..case()
    };
    assert_eq!(small.run(many).unwrap_err().sqlstate(), "53200");
}

#[test]
fn groups_of_all_shards_meet() {
    let case = Case {
        groups: 1,
        functions: vec![
            FinalFunction::Count { column: 1 },
            FinalFunction::Sum { column: 2 },
        ],
        partials: vec![oid::TEXT, oid::INT8, oid::NUMERIC],
        results: vec![oid::TEXT, oid::INT8, oid::NUMERIC],
        memory_max: 1 << 20,
    };
    let rows = case.run(vec![
        vec![step(&[
            vec![text("de"), int8(2), numeric(10)],
            vec![None, int8(1), None],
        ])],
        vec![
            Step::Pending,
            step(&[vec![text("de"), int8(3), numeric(5)]]),
        ],
        vec![step(&[vec![text(""), int8(7), numeric(-1)]])],
    ]);
    assert_eq!(
        rows.unwrap(),
        [
            vec![None, some("1"), None],
            vec![some(""), some("7"), some("-1")],
            vec![some("de"), some("5"), some("15")],
        ]
    );
}

#[test]
fn many_groups_come_out_in_several_runs() {
    let case = Case {
        groups: 1,
        functions: vec![
            FinalFunction::Count { column: 1 },
            FinalFunction::Sum { column: 1 },
        ],
        partials: vec![oid::TEXT, oid::INT8],
        results: vec![oid::TEXT, oid::INT8, oid::INT8],
        memory_max: 1 << 24,
    };
    let rows: Vec<Row> = (0..20_000)
        .map(|v| vec![text(&v.to_string()), int8(v)])
        .collect();
    let inputs = vec![vec![step(&rows)], vec![step(&rows)]];
    let got = case.run(inputs).unwrap();
    assert_eq!(got.len(), 20_000);
    for row in got {
        let key: i64 = row[0].as_ref().unwrap().parse().unwrap();
        let double = Some((2 * key).to_string());
        assert_eq!(row[1..], [double.clone(), double]);
    }
}

#[test]
fn what_is_about_to_grow_counts_with_its_copy() {
    assert_eq!(growing(500, 1000, 8), 8_000);
    assert_eq!(growing(875, 1000, 8), 24_000);
    assert_eq!(growing(0, 0, 8), 0);
}

#[test]
fn no_rows_make_a_row_without_groups_and_none_with_them() {
    let count = one(FinalFunction::Count { column: 0 }, &[oid::INT8], oid::INT8);
    assert_eq!(count.run(vec![vec![]]).unwrap(), [[some("0")]]);
    let sum = one(FinalFunction::Sum { column: 0 }, &[oid::INT8], oid::INT8);
    assert_eq!(sum.run(vec![vec![]]).unwrap(), [[None]]);
    let grouped = Case {
        groups: 1,
        functions: vec![],
        partials: vec![oid::INT8],
        results: vec![oid::INT8],
        memory_max: 1 << 20,
    };
    assert!(grouped.run(vec![vec![], vec![]]).unwrap().is_empty());
}

#[test]
fn sums_overflow_as_postgresql_does() {
    let sum = |type_oid| one(FinalFunction::Sum { column: 0 }, &[type_oid], type_oid);
    let rows = vec![vec![int8(i64::MAX)], vec![int8(1)]];
    let error = single(sum(oid::INT8), rows).unwrap_err();
    assert_eq!(error.sqlstate(), "22003");
    assert_eq!(error.message(), "bigint out of range");
    let rows = vec![vec![float8(f64::MAX)], vec![float8(f64::MAX)]];
    let error = single(sum(oid::FLOAT8), rows).unwrap_err();
    assert_eq!(error.message(), "value out of range: overflow");
    let rows = vec![vec![float8(f64::INFINITY)], vec![float8(1.0)]];
    assert_eq!(single(sum(oid::FLOAT8), rows).unwrap(), some("Infinity"));
}

#[test]
fn averages_divide_what_was_added() {
    let average = |type_oid, result| {
        let function = FinalFunction::Average { sum: 0, count: 1 };
        one(function, &[type_oid, oid::INT8], result)
    };
    let rows = vec![
        vec![numeric(10), int8(2)],
        vec![None, int8(0)],
        vec![numeric(0), int8(1)],
    ];
    assert_eq!(
        single(average(oid::NUMERIC, oid::NUMERIC), rows).unwrap(),
        some("3.3333333333333333")
    );
    let rows = vec![vec![int8(7), int8(2)]];
    assert_eq!(
        single(average(oid::INT8, oid::NUMERIC), rows).unwrap(),
        some("3.5000000000000000")
    );
    let rows = vec![vec![float8(1.0), int8(4)], vec![None, int8(0)]];
    assert_eq!(
        single(average(oid::FLOAT8, oid::FLOAT8), rows).unwrap(),
        some("0.25")
    );
    let rows = vec![vec![None, int8(0)]];
    assert_eq!(
        single(average(oid::NUMERIC, oid::NUMERIC), rows).unwrap(),
        None
    );
}

#[test]
fn extremes_go_out_as_their_shard_wrote_them() {
    let collation = Some(Collation {
        name: "C".into(),
        provider: CollationProvider::Bytes,
        locale: "C".into(),
        deterministic: true,
        version: None,
    });
    let rows = || {
        vec![
            vec![text("ten"), int8(10)],
            vec![text("minus"), int8(-1)],
            vec![None, None],
        ]
    };
    let (value, key) = (0, 1);
    let min = FinalFunction::Min {
        value,
        key,
        collation: None,
    };
    let max = FinalFunction::Max {
        value,
        key,
        collation: None,
    };
    let types = [oid::TEXT, oid::INT8];
    assert_eq!(
        single(one(min, &types, oid::TEXT), rows()).unwrap(),
        some("minus")
    );
    assert_eq!(
        single(one(max, &types, oid::TEXT), rows()).unwrap(),
        some("ten")
    );
    let max = FinalFunction::Max {
        value,
        key,
        collation,
    };
    let types = [oid::TEXT, oid::TEXT];
    let rows = vec![
        vec![text("x"), text("abcdefghB")],
        vec![text("y"), text("abcdefgha")],
    ];
    assert_eq!(
        single(one(max, &types, oid::TEXT), rows).unwrap(),
        some("y")
    );
    let min = FinalFunction::Min {
        value,
        key,
        collation: None,
    };
    let rows = vec![vec![None, None]];
    assert_eq!(
        single(one(min, &[oid::TEXT, oid::INT8], oid::TEXT), rows).unwrap(),
        None
    );
}

#[test]
fn booleans_ignore_nulls() {
    let bit = |b: u8| Some(vec![b]);
    let rows = || vec![vec![bit(1)], vec![None], vec![bit(0)]];
    let and = FinalFunction::BoolAnd { column: 0 };
    let or = FinalFunction::BoolOr { column: 0 };
    assert_eq!(
        single(one(and.clone(), &[oid::BOOL], oid::BOOL), rows()).unwrap(),
        some("f")
    );
    assert_eq!(
        single(one(or, &[oid::BOOL], oid::BOOL), rows()).unwrap(),
        some("t")
    );
    assert_eq!(
        single(one(and, &[oid::BOOL], oid::BOOL), vec![vec![None]]).unwrap(),
        None
    );
}

#[test]
fn rows_that_do_not_fit_are_an_error() {
    let sum = || one(FinalFunction::Sum { column: 0 }, &[oid::INT8], oid::INT8);
    for row in [vec![Some(vec![1, 2])], vec![int8(1), int8(2)], vec![]] {
        let error = single(sum(), vec![row]).unwrap_err();
        assert_eq!(error.sqlstate(), "XX000");
    }
}

#[test]
fn too_many_groups_are_refused() {
    let case = Case {
        groups: 1,
        functions: vec![FinalFunction::Count { column: 1 }],
        partials: vec![oid::INT8, oid::INT8],
        results: vec![oid::INT8, oid::INT8],
        memory_max: 10_000,
    };
    let rows: Vec<Row> = (0..1000).map(|v| vec![int8(v), int8(v)]).collect();
    assert_eq!(
        case.run(vec![vec![step(&rows)]]).unwrap_err().sqlstate(),
        "53200"
    );
}

#[test]
fn a_lost_shard_is_an_error_and_no_short_sum() {
    let sum = one(FinalFunction::Sum { column: 0 }, &[oid::INT8], oid::INT8);
    let fail = Step::Fail(ServerError::new("08006", "lost"));
    let inputs = vec![vec![step(&[vec![int8(1)]])], vec![fail]];
    assert_eq!(sum.run(inputs).unwrap_err().sqlstate(), "08006");
}

#[test]
fn an_extreme_that_gives_way_to_another_is_held_no_more() {
    let max = FinalFunction::Max {
        value: 0,
        key: 1,
        collation: None,
    };
    let case = Case {
        memory_max: 10_000,
        ..one(max, &[oid::TEXT, oid::INT8], oid::TEXT)
    };
    let rows: Vec<Row> = (0..2000)
        .map(|v| vec![text(&v.to_string()), int8(v)])
        .collect();
    let rows = case.run(vec![vec![step(&rows)]]).unwrap();
    assert_eq!(rows, [[some("1999")]]);
}
