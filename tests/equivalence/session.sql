-- name: show
-- only: simple
show timezone

-- name: show server version
show server_version

-- name: set and reset
-- only: simple
set work_mem to '5MB'

-- name: reset
-- only: simple
reset work_mem

-- name: setting applies everywhere
-- before: set search_path to other, public
-- after: reset search_path
select id, name from users

-- name: search path names the sharded table again
-- before: set search_path to public
-- after: reset search_path
select count(*) from users

-- name: current setting per row
-- expect: same-or-refused
-- before: set my.value to 'seen'
-- after: reset my.value
select distinct current_setting('my.value') from users

-- name: set_config in a select
-- after: reset application_name
select set_config('application_name', 'case', false)

-- name: current schema and database
select current_schema(), current_database(), current_user

-- name: version
select version()

-- name: catalog query
select count(*) > 5 from pg_catalog.pg_class where relname like 'u%' or relkind = 'r'

-- name: catalog lookup by name
select relname, relkind from pg_class where oid = 'users'::regclass

-- name: columns by information_schema
select column_name, data_type from information_schema.columns where table_name = 'orders' and table_schema = 'public' order by ordinal_position

-- name: regclass of a table
select 'public.users'::regclass::text

-- name: catalog joined with a sharded table
select count(*) from users u join pg_class c on c.relname = u.name

-- name: a count of sharded rows beside a catalog
select relname, relkind, (select count(*) from users) from pg_class where relname in ('users', 'events') order by 1

-- name: information_schema beside sharded rows
select c.column_name, c.ordinal_position, c.data_type, x.n from information_schema.columns c cross join (select count(*) as n from events) x where c.table_name = 'users' and c.table_schema = 'public' order by 2

-- name: one shard's row beside a catalog
-- note: the catalog that is read is the first shard's, wherever the row is
select u.id, c.relname from users u join pg_class c on c.relname = 'users' where u.id = 5

-- name: a catalog that looks into sharded rows
select nspname from pg_namespace where nspname like 'pub%' and not exists (select from users where name = nspname)

-- name: a catalog, a reference table and sharded rows
select n.nspname, t.id, u.id from pg_namespace n, tags t join users u on u.id = t.id where n.nspname = 'public'

-- name: names of objects by OID beside sharded rows
-- expect: refused
select u.id, c.relname from users u, pg_class c where c.oid = 'users'::regclass

-- name: types by OID beside sharded rows
-- expect: refused
select u.id, t.typname from users u join pg_type t on t.oid = pg_typeof(u.name)

-- name: a catalog's column that names objects by OID, beside sharded rows
-- expect: refused
select typname, typinput, (select count(*) from users) from pg_type where typname = 'int4'

-- name: read only transaction
-- only: simple
-- before: begin read only
-- after: commit
select count(*) from users

-- name: repeatable read transaction
-- only: simple
-- before: begin isolation level repeatable read
-- after: commit
select sum(id) from users

-- name: error inside a transaction
-- only: simple
-- before: begin
-- after: rollback
-- expect: 22012
select 1 / 0

-- name: quoted identifiers of many kinds
select "Id", "UserId" as "User Id", "Qty" from "Order Items" where "Qty" > 6 order by "Id"

-- name: case folding of table names
select COUNT(*) from Public.USERS

-- name: many parameters
-- params: [["int4", "1"], ["text", "two"], ["float8", "3.5"], ["bool", "t"], ["date", "2024-01-05"], ["numeric", "6.70"], ["int8[]", "{7,8}"], ["?", "nine"]]
select $1::int4, $2::text, $3::float8, $4::bool, $5::date, $6::numeric, $7::int8[], $8::text, count(*) from users

-- name: parameter in the select list over all shards
-- params: [["text", "it's"]]
select id, $1::text || name from users where id < 10

-- name: NULL parameters everywhere
-- params: [["int8", null], ["text", null]]
select id, $1::int8, $2::text from users where $1::int8 is null and id < 5

-- name: large text
select length(repeat('x', 100000)), repeat('ab', 50000) from lonely

-- name: wide rows
select id, repeat(pad, 200) as wide from big where id % 100 = 0

-- name: name of an object as its OID
-- expect: same-or-refused
-- note: binary, it is the OID of what a user made
select id, tableoid::regclass from users where id < 20

-- name: name of a built-in object as its OID
select distinct pg_typeof(id), pg_typeof(name), 'sum(int8)'::regprocedure, 'pg_class'::regclass from users

-- name: names of built-in objects in an array and a row
select array[pg_typeof(id), 'text'::regtype], row(pg_typeof(id), id) from users where id < 10

-- name: name of an object in a row
-- expect: same-or-refused
select id, row(tableoid::regclass) from users where id < 20

-- name: grouped by partition
-- expect: same-or-refused
select tableoid::regclass as part, count(*), min(at) from events group by 1 order by 1

-- name: names of objects brought together
-- expect: same-or-refused
select tableoid::regclass::text, count(distinct kind) from events group by tableoid::regclass order by 1

-- name: groups of dates in another DateStyle
-- before: set datestyle = 'SQL, DMY'
-- after: reset datestyle
select placed, count(*), min(placed) from orders group by placed

-- name: groups of times in another DateStyle
-- before: set datestyle = 'Postgres, MDY'
-- after: reset datestyle
select ts, count(*) from (select created_at at time zone 'UTC' as ts from users) s group by ts

-- name: groups of moments in another DateStyle
-- before: set datestyle = 'German'
-- after: reset datestyle
select at, count(*) from events group by at

-- name: distinct dates in another DateStyle
-- before: set datestyle = 'German'
-- after: reset datestyle
select distinct placed from orders

-- name: distinct bytes in another form
-- before: set bytea_output = 'escape'
-- after: reset bytea_output
select distinct convert_to(name, 'UTF8') from users

-- name: sums with few digits
-- expect: same-or-refused
-- before: set extra_float_digits = 0
-- after: reset extra_float_digits
select sum(score / 3) from users

-- name: counts with few digits
-- before: set extra_float_digits = 0
-- after: reset extra_float_digits
select status, count(*), sum(total), avg(total), max(total) from orders group by status

-- name: greatest of few digits
-- before: set extra_float_digits = -3
-- after: reset extra_float_digits
select max(score), min(score) from users

-- name: enums and arrays brought together in another DateStyle
-- before: set datestyle = 'SQL, DMY'
-- after: reset datestyle
select u.tags, count(distinct e.kind), max(e.at) from users u join orders o on o.customer_id = u.id join events e on e.id = o.id group by 1

-- name: arrays of dates brought together in another DateStyle
-- before: set datestyle = 'SQL, DMY'
-- after: reset datestyle
select days, count(distinct n) from (select array_agg(placed order by id) as days, status as n from orders group by id, status) s group by days order by days limit 20

-- name: arrays of moments brought together in another DateStyle
-- before: set datestyle = 'SQL, DMY'
-- before: set timezone = 'Europe/Moscow'
-- after: reset datestyle
-- after: reset timezone
-- expect: same-or-refused
select days, count(distinct n) from (select array_agg(created_at) as days, active as n from users group by id, active) s group by days order by days limit 20

-- name: intervals in another style
-- before: set intervalstyle = 'sql_standard'
-- after: reset intervalstyle
select max(created_at - timestamptz '2020-01-01'), count(distinct name) from users

-- name: arrays of intervals in another style
-- expect: same-or-refused
-- before: set intervalstyle = 'sql_standard'
-- after: reset intervalstyle
select d, count(distinct n) from (select array_agg(created_at - timestamptz '2030-01-01') as d, active as n from users group by id, active) s group by d order by d limit 20

-- name: EXECUTE
-- before: prepare by_k as select id, v from dupes where k > $1
-- after: deallocate by_k
execute by_k(3)

-- name: EXECUTE without parameters
-- before: prepare all_of as select count(*), min(v) from dupes
-- after: deallocate all_of
execute all_of

-- name: EXECUTE of what is not prepared
-- expect: 26000
execute never_prepared(1)

-- name: EXECUTE with an argument too many
-- before: prepare by_k as select id, v from dupes where k > $1
-- after: deallocate by_k
-- expect: 42601
execute by_k(3, 4)

-- name: PREPARE with a type that is not there
-- only: simple
-- expect: 42704
-- compare: sqlstate
prepare of_no_type (nonexistenttype) as select $1

-- name: prepared statements of the session's connections
-- note: they were pgbraid's own, with texts of other clients
-- expect: refused
select name, statement from pg_prepared_statements

-- name: the function behind pg_prepared_statements
-- expect: refused
select count(*) from pg_prepared_statement()

-- name: EXECUTE with a subquery
-- before: prepare of_id as select id from users where id = $1
-- after: deallocate of_id
-- expect: 0A000
execute of_id((select count(*) from users))

-- name: EXECUTE with a function that reads rows of all shards
-- note: it was one shard's count
-- before: prepare any_number(int8) as select $1 from countries
-- after: deallocate any_number
-- expect: same-or-refused
execute any_number(count_users())

-- name: EXECUTE with a domain whose check reads rows of all shards
-- before: prepare crowds(crowd) as select $1 from countries
-- after: deallocate crowds
-- expect: same-or-refused
execute crowds(299)

-- name: EXECUTE with a value whose type has its own cast to text
-- before: prepare of_release(release) as select $1 as r, count(*) from countries
-- after: deallocate of_release
execute of_release(row(3, 1))

-- name: EXECUTE with a computed value
-- before: prepare by_ids(int8[]) as select id, name from users where id = any ($1) order by id
-- after: deallocate by_ids
execute by_ids(array[abs(-3), length('abcde'), null])
