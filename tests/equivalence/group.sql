-- name: count of all
select count(*) from users

-- name: count with an expression around it
select count(*) + 1, count(*) * 2, -count(*) from users

-- name: count of a column
select count(email), count(score), count(*) from users

-- name: every simple aggregate
select count(*), sum(id), min(id), max(id), avg(id), bool_and(active), bool_or(active) from users

-- name: aggregates over an empty table
select count(*), count(v), sum(k), sum(n), min(d), max(v), avg(n), avg(f), bool_and(b), bool_or(b), every(b) from empty_s

-- name: expressions around aggregates over an empty table
select coalesce(sum(k), 0), coalesce(max(v), 'none'), count(*) = 0 from empty_s

-- name: group by over an empty table
select k, count(*) from empty_s group by k

-- name: aggregates over no rows by a filter
select count(*), sum(id), avg(score) from users where id < 0

-- name: aggregates over rows of one shard
select count(*), sum(n), avg(n), min(v), max(v) from lonely

-- name: aggregates in which some shards have only NULLs
select sum(n), avg(n), count(n) from lonely where id % 3 = 0

-- name: aggregate over a reference table
select count(*), sum(weight), avg(weight) from tags

-- name: sum of every numeric type
select sum(i2), sum(i4), sum(i8), sum(n) from limits

-- name: types of sums
select sum(i2::int2), sum(i4::int4), sum(id), sum(num2), sum(f8), sum(cash), sum(iv) from alltypes where id % 4 <> 0

-- name: sum of floats
select sum(score), sum(score::float4) from users

-- name: sum of floats with NaN
select sum(f8) from alltypes where id % 20 = 0

-- name: sum of float4 overflows over shards
-- note: each shard's part fits, the whole does not
-- expect: 22003
select sum(f4) from limits

-- name: sum of float8 overflows over shards
-- expect: 22003
select sum(f8) from limits

-- name: sum cast to int4 overflows
-- expect: 22003
select sum(i4)::int4 from limits

-- name: sum of int2 cast overflows
-- expect: 22003
select sum(i2)::int2 from limits

-- name: sum of int8 is numeric and beyond int8
select sum(i8), sum(i8) + 1 from limits

-- name: sum of int8 cast back overflows
-- expect: 22003
select sum(i8)::int8 from limits

-- name: sum of numerics of many digits
select sum(n), avg(n) from limits

-- name: sum of numeric with special values
select sum(numx), avg(numx) from alltypes where id < 20

-- name: sum of numeric scales
select sum(num), sum(num2), sum(w) from alltypes a join dupes d on d.id = a.id where a.id % 6 in (1, 2, 3)

-- name: sum of money
select sum(cash) from alltypes

-- name: sum of intervals
select sum(iv) from alltypes

-- name: average is not an average of averages
select avg(id) from users where id < 4 or id > 250

-- name: average scale of integers
select avg(i2), avg(i4), avg(i8) from alltypes

-- name: average scale of small numbers
select avg(n) from by_text where n < 3

-- name: average scale of numerics
select avg(num2), avg(num), avg(amount) from alltypes a left join events e on e.user_id = a.id where num < 100

-- name: average of one
select avg(k) from small_keys where k = 7

-- name: average of zero
select avg(k) from small_keys where k in (-7, 7)

-- name: average of negative thirds
select avg(k), avg(-n) from small_keys where k in (-5, -4, -2, 1)

-- name: average of floats
select avg(score), avg(f8) from users u join alltypes a using (id) where a.id < 40 and f8 between -100 and 100 and score is not null and id in (1, 2, 3, 4, 5, 6, 7, 9)

-- name: average of intervals
select avg(iv) from alltypes where iv = '1 day' or iv = '30 days'

-- name: average of huge int8
select avg(i8) from limits

-- name: average per group
select country, avg(id), avg(score) from users where id % 17 <> 0 and id <= 192 group by country

-- name: min and max of every comparable type
select min(i2), max(i4), min(i8), max(f4), min(f8), max(num), min(numx), max(t), min(coll), max(tc), min(ch), max(vc), min(d), max(dx), min(tm), max(tmtz), min(ts), max(tstz), min(tstzx), max(iv) from alltypes

-- name: max of the same columns
select max(i2), min(i4), max(i8), min(f4), max(f8), min(num), max(numx), min(t), max(coll), min(tc), max(ch), min(vc), max(d), min(dx), max(tm), min(tmtz), max(ts), min(tstz), max(tstzx), min(iv) from alltypes

-- name: min and max of other types
select min(ip), max(ip), min(net), min(cash), max(cash), min(mo), max(mo), min(o), max(o), min(lsn), max(lsn), min(ia), max(ia), min(ta), max(na) from alltypes

-- name: min and max of a domain
select min(pos), max(mail) from alltypes

-- name: max ties with different bytes
-- note: 1.0 and 1.00 are equal; either may go out, so compare as equals
select max(w) = 2.5, min(w) = 1 from dupes where w <> 'NaN'

-- name: min of text in a linguistic collation
select min(name), max(name), min(name collate "C"), max(name collate "C") from users

-- name: min of text per group
select country, min(name), max(name) from users group by country

-- name: min of bool is no function
-- expect: 42883
select min(active) from users

-- name: bool aggregates per group
select country, bool_and(active), bool_or(active), every(score > 0) from users group by country

-- name: bit aggregates
-- expect: same-or-refused
select bit_and(k), bit_or(k), bit_xor(k) from small_keys

-- name: group by a column
select country, count(*) from users group by country

-- name: group by ordinal
select country, count(*) from users group by 1

-- name: group by alias
select country as c, count(*) from users group by c

-- name: group by expression
select id % 5 as m, count(*), sum(score) from users group by id % 5

-- name: group by an expression not selected
select count(*), max(id) from users group by id % 5

-- name: group by a column not selected
select count(*) from users group by country

-- name: input column before output alias
-- note: in GROUP BY the table's column wins: name is the column, not the alias
select upper(country) as name, count(*) from users group by name, country

-- name: group by alias that is no column
select upper(kind) as k, count(*) from events group by k

-- name: group by two
select country, active, count(*) from users group by country, active

-- name: group by NULL groups
select manager_id, count(*) from users group by manager_id

-- name: group by the key
select user_id, count(*), sum(amount) from events group by user_id

-- name: group by the key with any aggregate
select user_id, string_agg(kind, ',' order by id), array_agg(id order by id), count(distinct kind) from events group by user_id

-- name: group by the key and others
select user_id, kind, count(*) from events group by user_id, kind

-- name: group by an expression of the key
-- note: not a plain column: partial and final
select user_id + 1, count(*) from events group by user_id + 1

-- name: group by the key in a join
select u.id, u.name, count(e.id), coalesce(sum(e.amount), 0) from users u left join events e on e.user_id = u.id group by u.id, u.name

-- name: group by the primary key with functional dependency
select u.id, u.name, u.country, count(e.id) from users u left join events e on e.user_id = u.id group by u.id

-- name: group by primary key not all selected
select name, count(*) from users group by id

-- name: group by numeric equal with different bytes
-- note: 1.0 and 1.00 are one group
select w = 1 as one, count(*) from dupes group by w = 1

-- name: group by numeric itself
-- expect: same-or-refused
-- compare: shape
select w, count(*) from dupes group by w

-- name: number of numeric groups
-- expect: same-or-refused
select count(*) from (select w from dupes group by w) s

-- name: group by float zero and minus zero
-- expect: same-or-refused
-- compare: shape
select f, count(*) from dupes group by f

-- name: counts of float groups
-- expect: same-or-refused
select count(*) as n from dupes group by f

-- name: group by interval
-- note: 1 mon = 30 days = 720 hours
-- expect: same-or-refused
select count(*) as n from alltypes group by iv

-- name: group by char padded
select ch, count(*) from alltypes group by ch

-- name: group by text
select v, count(*) from dupes group by v

-- name: group by text under another collation
-- expect: same-or-refused
select v collate "C" as v, count(*) from dupes group by v collate "C"

-- name: group by enum
select mo, count(*), max(id) from alltypes group by mo

-- name: group by domain
select pos, count(*) from alltypes group by pos

-- name: group by composite
-- expect: same-or-refused
select comp, count(*) from alltypes group by comp

-- name: group by array
-- expect: same-or-refused
select ia, count(*) from alltypes group by ia

-- name: group by jsonb
-- expect: same-or-refused
select count(*) as n from alltypes group by jsb

-- name: group by range
-- expect: same-or-refused
select i4r, count(*) from alltypes group by i4r

-- name: group by timestamptz
-- expect: same-or-refused
select date_trunc('month', at) as m, count(*) from events group by 1

-- name: group by date
select d, count(*) from dupes group by d

-- name: group by uuid, bytea and bool
select u, bin, b, count(*) from alltypes group by u, bin, b

-- name: group by constant
select 'all' as what, count(*) from users group by 1

-- name: group by nothing of parentheses
-- expect: same-or-refused
select count(*) from users group by ()

-- name: group by nothing over an empty table
-- expect: same-or-refused
select count(*) from empty_s group by ()

-- name: group by in a join with a reference table
select c.region, count(*), sum(u.score) from users u join countries c on c.code = u.country group by c.region

-- name: expressions around grouped aggregates
select country, sum(id) / count(*) as mean, round(100.0 * count(email) / count(*), 2) as percent, max(id) - min(id) as spread from users group by country

-- name: same aggregate twice
select count(*), count(*) as again, sum(id), sum(id) from users

-- name: aggregate with filter
select count(*) filter (where active), sum(score) filter (where country = 'BR'), count(*) from users

-- name: aggregate with filter that never holds
select count(*) filter (where false), sum(id) filter (where false), max(name) filter (where id < 0) from users

-- name: aggregate with filter per group
select country, count(*) filter (where active), max(name) filter (where score > 50) from users group by country

-- name: aggregate of an expression
select sum(id * 2 + 1), max(length(name)), min(upper(name)), avg(id % 10) from users

-- name: aggregate of a case
select sum(case when active then 1 else 0 end), count(case when score > 10 then 1 end) from users

-- name: aggregate of a constant
select sum(1), count(1), max('x'), avg(2) from users

-- name: count distinct
-- expect: same-or-refused
select count(distinct country), count(distinct kind) from users u left join events e on e.user_id = u.id

-- name: count distinct of the key
-- expect: same-or-refused
select count(distinct user_id) from events

-- name: count distinct of a nullable key
-- note: NULL is not counted
-- expect: same-or-refused
select count(distinct user_id) from visits

-- name: sum distinct
-- expect: same-or-refused
select sum(distinct score), avg(distinct score) from users

-- name: count distinct per group
-- expect: same-or-refused
select kind, count(distinct user_id), count(distinct amount) from events group by kind

-- name: count distinct numeric
-- note: 1.0 and 1.00 count once
-- expect: same-or-refused
select count(distinct w) from dupes

-- name: min distinct is min
-- expect: same-or-refused
select min(distinct id), max(distinct name) from users

-- name: string_agg
-- expect: same-or-refused
select string_agg(name, ',' order by name collate "C", id) from users

-- name: array_agg per group
-- expect: same-or-refused
select country, array_agg(id order by id) from users group by country

-- name: array_agg of the key's group in parts
-- expect: same-or-refused
select kind, array_agg(distinct user_id) from events where user_id < 30 group by kind

-- name: json_agg
-- expect: same-or-refused
select json_agg(id order by id desc) from users where id < 20

-- name: variance and deviation
-- expect: same-or-refused
select round(stddev(id), 6), round(var_pop(id), 6) from users

-- name: regression
-- expect: same-or-refused
select regr_count(score, id) from users

-- name: percentiles
-- expect: same-or-refused
select percentile_cont(0.5) within group (order by score), percentile_disc(0.9) within group (order by id) from users

-- name: mode
-- expect: same-or-refused
select mode() within group (order by kind) from events

-- name: hypothetical rank
-- expect: same-or-refused
select rank(50) within group (order by score) from users

-- name: user-defined aggregate
-- expect: same-or-refused
select product(k::int8) from small_keys where k between 1 and 9

-- name: user-defined aggregate by the key
select user_id, product(id % 5 + 1) from events where user_id < 30 group by user_id

-- name: grouping sets
-- expect: same-or-refused
select country, active, count(*), grouping(country, active) from users group by grouping sets ((country), (active), ())

-- name: rollup
-- expect: same-or-refused
select country, active, count(*) from users group by rollup (country, active)

-- name: grouping sets that all have the key
-- expect: same-or-refused
select user_id, kind, count(*) from events where user_id < 30 group by grouping sets ((user_id), (user_id, kind))

-- name: cube with the key in some sets only
-- expect: same-or-refused
select user_id, kind, count(*) from events where user_id < 10 group by cube (user_id, kind)

-- name: having
select country, count(*) from users group by country having count(*) > 49

-- name: having that only the whole passes
-- note: no shard's part reaches it
select kind, count(*) from events group by kind having count(*) > 300

-- name: having that only parts pass
-- note: each shard's average may be above, the whole is not
select country, avg(score) > 49 as high from users group by country having min(id) < 4

-- name: having with an aggregate not selected
select country from users group by country having sum(score) > 2000 and max(id) > 299

-- name: having of equality
select country, count(*) from users group by country having count(*) = 50

-- name: having without group by
select count(*) from users having count(*) > 299

-- name: having without group by that fails
select count(*) from users having count(*) > 300

-- name: having alone makes one row
-- expect: same-or-refused
select 'yes' as answer from users having max(id) = 300

-- name: having over an empty table
select count(*) from empty_s having count(*) = 0

-- name: having by the key
select user_id, count(*) from events group by user_id having count(*) > 6

-- name: having with a condition on the group
select country, count(*) from users group by country having country > 'C'

-- name: having with OR
select country, count(*) from users group by country having count(*) > 1000 or bool_or(active)

-- name: having with a subquery
-- expect: same-or-refused
select country, count(*) from users group by country having count(*) >= (select avg(id) from tags)

-- name: group by and order by an aggregate
select country, count(*) as n from users where id % 7 <> 0 or country = 'BR' group by country order by count(*) desc, country

-- name: group by and order by an expression over aggregates
select kind, sum(amount) as s from events group by kind order by sum(amount) / count(*), kind

-- name: group by, order by and limit
select user_id % 10 as m, count(*) as n from events group by 1 order by n desc, m limit 3

-- name: group by, having, order by, limit and offset
select user_id % 50 as m, count(*) as n from events group by 1 having count(*) > 20 order by n desc, m limit 5 offset 5

-- name: group by key, order by aggregate, limit
select user_id, sum(amount) as total from events group by user_id order by total desc nulls last, user_id limit 7

-- name: order by an aggregate not selected
select country from users group by country order by min(id)

-- name: limit zero over an aggregate
select count(*) from users limit 0

-- name: offset one over an aggregate
select count(*) from users offset 1

-- name: distinct over an aggregate
-- expect: same-or-refused
select distinct count(*) from users group by country

-- name: aggregate over a subquery with the key
select count(*), sum(n) from (select user_id, count(*) as n from events group by user_id) s

-- name: aggregate over a filtered subquery
select max(x) from (select id * 2 as x from users where active) s

-- name: aggregate over a limited subquery
-- expect: same-or-refused
select count(*), sum(id) from (select id from users order by id limit 10) s

-- name: aggregate over an aggregate
-- expect: same-or-refused
select max(n) from (select country, count(*) as n from users group by country) s

-- name: aggregate over distinct
-- expect: same-or-refused
select count(*) from (select distinct country from users) s

-- name: aggregate over union all
select count(*), sum(x) from (select id as x from users union all select user_id from events) s

-- name: aggregate over union all with a reference arm
-- note: the reference arm counts once
-- expect: same-or-refused
select count(*), sum(x) from (select id as x from users union all select id from tags) s

-- name: aggregate over a colocated join
select e.kind, count(*), sum(u.score), max(u.name) from users u join events e on e.user_id = u.id group by e.kind

-- name: count of a join with many matches
select count(*) from users u join events e on e.user_id = u.id join visits v on v.user_id = u.id

-- name: aggregates with parameters
-- params: [["int8", "10"], ["int8", "3"]]
select id % $1, count(*) + $2 from users group by 1

-- name: parameter in having
-- params: [["int8", "300"]]
select kind, count(*) from events group by kind having count(*) > $1

-- name: aggregate of a parameter
-- params: [["int4", "5"]]
select sum($1::int4), max($1::int4 + id) from users

-- name: any_value-like min of a constant column
select kind, min(kind) = max(kind) from events group by kind

-- name: GROUP BY columns in parentheses
select (k, v), count(*) from dupes where id < 100 group by (k, v) order by 2, 1

-- name: GROUP BY columns in parentheses, the key among them
select id, (k, v), count(*) from dupes where id < 100 group by (id, k, v) order by 1

-- name: GROUP BY a row
select row(k, v), count(*) from dupes where id < 100 group by row(k, v) order by 2, 1


-- name: count of distinct values off the key
select count(distinct k), count(distinct v) from dupes

-- name: count of distinct values with other aggregates
select count(distinct k), count(*), sum(id), min(v), max(d), avg(id) from dupes

-- name: count of distinct values by group
select country, count(distinct manager_id), count(*), sum(id), count(manager_id) from users group by country order by country nulls first

-- name: count of distinct values of the grouped column
select k, count(distinct k), count(*) from dupes group by k order by k nulls first

-- name: distinct values twice, in one count and one sum
select v, count(distinct k), sum(distinct k), avg(distinct k) from dupes group by v order by v nulls first

-- name: count of distinct values in HAVING and ORDER BY
select country, count(*) from users group by country having count(distinct manager_id) > 1 order by count(distinct manager_id) desc, country nulls last

-- name: count of distinct values over no rows
select count(distinct k), sum(distinct k), count(*) from empty_s

-- name: count of distinct values by group over no rows
select v, count(distinct k) from empty_s group by v

-- name: count of distinct NULLs
select count(distinct allnull), count(*) from alltypes

-- name: count of distinct numerics that print apart
select count(distinct w), count(distinct w + 0) from dupes

-- name: one count of distinct numerics
select count(distinct w) from dupes

-- name: sum of distinct numerics
-- expect: same-or-refused
select sum(distinct n) from lonely

-- name: count of distinct floats, minus zero and NaN
select count(distinct f) from dupes

-- name: count of distinct values of many types
select count(distinct b) as b, 1 as x from alltypes

-- name: count of distinct dates by group
select grp, count(distinct d) from alltypes group by grp order by grp

-- name: count of distinct padded strings
select count(distinct ch) from alltypes

-- name: count of distinct enums
select count(distinct mo) from alltypes

-- name: count of distinct timestamps with time zone
select count(distinct tstz) from alltypes

-- name: count of distinct arrays
select count(distinct ia) from alltypes

-- name: count of distinct rows
select count(distinct (k, v)) from dupes

-- name: count of distinct expressions
select count(distinct k % 3), count(*) from dupes

-- name: count of distinct values of two columns
select count(distinct k), count(distinct v), count(*) from dupes

-- name: count of distinct values under a filter
select count(distinct k) filter (where v = 'a'), count(*) filter (where v = 'a') from dupes

-- name: a filter beside a count of distinct values
select count(distinct k), count(*) filter (where v = 'a'), sum(id) filter (where k > 3) from dupes

-- name: count of distinct text under a linguistic collation
select count(distinct coll), count(distinct t) from alltypes

-- name: count of a distinct constant
select count(distinct 1), count(distinct null::int4), count(*) from dupes

-- name: count of distinct values of a join
select count(distinct o.customer_id), sum(l.quantity) from orders o join lineitem l on l.order_id = o.id

-- name: count of distinct values in a subquery
select u.id from users u where u.id < (select count(distinct k) from dupes) order by 1

-- name: count of distinct values with a parameter
-- params: [["int4", "3"]]
select count(distinct k % $1), sum(id) from dupes

-- name: windows over a count of distinct values
select country, count(distinct manager_id), rank() over (order by count(distinct manager_id) desc, country) from users group by country order by 1 nulls first

-- name: count of distinct keys beside a count of distinct values
select country, count(distinct id), sum(distinct id), count(distinct manager_id), count(*) from users group by country order by country nulls first

-- name: a primary key in all grouping sets
-- note: the other columns depend on it
select id, name, grouping(id, country, active) from users group by grouping sets ((id, country), (id, active))

-- name: a primary key in all grouping sets, a grouped column not in all
select id, country, active, name, count(*) from users group by grouping sets ((id, country), (id, active))

-- name: a primary key beside a rollup
select id, name, country, count(*) from users group by id, rollup (country)

-- name: a primary key not in all grouping sets
-- expect: 42803
select id, name from users group by grouping sets ((id, country), (active))

-- name: HAVING without groups and aggregates
-- note: one row without reading any: the condition is never evaluated
select 1 as one from dupes where 1 / (id - id) = 1 having 1 < 2

-- name: HAVING without groups and aggregates that fails
select 1 as one from dupes where 1 / (id - id) = 1 having 1 > 2

-- name: HAVING without groups that names a column
-- expect: 42803
select 1 as one from dupes having min(k) < k

-- name: cube by an output column
select active, name like 'a%' as a, count(*) from users group by cube (active, a)

-- name: rollup by what a set gives
select active, generate_series(1, 2) as g, count(*) from users group by rollup (active, g)

-- name: extremes of "char" are text
select min(qc), max(qc), max(nm), min(vc) from alltypes

-- name: extremes of "char" by group
select grp, max(qc) from alltypes group by grp order by grp
