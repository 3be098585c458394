-- name: all rows
select * from users

-- name: all columns of every type
select * from alltypes

-- name: every type of one row
select * from alltypes where id = 8

-- name: no columns
select from lonely

-- name: constant per row
select 1 as one, 'x' as x, null as nothing, true from lonely

-- name: duplicate names
select id, id, name as id from users where country = 'BR'

-- name: unnamed columns
select id + 1, upper(name), 'a' || name from users where id < 20

-- name: long and quoted names
select id as "Id with ""quotes"" and blanks", name as ÄÖ from users where id < 5

-- name: type modifiers survive
select num2, vc, ch, b8, vb, amount from alltypes a join events e on e.user_id = a.id where a.id < 9

-- name: arithmetic
select id, id * 2 - 1, id / 7, id % 7, -id from users

-- name: text functions
select lower(name), length(name), substr(name, 2, 3), name || ' ' || coalesce(country, '-') from users

-- name: like and similar
select id from users where name like '%de%' or name ilike 'ZOË%' or name similar to '(bob|ana)%'

-- name: regular expressions
select id from users where name ~ '^[A-Z]'

-- name: case
select id, case when score > 50 then 'high' when score is null then 'none' else 'low' end from users

-- name: nulls in conditions
select count(*) from users where score > 10 is not true

-- name: null safe comparison
select count(*) from users where manager_id is distinct from 5

-- name: json operators
select id, profile ->> 'lang' as lang, (profile -> 'age')::int4 from users where profile @> '{"lang": "en"}'

-- name: arrays
select id, tags[1], array_length(tags, 1), 'vip' = any (tags) from users where tags is not null

-- name: composite fields
select id, (comp).a, (comp).b from alltypes

-- name: composite itself
select id, comp, row(id, mo) from alltypes

-- name: enum comparison
select id from alltypes where mo > 'ok'

-- name: enum array
select id, ma from alltypes where 'happy' = any (ma)

-- name: domain
select id, pos + 1, mail from alltypes where mail like 'u1@%'

-- name: ranges
select id from alltypes where i4r @> 2 and nr && numrange(1, 2)

-- name: user range
select id, fr, lower(fr) from alltypes where not isempty(fr)

-- name: intervals and dates
select id, d + 1, ts + iv, age(date '2024-01-01', d) from alltypes where d > '2010-01-01'

-- name: time zones
select id, tstz at time zone 'America/Sao_Paulo', extract(epoch from tstz)::int8 from alltypes

-- name: timestamps in another zone
-- before: set timezone to 'Asia/Tokyo'
-- after: reset timezone
select id, tstz, tstz::text, date_trunc('day', tstz) from alltypes where id < 50

-- name: dates in another style
-- before: set datestyle to 'German, DMY'
-- after: reset datestyle
select k, k::text as t from by_date where n between 3 and 20 order by k

-- name: floats with fewer digits
-- before: set extra_float_digits to -10
-- after: reset extra_float_digits
select id, f8, (f8 / 3)::text from alltypes

-- name: bytea in escape form
-- before: set bytea_output to 'escape'
-- after: reset bytea_output
select id, bin, bin::text from alltypes

-- name: intervals in ISO form
-- before: set intervalstyle to 'iso_8601'
-- after: reset intervalstyle
select id, iv, iv::text from alltypes

-- name: set-returning function in the select list
select id, generate_series(1, 3) as g from users where id < 10

-- name: two set-returning functions
select id, generate_series(1, 2), unnest(array['a', 'b', 'c']) from lonely

-- name: unnest of a column
select id, unnest(tags) as tag from users

-- name: division by zero
-- expect: 22012
select 1 / (id - 17) from users

-- name: division by zero on one shard behind a limit
-- note: on one server the rows may not come to it
-- expect: 22012
select 1 / (id - 17) from users order by 1 / (id - 17) limit 3

-- name: cast error on some rows
-- note: which row fails first is not determined
-- expect: 22P02
-- compare: sqlstate
select name::int4 from users

-- name: overflow on one row
-- expect: 22003
select i4::int4 + 1 from limits

-- name: table command
table lonely

-- name: values
values (1, 'a'), (2, 'b'), (3, null)

-- name: constants only
select 1, 'a', null::int4, now() is not null

-- name: constants with a condition that fails
select 1 where false

-- name: reference table
select * from tags

-- name: empty reference table
select * from empty_r

-- name: empty sharded table
select * from empty_s

-- name: table with rows on one shard only
select * from lonely

-- name: whole row
select u from users u where id < 20

-- name: whole row of a reference table
select t from tags t

-- name: star of an alias with renamed columns
select u.* from users u(a, b, c) where a < 4

-- name: partition
select count(*) from events_2024

-- name: partitions add up
select id, user_id from events_2023 where id < 100

-- name: comments and odd spacing
select /* a comment */ id -- another
from users where id<4

-- name: trailing semicolon and blanks
select id from users where id < 4 ;

-- name: keywords in capitals
SELECT ID FROM USERS WHERE ID < 4

-- name: operator qualified
select id from users where id operator(pg_catalog.<) 4

-- name: immutable SQL function
select id, add_one(id) from users where id < 10

-- name: current user
select current_user, session_user, count(*) from users group by 1, 2

-- name: now is one value
select count(distinct now()) from users where now() is not null

-- name: now per row is one value
-- expect: same-or-refused
select count(*) from (select now() as n from users group by 1) s

-- name: random is per row
-- compare: shape
select id, random() from users

-- name: statement timestamps
-- compare: shape
select id, clock_timestamp() from users

-- name: volatile function in a filter
-- expect: same-or-refused
-- note: may run where the row is; always true here
select count(*) from users where random() >= 0

-- name: volatile user function
select id, noisy(id) from users where id < 5

-- name: nextval never runs on every shard
-- expect: refused
select nextval('counter'), id from users

-- name: function that reads a table
-- expect: refused
select count_users()

-- name: PL/pgSQL function that reads a table
-- expect: refused
select count_users_plpgsql()

-- name: function that reads a table, in a routed statement
-- expect: refused
select id, count_users() from users where id = 5

-- name: function that reads a table, over a reference table
-- expect: refused
select code from countries where count_users() > 0

-- name: function that reads a table, in FROM
-- expect: refused
select * from count_users()

-- name: function that reads a reference table
select count_countries()

-- name: function that reads a reference table, in a routed statement
select id, count_countries() from users where id = 5

-- name: functions that read nothing
select add_one(5), noisy(7), product(n) from generate_series(1, 5) n

-- name: a query in a text
-- expect: refused
select query_to_xml('select count(*) from users', true, true, '')

-- name: function that reads a table, per row
-- expect: refused
select id, count_users() from users

-- name: tableoid of a sharded table
-- note: OIDs of tables differ between shards; as a name it is right
select tableoid::regclass::text, count(*) from events group by 1

-- name: ctid
-- expect: same-or-refused
-- compare: shape
select ctid, id from users

-- name: tablesample of all
select count(*), count(distinct country) from users tablesample bernoulli (100)

-- name: tablesample of all pages, grouped, repeatable
select country, count(*) from users u tablesample system (100) repeatable (3) group by country

-- name: tablesample of nothing
select count(*) from events tablesample system (0)

-- name: tablesample of sharded and reference tables, joined
select u.id, t.id from users u tablesample bernoulli (100) join tags t tablesample bernoulli (100) on t.id = u.id % 5

-- name: a reference table's sample is the same for all rows that are joined with it
-- note: were it taken on each shard, a tag would be in it for some users and not for others
select count(*) from (select t.id from users u cross join tags t tablesample bernoulli (50) group by t.id having count(*) <> (select count(*) from users)) q

-- name: a sample in WITH is taken once
with s as (select id from users tablesample bernoulli (50)) select (select count(*) from s) = (select count(*) from s), (select sum(id) from s) is not distinct from (select sum(id) from s)

-- name: two samples of one table are two
select (select string_agg(id::text, ',' order by id) from events tablesample bernoulli (50)) = (select string_agg(id::text, ',' order by id) from events tablesample bernoulli (50))

-- name: two samples of one table with the same seed are one
select (select string_agg(id::text, ',' order by id) from events tablesample bernoulli (50) repeatable (7)) = (select string_agg(id::text, ',' order by id) from events tablesample bernoulli (50) repeatable (7))

-- name: tablesample in subqueries
select t.id, (select count(*) from users u tablesample system (100) where u.id % 5 = t.id) from tags t where exists (select from users x tablesample bernoulli (100) where x.id = t.id)

-- name: tablesample with column aliases and a whole row
select d.a, d from users as d (a, b) tablesample bernoulli (100) where d.a < 20

-- name: tablesample with a parameter
-- params: [["?", "100"]]
select count(*) from users tablesample bernoulli ($1)

-- name: tablesample with a bad percentage
-- expect: 2202H
select count(*) from users tablesample bernoulli (101)

-- name: tablesample with NULL
-- expect: 2202H
select u.id from users u tablesample system (null) join events e on e.id = u.id

-- name: tablesample with a percentage that rows decide
-- expect: same-or-refused
select count(*) from (values (0), (100)) v (p), lateral (select * from users tablesample bernoulli (v.p)) x

-- name: a literal in the default DateStyle
select count(*) from events where at > '03/04/2024'

-- name: the same literal in another DateStyle
-- before: set datestyle = 'SQL, DMY'
-- after: reset datestyle
-- note: statements prepared on a shard keep their literals as they were read
select count(*) from events where at > '03/04/2024'

-- name: the same literal in the default DateStyle again
select count(*) from events where at > '03/04/2024'

-- name: volatile function in WHERE
select count(*) from users where random() >= 0

-- name: volatile function in a subquery of FROM
select count(*), count(distinct r) > 1 from (select random() r from users) q where r < 2

-- name: volatile function in ORDER BY
-- compare: shape
select id from users order by random() limit 5

-- name: one moment for the whole statement
select count(*), count(distinct m) from (select statement_timestamp() m from users) q

-- name: a setting of the session
select current_setting('TimeZone'), count(*) from users

-- name: system columns as the rows' shards have them
-- compare: shape
select ctid, xmin, cmin, id from users where id < 30

-- name: system columns in an expression of the select list
select ctid is not null, id from users order by id limit 5

-- name: system columns that decide which rows
-- expect: refused
select id from users where ctid = '(0,1)'

-- name: system columns grouped
-- expect: refused
select xmin, count(*) from users group by xmin


-- name: a parameter of a user's enum, whose OID differs from shard to shard
-- params: [["?", "ok"]]
select id, mood from tags where mood = $1 order by id

-- name: an enum parameter over sharded rows
-- params: [["?", "ok"]]
select id, mo from alltypes where mo = $1 order by id

-- name: an array parameter of a user's enum
-- params: [["?", "{ok,sad}"]]
select mo, count(*) from alltypes where mo = any ($1) group by mo order by mo

-- name: an enum parameter in an expression beside an aggregate
-- params: [["?", "ok"]]
select count(*) filter (where mo >= $1), max(coalesce(mo, $1)) from alltypes

-- name: a bad value of an enum parameter
-- expect: 22P02
-- params: [["?", "angry"]]
select count(*) from alltypes where mo = $1

-- name: a range parameter of a user's type
-- params: [["?", "[1,2)"]]
select count(*) from alltypes where fr && $1

-- name: row security by rows of other shards
-- note: each shard let those see it whom it knew
-- expect: same-or-refused
select count(*), min(id) from member_notes

-- name: row security by rows of other shards, of one shard's row
-- expect: same-or-refused
select id, v from member_notes where id = 7

-- name: row security by a reference table
select code, count(*), sum(v) from country_notes group by code order by code

-- name: row security by a reference table, joined
select n.id, c.name from country_notes n join countries c on c.code = n.code where n.id < 20 order by n.id
