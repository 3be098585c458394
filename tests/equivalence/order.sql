-- name: by the key
select id, name from users order by id

-- name: descending
select id from users order by id desc

-- name: by a column not selected
select name from users order by id

-- name: by an expression not selected
select id from users order by id % 7, -id

-- name: by alias
select -id as minus from users order by minus

-- name: alias shadows a column
-- note: in ORDER BY the output name wins: this sorts by -id
select -id as id from users order by id

-- name: alias inside an expression is the column
-- note: in an expression the input column is meant
select -id as id from users order by id + 0

-- name: qualified name is the column
select -id as id from users order by users.id

-- name: by ordinal
select name, id from users order by 2 desc

-- name: by ordinal of an expression
select id, id % 10 from users order by 2, 1

-- name: by ordinal of star
select * from lonely order by 1 desc

-- name: ordinal is no expression
-- note: order by 1 + 1 is a constant expression, no column
select count(*) from (select id from users order by 1 + 1) s

-- name: by a constant string
-- expect: 42601
select id from users order by 'id'

-- name: several keys with directions
select country, active, id from users order by country desc nulls last, active nulls first, id desc

-- name: nulls first
select id, score from users order by score nulls first, id

-- name: nulls last descending
select id, score from users order by score desc nulls last, id

-- name: default places of nulls
select id, score from users order by score, id

-- name: default places of nulls descending
select id, score from users order by score desc, id

-- name: operator
select id from users order by id using >

-- name: operator with nulls
select id, manager_id from users order by manager_id using < nulls first, id

-- name: text in the database's collation
select name, id from users order by name, id

-- name: text in the database's collation descending
select name, id from users order by name desc, id

-- name: adversarial text
select coll, id from alltypes order by coll, id

-- name: adversarial text with limit
select coll, id from alltypes order by coll desc, id limit 40 offset 13

-- name: text in C
select coll, id from alltypes order by coll collate "C", id

-- name: text column declared C
select tc, id from alltypes order by tc, id

-- name: text in POSIX
select coll, id from alltypes order by coll collate "POSIX", id limit 30

-- name: text column declared C in the default collation
select tc, id from alltypes order by tc collate "default", id

-- name: text in ICU
-- expect: same-or-refused
select coll, id from alltypes order by coll collate "und-x-icu", id

-- name: lower text
select id, coll from alltypes order by lower(coll), id

-- name: concatenation
select id from alltypes order by t || coll, id

-- name: empty and odd text
select t, id from alltypes order by t, id

-- name: varchar
select vc, id from alltypes order by vc, id

-- name: char padding
select ch, id from alltypes order by ch, id

-- name: char type of one byte
select qc, id from alltypes order by qc, id

-- name: name type
select nm, id from alltypes order by nm, id

-- name: int2
select i2, id from alltypes order by i2 desc, id

-- name: int4
select i4, id from alltypes order by i4, id

-- name: int8
select i8, id from alltypes order by i8 nulls first, id

-- name: oid
select o, id from alltypes order by o, id

-- name: float4
select f4, id from alltypes order by f4, id

-- name: float8
select f8, id from alltypes order by f8 desc, id

-- name: numeric
select num, id from alltypes order by num, id

-- name: numeric with NaN and infinities
select numx, id from alltypes order by numx desc, id

-- name: numeric of a fixed scale
select num2, id from alltypes order by num2, id

-- name: numeric of many digits
select n, n * 3 from limits order by n * 3, id

-- name: bool
select b, id from alltypes order by b desc, id

-- name: bytea
select bin, id from alltypes order by bin, id

-- name: uuid
select u, id from alltypes order by u, id

-- name: date
select d, id from alltypes order by d, id

-- name: date with infinities
select dx, id from alltypes order by dx desc, id

-- name: time
select tm, id from alltypes order by tm, id

-- name: time with zone
-- note: equal instants order by zone
select tmtz, id from alltypes order by tmtz, id

-- name: timestamp
select ts, id from alltypes order by ts, id

-- name: timestamptz
select tstz, id from alltypes order by tstz desc, id

-- name: timestamptz with infinities
select tstzx, id from alltypes order by tstzx, id

-- name: timestamptz in a zone with mixed offsets
-- note: text form does not sort
-- before: set timezone to 'America/New_York'
-- after: reset timezone
select tstz, id from alltypes order by tstz, id

-- name: date in a style that does not sort as text
-- before: set datestyle to 'SQL, DMY'
-- after: reset datestyle
select k from by_date order by k

-- name: interval
-- note: 1 mon = 30 days = 720 hours
select iv, id from alltypes order by iv, id

-- name: money
select cash, id from alltypes order by cash, id

-- name: enum
-- note: by the order of labels, not by text or OID
select mo, id from alltypes order by mo, id

-- name: enum descending
select mo, id from alltypes order by mo desc nulls last, id

-- name: domain
select mail, pos, id from alltypes order by pos, mail, id

-- name: inet
select ip, id from alltypes order by ip, id

-- name: cidr
select net, id from alltypes order by net desc, id

-- name: macaddr
select mac, mac8, id from alltypes order by mac, mac8, id

-- name: pg_lsn
select lsn, id from alltypes order by lsn, id

-- name: xid8
select x8, id from alltypes order by x8 desc, id

-- name: bit
-- expect: same-or-refused
select b8, vb, id from alltypes order by b8, vb, id

-- name: int array
-- expect: same-or-refused
select ia, id from alltypes order by ia, id

-- name: text array
-- expect: same-or-refused
select ta, id from alltypes order by ta, id

-- name: jsonb
-- expect: same-or-refused
select jsb, id from alltypes order by jsb, id

-- name: int range
-- expect: same-or-refused
select i4r, id from alltypes order by i4r, id

-- name: composite
-- expect: same-or-refused
select comp, id from alltypes order by comp, id

-- name: row expression
-- expect: same-or-refused
select id, grp from alltypes order by (grp, id)

-- name: tsvector
-- expect: same-or-refused
select tsv, id from alltypes order by tsv, id

-- name: user range
-- expect: same-or-refused
select fr, id from alltypes order by fr, id

-- name: multirange
-- expect: same-or-refused
select i4mr, id from alltypes order by i4mr, id

-- name: json has no order
-- expect: 42883
select js from alltypes order by js

-- name: case expression
select id, mo from alltypes order by case mo when 'happy' then 0 when 'sad' then 1 else 2 end, id

-- name: null constant
select id from users order by null::text, id

-- name: boolean expression
select id, country from users order by country = 'BR' desc nulls last, id

-- name: expression with a parameter
-- params: [["int8", "7"]]
select id from users order by id % $1, id

-- name: by an aggregate-free function of several columns
select id from users order by coalesce(manager_id, id), id

-- name: limit
select id from users order by id limit 5

-- name: limit with text
select name, id from users order by name desc, id limit 17

-- name: limit and offset
-- note: each shard needs limit + offset rows
select id from users order by id limit 5 offset 100

-- name: offset first
select id from users order by id offset 100 limit 5

-- name: offset only
select id from users order by id offset 290

-- name: offset beyond
select id from users order by id offset 1000

-- name: limit zero
select id from users order by id limit 0

-- name: limit all
select id from users order by id limit all

-- name: limit null
select id from users order by id limit null

-- name: limit larger than rows
select id from users order by id limit 100000

-- name: largest limit with an offset
-- note: limit + offset saturates
select id from users order by id limit 9223372036854775807 offset 295

-- name: limit as an expression
select id from users order by id limit 2 + 3

-- name: limit as a string
select id from users order by id limit '5'

-- name: limit as a rounded numeric
-- note: 2.5 is cast to int8 and rounds
select id from users order by id limit 2.5

-- name: limit as a subquery
-- expect: same-or-refused
select id from users order by id limit (select count(*) from countries)

-- name: limit by parameter
-- params: [["int8", "4"], ["int8", "8"]]
select id from users order by id limit $1 offset $2

-- name: limit by NULL parameter
-- params: [["int8", null]]
select id from users order by id limit $1

-- name: limit by untyped parameter
-- params: [["?", "4"]]
select id from users order by id limit $1

-- name: limit by an expression with a parameter
-- expect: same-or-refused
-- params: [["int8", "4"]]
select id from users order by id limit $1 * 2

-- name: fetch first
select id from users order by id fetch first 3 rows only

-- name: fetch first row without a number
select id from users order by id desc fetch first row only

-- name: fetch with offset
select id from users order by id offset 7 rows fetch next 3 rows only

-- name: fetch with ties
-- expect: same-or-refused
select country, id % 6 as m from users order by country nulls first fetch first 3 rows with ties

-- name: limit without order
-- subset-of: select id from users
select id from users limit 5

-- name: limit and offset without order
-- subset-of: select id from users
select id from users limit 5 offset 290

-- name: offset without order
-- subset-of: select id from users
select id from users offset 250

-- name: limit without order under a filter
-- subset-of: select id, name from users where active
select id, name from users where active limit 10

-- name: limit one of a one-shard table
-- subset-of: select id from lonely
select id from lonely limit 1

-- name: limit over one shard
select id from events where user_id = 17 order by id limit 2

-- name: limit zero without order
select id, name from users limit 0

-- name: order of a join
select u.id, e.id as event from users u join events e on e.user_id = u.id order by u.name, e.at desc, e.id limit 50

-- name: order by columns of a reference table
select u.id, c.name from users u join countries c on c.code = u.country order by c.name desc, u.id

-- name: order of a reference table
select id, label from tags order by label nulls first, id

-- name: order of constants
select x from (values (3), (1), (2)) v(x) order by x

-- name: order over one shard's rows
select id, v from lonely order by v collate "C" desc

-- name: order of an empty table
select id from empty_s order by id

-- name: many rows in order
select id, x from big order by x, id

-- name: many rows with limit and offset
select id, x from big order by x desc, id limit 100 offset 20000

-- name: order inside a subquery does not matter
select count(*) from (select id from users order by name) s

-- name: limit inside a subquery
-- expect: same-or-refused
select id from (select id from users order by id limit 10) s order by id desc

-- name: order by union column
select id from users where id < 20 union all select id from orders where id < 20 order by id

-- name: FOR UPDATE locks where rows are
-- expect: same-or-refused
select id from users where id < 5 order by id for update

-- name: FOR SHARE of one row
-- expect: same-or-refused
select id from users where id = 5 for share

-- name: FOR UPDATE with limit and skip
-- expect: same-or-refused
-- only: simple
select id from lonely order by id limit 3 for update skip locked

-- name: LIMIT and OFFSET by parameters of smaller types
-- params: [["int2", "5"], ["int4", "3"]]
select id from users order by id limit $1 offset $2

-- name: now beside a sort key whose collation must be asked for
-- note: the question has the parameter for now() too
select id, now() > timestamptz '2020-01-01 00:00+00' as later, upper(name) from users where id < 30 order by upper(name), id

-- name: FOR UPDATE OF the sharded side of a join with a reference table
select u.id, t.label from users u join tags t on t.id = u.id where u.id < 5 order by u.id for update of u

-- name: FOR UPDATE does not reach a reference table in a subquery
select u.id from users u where u.id in (select id from tags) and u.id < 5 order by u.id for update

-- name: FOR UPDATE of a reference table too
-- expect: refused
select u.id, t.label from users u join tags t on t.id = u.id where u.id < 5 order by u.id for update

-- name: FOR SHARE OF the reference side
-- expect: refused
select u.id, t.label from users u join tags t on t.id = u.id where u.id < 5 order by u.id for share of t, u

-- name: order of a subquery with LIMIT outside
-- note: PostgreSQL takes the first rows of the sorted subquery, although SQL promises no order outside
select * from (select id, name from users order by id desc) x limit 5

-- name: order of a subquery by another column
select id from (select * from dupes order by k desc, id) x limit 7

-- name: order of a subquery by a column it does not give
-- note: the order cannot be said outside: one server runs both
select v from (select v from dupes order by k desc, id) x limit 7

-- name: order of a subquery under an expression and a condition
select id + 1 from (select id from dupes d order by d.id desc) x where id % 2 = 0 limit 4

-- name: order of a subquery in a subquery
select y from (select x.id as y from (select id from users order by id desc) x where id > 3) q limit 3

-- name: order of a subquery in a subquery by a column left out
select v from (select x.v, x.k from (select id, v, k from dupes order by id desc) x where k > 1) q limit 6

-- name: order of a WITH query
with s as (select id, v from dupes order by k, id desc) select id from s as x limit 6

-- name: order of a WITH query under other names
with s (a, b) as (select id, k from dupes order by k, id desc) select a from s limit 6

-- name: order of a subquery under other names
select a from (select id, k from dupes order by k desc, id) s (a, b) limit 6

-- name: order of a subquery with two columns of one name
select * from (select id, k as id from dupes order by dupes.id desc) s limit 3

-- name: order of a subquery whose aggregate keeps it
select array_agg(id) from (select id from (select id, k from dupes order by k, id desc) x where k < 5) y

-- name: a count over an ordered subquery
select count(*), max(id) from (select id from dupes order by id) x

-- name: functions that return sets are called after sorting
-- note: 1 2 3 of each row stay together
select id, generate_series(1, 3) from users order by id desc limit 8

-- name: functions that return sets after sorting by a column not selected
select generate_series(1, 2), name from users order by id limit 7

-- name: order by what a set gives
select id, generate_series(1, 3) as g from users order by g desc, id limit 8
