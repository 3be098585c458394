//! What expressions are built with, by the type of their result. `{}` stands for an argument.

use super::types::Type::{self, *};

/// A function, operator or cast.
pub struct Form {
    pub result: Type,
    pub template: &'static str,
    pub arguments: &'static [Type],
}

const fn form(result: Type, template: &'static str, arguments: &'static [Type]) -> Form {
    Form {
        result,
        template,
        arguments,
    }
}

/// None of them fails on the values there are, for which rows are evaluated is PostgreSQL's choice.
pub const FORMS: &[Form] = &[
    form(Int, "({} + {})", &[Int, Int]),
    form(Int, "({} - {})", &[Int, Int]),
    form(Int, "({} % 7)", &[Int]),
    form(Int, "({} * 2)", &[Int]),
    form(Int, "({} / 3)", &[Int]),
    form(Int, "({} / nullif({}, 0))", &[Int, Int]),
    form(Int, "(- {})", &[Int]),
    form(Int, "abs({})", &[Int]),
    form(Int, "({})::int8", &[Int]),
    form(Int, "(({}) % 1000)::int4", &[Int]),
    form(Int, "add_one({})", &[Int]),
    form(Int, "length({})", &[Text]),
    form(Int, "position('a' in {})", &[Text]),
    form(Int, "cardinality({})", &[Ints]),
    form(Int, "cardinality({})", &[Texts]),
    form(Int, "({})[1]", &[Ints]),
    form(Int, "lower({})", &[Range]),
    form(Int, "({}).a", &[Pair]),
    form(Int, "({} ->> 'age')::int4", &[Jsonb]),
    form(Int, "extract(day from {})::int4", &[Timestamp]),
    form(Int, "extract(month from {})::int8", &[Timestamptz]),
    form(Int, "octet_length({})", &[Bytea]),
    form(Int, "width_bucket(({})::numeric, 0, 100, 4)", &[Int]),
    form(Int, "sign({})::int4", &[Int]),
    form(Numeric, "({} + {})", &[Numeric, Numeric]),
    form(Numeric, "({} - {})", &[Numeric, Numeric]),
    form(Numeric, "({} * 2)", &[Numeric]),
    form(Numeric, "({} / 4)", &[Numeric]),
    form(Numeric, "({} / nullif({}, 0))", &[Numeric, Int]),
    form(Numeric, "round({}, 1)", &[Numeric]),
    form(Numeric, "abs({})", &[Numeric]),
    form(Numeric, "trim_scale({})", &[Numeric]),
    form(Numeric, "({})::numeric", &[Int]),
    form(Numeric, "({})::numeric(12, 2)", &[Int]),
    form(Numeric, "({})::numeric", &[Money]),
    form(Float, "({} + {})", &[Float, Float]),
    form(Float, "({} * 0.5)", &[Float]),
    form(Float, "abs({})", &[Float]),
    form(Float, "({})::float8", &[Int]),
    form(Text, "upper({})", &[Text]),
    form(Text, "lower({})", &[Text]),
    form(Text, "initcap({})", &[Text]),
    form(Text, "left({}, 3)", &[Text]),
    form(Text, "substr({}, 2)", &[Text]),
    form(Text, "reverse({})", &[Text]),
    form(Text, "replace({}, 'a', 'e')", &[Text]),
    form(Text, "({} || {})", &[Text, Text]),
    form(Text, "({} || '-' || {})", &[Text, Int]),
    form(Text, "concat({}, {})", &[Text, Int]),
    form(Text, "concat_ws('/', {}, {})", &[Text, Text]),
    form(Text, "format('%s-%s', {}, {})", &[Int, Text]),
    form(Text, "md5({})", &[Text]),
    form(Text, "({})::text", &[Int]),
    form(Text, "({})::text", &[Date]),
    form(Text, "({})::text", &[Numeric]),
    form(Text, "({})::text", &[Bool]),
    form(Text, "({})::text", &[Mood]),
    form(Text, "({})::text", &[Uuid]),
    form(Text, "({})::text", &[Bpchar]),
    form(Text, "({})::text", &[Timestamptz]),
    form(Text, "({})::varchar(5)", &[Text]),
    form(Text, "to_char({}, 'YYYY-MM')", &[Timestamptz]),
    form(Text, "({} ->> 'lang')", &[Jsonb]),
    form(Text, "({})[1]", &[Texts]),
    form(Text, "array_to_string({}, ',')", &[Texts]),
    form(Text, "({}).b", &[Pair]),
    form(Text, "host({})", &[Inet]),
    form(CText, "({} collate \"C\")", &[Text]),
    form(Bpchar, "({})::char(8)", &[Text]),
    form(Date, "({} + 1)", &[Date]),
    form(Date, "({} + ({} % 7)::int4)", &[Date, Int]),
    form(Date, "({})::date", &[Timestamp]),
    form(Date, "({})::date", &[Timestamptz]),
    form(Timestamp, "date_trunc('day', {})", &[Timestamp]),
    form(Timestamp, "({} at time zone 'UTC')", &[Timestamptz]),
    form(Timestamptz, "date_trunc('month', {})", &[Timestamptz]),
    form(Timestamptz, "({} + interval '1 day')", &[Timestamptz]),
    form(Interval, "({} - {})", &[Timestamp, Timestamp]),
    form(Interval, "({} + {})", &[Interval, Interval]),
    form(Interval, "make_interval(days => ({} % 9)::int4)", &[Int]),
    form(Time, "({})::time", &[Timestamp]),
    form(Bytea, "convert_to({}, 'UTF8')", &[Text]),
    form(Money, "({} * 2)", &[Money]),
    form(Money, "({} + {})", &[Money, Money]),
    form(Jsonb, "jsonb_build_object('a', {})", &[Int]),
    form(Jsonb, "to_jsonb({})", &[Text]),
    form(Jsonb, "({} -> 'a')", &[Jsonb]),
    form(Jsonb, "({} || jsonb_build_object('z', {}))", &[Jsonb, Int]),
    form(Ints, "array[{}, {}]::int8[]", &[Int, Int]),
    form(Ints, "array_append(({})::int8[], ({})::int8)", &[Ints, Int]),
    form(Texts, "array[{}, {}]::text[]", &[Text, Text]),
    form(Texts, "string_to_array({}, ' ')", &[Text]),
    form(Range, "int4range(0, abs({} % 1000)::int4)", &[Int]),
    form(Pair, "row(({} % 1000)::int4, {})::pair", &[Int, Text]),
    form(Opaque, "to_json({})", &[Text]),
    form(Opaque, "row({}, {})", &[Int, Text]),
    form(Opaque, "point({}, 0)", &[Float]),
    form(Bool, "({} like 'a%')", &[Text]),
    form(Bool, "({} ilike '%E%')", &[Text]),
    form(Bool, "({} ~ '^[a-f]')", &[Text]),
    form(Bool, "starts_with({}, 'v')", &[Text]),
    form(Bool, "({} not like '_')", &[Text]),
    form(Bool, "({} @> ({} % 1000)::int4)", &[Range, Int]),
    form(Bool, "isempty({})", &[Range]),
    form(Bool, "({} && {})", &[Range, Range]),
    form(Bool, "({} = any ({}))", &[Text, Texts]),
    form(Bool, "(({})::int8 = any (({})::int8[]))", &[Int, Ints]),
    form(Bool, "({} <> all ({}))", &[Text, Texts]),
    form(Bool, "({} ? 'age')", &[Jsonb]),
    form(Bool, "({} @> '{\"n\": 1}')", &[Jsonb]),
    form(Bool, "({} % 2 = 0)", &[Int]),
    form(Bool, "({} is true)", &[Bool]),
    form(Bool, "({} is not true)", &[Bool]),
    form(Bool, "({} is unknown)", &[Bool]),
    form(Bool, "({} = {})", &[Bool, Bool]),
    form(Bool, "(({}, {}) = ({}, {}))", &[Int, Text, Int, Text]),
    form(Bool, "(({}, {}) < ({}, {}))", &[Int, Date, Int, Date]),
    form(
        Bool,
        "(({}, {}) in (({}, {}), (1, 'a')))",
        &[Int, Text, Int, Text],
    ),
    form(
        Bool,
        "(({}, {}) overlaps (date '2020-01-01', date '2021-01-01'))",
        &[Date, Date],
    ),
    form(Bool, "({} in (values (1), (3), (null::int8)))", &[Int]),
    form(Bool, "({} < now())", &[Timestamptz]),
    form(Bool, "({} < current_date)", &[Date]),
    form(Bool, "(current_user = {})", &[Text]),
    form(Bool, "({} between {} and {})", &[Int, Int, Int]),
    form(
        Bool,
        "({} not between {} and {})",
        &[Numeric, Numeric, Numeric],
    ),
    form(Bool, "(coalesce({}, {}) <> {})", &[Int, Int, Int]),
    form(Bool, "({} > {})", &[Numeric, Int]),
    form(Bool, "({} <= {})", &[Float, Numeric]),
    form(Bool, "({} = {})", &[Wide, Int]),
];

/// How an aggregate treats the order of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Unordered,
    /// ORDER BY its argument: any other order would leave the result open.
    Ordered,
    /// WITHIN GROUP (ORDER BY its last argument).
    WithinGroup,
}

/// An aggregate function; its arguments stand in `template`, but for the last one of `WithinGroup`.
pub struct AggregateForm {
    pub result: Type,
    pub template: &'static str,
    pub arguments: &'static [Type],
    pub input: Input,
}

const fn plain(result: Type, template: &'static str, arguments: &'static [Type]) -> AggregateForm {
    AggregateForm {
        result,
        template,
        arguments,
        input: Input::Unordered,
    }
}

const fn ordered(
    result: Type,
    template: &'static str,
    arguments: &'static [Type],
) -> AggregateForm {
    AggregateForm {
        result,
        template,
        arguments,
        input: Input::Ordered,
    }
}

const fn within(result: Type, template: &'static str, arguments: &'static [Type]) -> AggregateForm {
    AggregateForm {
        result,
        template,
        arguments,
        input: Input::WithinGroup,
    }
}

/// min and max of every type are added by the generator.
pub const AGGREGATES: &[AggregateForm] = &[
    plain(Int, "count(*)", &[]),
    plain(Int, "count(*)", &[]),
    plain(Int, "count({})", &[Int]),
    plain(Int, "count({})", &[Text]),
    plain(Int, "count({})", &[Numeric]),
    plain(Int, "count({})", &[Interval]),
    plain(Int, "bit_and({})", &[Int]),
    plain(Int, "bit_or({})", &[Int]),
    plain(Int, "bit_xor({})", &[Int]),
    plain(Int, "regr_count({}, {})", &[Float, Float]),
    plain(Int, "product(({} % 2)::int8)", &[Int]),
    within(Int, "rank(3)", &[Int]),
    within(Int, "dense_rank(2)", &[Int]),
    within(Int, "mode()", &[Int]),
    within(Int, "percentile_disc(0.5)", &[Int]),
    plain(Numeric, "sum({})", &[Int]),
    plain(Numeric, "sum({})", &[Int]),
    plain(Numeric, "sum({})", &[Wide]),
    plain(Numeric, "sum({})", &[Numeric]),
    plain(Numeric, "avg({})", &[Int]),
    plain(Numeric, "avg({})", &[Numeric]),
    plain(Numeric, "stddev({})", &[Int]),
    plain(Numeric, "var_pop({})", &[Numeric]),
    plain(Float, "sum({})", &[Float]),
    plain(Float, "avg({})", &[Float]),
    within(Float, "percentile_cont(0.25)", &[Float]),
    within(Float, "cume_dist(4)", &[Int]),
    ordered(Text, "string_agg({}, ',' {order})", &[Text]),
    within(Text, "mode()", &[Text]),
    plain(Bool, "bool_and({})", &[Bool]),
    plain(Bool, "bool_or({})", &[Bool]),
    plain(Bool, "every({})", &[Bool]),
    plain(Money, "sum({})", &[Money]),
    plain(Interval, "sum({})", &[Interval]),
    within(Date, "percentile_disc(0.3)", &[Date]),
    ordered(Ints, "array_agg({} {order})", &[Int]),
    ordered(Texts, "array_agg({} {order})", &[Text]),
    ordered(Jsonb, "jsonb_agg({} {order})", &[Int]),
    ordered(Opaque, "json_agg({} {order})", &[Text]),
    ordered(Opaque, "array_agg({} {order})", &[Date]),
    plain(Opaque, "range_agg({})", &[Range]),
];

/// A window function. Those that tell equal rows apart need an order that has none.
pub struct WindowForm {
    pub result: Type,
    pub template: &'static str,
    pub arguments: &'static [Type],
    pub total_order: bool,
}

const fn window(
    result: Type,
    template: &'static str,
    arguments: &'static [Type],
    total_order: bool,
) -> WindowForm {
    WindowForm {
        result,
        template,
        arguments,
        total_order,
    }
}

pub const WINDOWS: &[WindowForm] = &[
    window(Int, "rank()", &[], false),
    window(Int, "dense_rank()", &[], false),
    window(Int, "count(*)", &[], false),
    window(Int, "count({})", &[Text], false),
    window(Int, "max({})", &[Int], false),
    window(Int, "row_number()", &[], true),
    window(Int, "ntile(3)", &[], true),
    window(Int, "lag({})", &[Int], true),
    window(Int, "lead({}, 2)", &[Int], true),
    window(Int, "first_value({})", &[Int], true),
    window(Int, "nth_value({}, 2)", &[Int], true),
    window(Numeric, "sum({})", &[Int], false),
    window(Numeric, "sum({})", &[Numeric], false),
    window(Numeric, "avg({})", &[Numeric], false),
    window(Float, "percent_rank()", &[], false),
    window(Float, "cume_dist()", &[], false),
    window(Float, "sum({})", &[Float], false),
    window(Text, "min({})", &[Text], false),
    window(Text, "lag({})", &[Text], true),
    window(Text, "last_value({})", &[Text], true),
    window(Text, "string_agg({}, ',')", &[Text], true),
    window(Bool, "bool_or({})", &[Bool], false),
    window(Date, "max({})", &[Date], false),
    window(Ints, "array_agg(({})::int8)", &[Int], true),
];
