-- name: untyped constant that reads the clock
-- expect: refused
select distinct coalesce(null::timestamptz, 'now') from users

-- name: now() in a block
-- before: begin
-- after: commit
-- compare: shape
select now(), now() = now()

-- name: a clock word over several shards
-- expect: refused
select count(*) from events where at < 'now'

-- name: a typed clock word
-- note: PostgreSQL reads it when it parses the statement
select count(distinct 'now'::timestamptz) from users

-- name: days by clock words
select distinct 'today'::date - 'yesterday'::date, 'tomorrow'::date - date 'today', 'today'::timestamp = current_date,
  'today'::timestamptz = date_trunc('day', now()), 'tomorrow'::timestamptz = current_date + 1 from users

-- name: days by clock words elsewhere
-- before: set timezone = 'Asia/Tokyo'
-- after: reset timezone
select distinct 'today'::date - current_date, 'today'::timestamptz = date_trunc('day', now()), 'now'::timestamp = localtimestamp from users

-- name: clock words of one shard
select 'today'::date - current_date, timestamp 'tomorrow' - current_date from users where id = 5

-- name: a clock word with a precision
-- only: simple
select distinct 'now'::timestamptz(0) = now()::timestamptz(0), 'now'::time(3) = localtime(3) from users

-- name: a clock word by way of text
select count(distinct 'now'::text::timestamptz), bool_and('now'::text::timestamptz = now()) from users

-- name: a clock word that stays text
select count(*) from users where name <> 'now'::text

-- name: a text that may become a moment
-- expect: refused
select count(*) from users where coalesce('now'::text, name)::timestamptz < now()

-- name: a parameter that reads the clock
-- only: extended
-- params: [["timestamptz", "now"]]
-- expect: refused
select count(distinct $1) from users

-- name: a parameter that is a moment
-- params: [["timestamptz", "2024-03-01 00:00+00"]]
select count(*) from events where at < $1

-- name: statement_timestamp is one value
select count(distinct statement_timestamp()), bool_and(statement_timestamp() >= now()) from users

-- name: both timestamps and a parameter
-- params: [["int8", "50"]]
select count(*), bool_and(now() <= statement_timestamp()) from users where id < $1 and created_at < statement_timestamp() and created_at < now()

-- name: age of one argument
select count(distinct age(created_at) - age(current_date, created_at)) from users

-- name: age of one argument per row
select id, age(created_at) = age(current_date, created_at) as same from users where id < 20

-- name: view that reads the clock
select count(distinct seen), count(distinct said), count(distinct today), count(*) from v_clock

-- name: rows of a view that reads the clock
select v.id, v.seen = now(), v.today = current_date, v.age < interval '1000 years' from v_clock v where id < 30 order by v.id

-- name: view named with its schema that reads the clock
select public.v_clock.id from public.v_clock where public.v_clock.seen = now() and id < 30

-- name: view over a view that reads the clock
select n, seen = now(), today = current_date from v_clocks

-- name: view that reads the clock, joined
select count(*), bool_and(v.seen = now()) from v_clock v join events e on e.user_id = v.id where e.at < v.seen

-- name: view that reads the clock on one shard
select id, seen = now() from v_clock where id = 5

-- name: view that reads the clock in a block
-- only: simple
-- before: begin
-- after: commit
select id, seen = now(), today = current_date from v_clock where id = 5

-- name: function that reads the clock
-- expect: refused
select count(distinct moment()) from users

-- name: function that reads the clock on one shard
select moment() = now() from users where id = 5

-- name: function that reads the clock, in a block
-- only: simple
-- before: begin
-- before: select now()
-- after: commit
-- expect: same-or-refused
select moment() = now() from users where id = 5

-- name: columns keep their names
select * from (select now(), current_date, localtime, statement_timestamp(), 'today'::date, age(created_at) from users where id = 7) q where false

-- name: columns keep their names in a block
-- only: simple
-- before: begin
-- after: commit
select * from (select now(), current_date, localtime, statement_timestamp(), 'today'::date, age(created_at) from users where id = 7) q where false
