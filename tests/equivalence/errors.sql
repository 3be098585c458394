-- name: syntax error
-- expect: 42601
selec 1

-- name: syntax error in the middle
-- expect: 42601
select id from users where where id = 1

-- name: unterminated string
-- expect: 42601
select 'abc

-- name: no such table
-- expect: 42P01
select * from no_such_table

-- name: no such schema
-- expect: 42P01
select * from no_such_schema.users

-- name: no such column
-- expect: 42703
select nme from users

-- name: no such column behind multi-byte characters
-- expect: 42703
select 'äöü', nme from users

-- name: no such column with a key
-- expect: 42703
select nme from users where id = 1

-- name: ambiguous column
-- expect: 42702
select id from users u join events e on e.user_id = u.id

-- name: no such function
-- expect: 42883
select no_such_function(id) from users

-- name: no such operator
-- expect: 42883
select id from users where id = name

-- name: type mismatch
-- expect: 22P02
select id from users where id = 'abc'

-- name: not in group by
-- expect: 42803
select country, name, count(*) from users group by country

-- name: aggregate in where
-- expect: 42803
select id from users where count(*) > 1

-- name: nested aggregates
-- expect: 42803
select sum(count(*)) from users

-- name: order by position out of range
-- expect: 42P10
select id from users order by 2

-- name: negative limit
-- expect: 2201W
select id from users order by id limit -1

-- name: negative offset
-- expect: 2201X
select id from users order by id offset -1

-- name: negative limit by parameter
-- expect: 2201W
-- params: [["int8", "-1"]]
select id from users order by id limit $1

-- name: bad limit
-- expect: 22P02
select id from users limit 'x'

-- name: limit of a column
-- expect: 42P10
select id from users limit id

-- name: missing parameter
-- expect: 42P02
-- only: simple
select id from users where id = $1

-- name: union of different widths
-- expect: 42601
select id from users union all select id, name from users

-- name: union of different types
-- expect: 42804
select id from users union all select name from users

-- name: distinct on without matching order
-- expect: 42P10
select distinct on (country) id from users order by id

-- name: undeclared table
-- note: partitions inherit, catalogs are known; this does not exist anywhere
-- expect: 42P01
select * from pg_no_such_catalog

-- name: permission denied
-- expect: 42501
select * from pg_authid

-- name: subquery with more than one row
-- expect: 21000
select (select id from tags)

-- name: bad collation
-- expect: 42704
select name from users order by name collate "no_such"

-- name: collation mismatch
-- expect: 42P21
select id from alltypes where (coll collate "C") < (tc collate "POSIX")

-- name: window in where
-- expect: 42P20
select id from users where row_number() over () = 1

-- name: duplicate alias
-- expect: 42712
select 1 from users u, events u

-- name: lateral reference to the right
-- expect: 42P01
select 1 from users u, (select e.id) s, events e

-- name: bad cast of a constant
-- expect: 22P02
select 'x'::int4 from users

-- name: unknown type
-- expect: 42704
select id::no_such_type from users

-- name: several statements in an extended query
-- expect: 42601
-- only: extended
select 1; select 2

-- name: insert over several shards is refused
-- expect: refused
insert into lonely select id, 'x', 1, 1 from users where false

-- name: insert of a row that is there
insert into users (id, name) values (1, 'x') on conflict do nothing

-- name: update over several shards is refused
-- expect: refused
update lonely set v = v where k = -1

-- name: update of no row
-- params: [["int8", "-1"]]
update users set active = active where id = -1 and id = $1 returning *

-- name: delete over several shards is refused
-- expect: refused
delete from lonely where k = -1

-- name: delete of no row
delete from lonely where id = -1 returning *, 1 / id

-- name: truncate is refused
-- expect: refused
-- only: simple
truncate empty_s

-- name: data-modifying CTE is refused
-- expect: refused
with d as (delete from lonely where id = -1 returning id) select * from d

-- name: select into is refused
-- expect: refused
-- after: drop table if exists made_by_into
select id into made_by_into from users

-- name: merge is refused
-- expect: refused
merge into lonely l using (select 1 as id) s on l.id = -s.id when not matched then do nothing

-- name: insert into a reference table is refused
-- expect: refused
insert into empty_r select 1, 'x' where false

-- name: subquery of a CASE branch that is not taken
-- note: what is staged must not raise what one server never evaluates
select case when l.id > 1000000 then (select 1 / (d.id - 1) from dupes d where d.id = 1) end from lonely l

-- name: subquery of a CASE branch that is taken
-- expect: 22012
select case when l.id > 0 then (select 1 / (d.id - 1) from dupes d where d.id = 1) end from lonely l

-- name: select list of EXISTS
select l.id from lonely l where exists (select 1 / (d.id - d.id) from dupes d where d.k is not null)

-- name: column of a subquery that nobody names
select count(*) from (select 1 / (id - 1) x, id from dupes) q join lonely l on l.v <> '' and q.id < 5

-- name: column of a grouped subquery that nobody names
select count(*) from (select k, sum(1 / (id - 1)) from dupes group by k) q

-- name: HAVING on groups comes before aggregates
select k, max(1 / (k - 3)) from dupes group by k having k <> 3

-- name: HAVING on groups comes before aggregates, in a subquery
select count(*) from (select k, max(1 / (k - 3)) x from dupes group by k having k <> 3) q join lonely l on l.k = q.x

-- name: subquery for no rows
select (select 1 / (id - id) from dupes where id = 3) from empty_s

-- name: WITH query behind a false condition
with x as (select 1 / (id - id) a, k from dupes) select id from lonely where false and id in (select k from x)

-- name: WITH query that nobody names
with x as (select 1 / (id - id) from dupes) select count(*) from lonely l join dupes d on l.k = d.k

-- name: COALESCE stops at a value
select coalesce(l.id, (select (v || 'x')::int from dupes where id = 1)) from lonely l

-- name: overflow in a subquery that is not needed
select case when id < 0 then (select max(i4 + 2147483647) from limits) end from lonely

-- name: overflow in a subquery that is needed
-- expect: 22003
select id, (select max(i4 + 2147483647) from limits) from lonely

-- name: bad cast in EXISTS
select id from lonely where exists (select (v || 'x')::int from dupes)

-- name: condition that fails on rows a join leaves out
select count(*) from (select id, k from dupes where k is not null) d join lonely l on l.k = d.k where case when d.k = 0 then 1 else 10 / d.k end > 0


-- name: a domain whose check reads a sharded table
-- expect: refused
select count(*)::crowd from users

-- name: columns of a function with a domain whose check reads a sharded table
-- expect: refused
select u.id, x.a from users u, jsonb_to_record(u.profile) as x(a crowd)

-- name: columns of one of several functions with a domain whose check reads a sharded table
-- expect: refused
select u.id, x.a from users u, rows from (jsonb_to_record(u.profile) as (a crowd), generate_series(1, 2)) as x(a, b)

-- name: XMLTABLE with a domain whose check reads a sharded table
-- expect: refused
select u.id, x.a from users u, xmltable('/r/a' passing xmlelement(name r, xmlelement(name a, u.id)) columns a crowd path '.') x

-- name: a domain over one whose check reads a sharded table
-- expect: refused
select 5::small_crowd

-- name: a change in a read-only transaction
-- only: simple
-- before: begin read only
-- after: rollback
-- expect: 25006
create table never_made (a int)

-- name: a change of rows in a read-only transaction
-- only: simple
-- before: begin isolation level serializable, read only, deferrable
-- after: rollback
-- expect: 25006
create unique index never_made on users (id)

-- name: a change where reading is the default
-- only: simple
-- before: set default_transaction_read_only = on
-- after: reset default_transaction_read_only
-- expect: 25006
drop table users
