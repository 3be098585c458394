-- The schema of the oracle and of every shard. Sharded tables: see harness/config.rs.
create role app login password 'app';
create role guarded login password 'secret';
grant pg_monitor to app;
-- Roles with privileges and settings of their own. Carol's verifier is the same on every server, the others' are not.
create role staff nologin;
create role alice login password 'alice';
create role bob login password 'bob';
create role carol login password 'SCRAM-SHA-256$4096:c2FsdCBvZiBjYXJvbCAxNg==$hfU1Fb0tLVGAwLk3M+9SvaRxHDDALpzuKXLwgCSkF0U=:f3r42IMKqqK91C7exeG25Zhsh+N58tjkD/xkkBrLXWo=';
create role dora login password 'dora';
create role erin login password 'erin';
alter role erin set default_transaction_isolation = 'serializable';
create role jane login in role staff;
alter role jane set role = 'staff';
create role fred login password 'SCRAM-SHA-256$4096:c2FsdCBvZiBjYXJvbCAxNg==$hfU1Fb0tLVGAwLk3M+9SvaRxHDDALpzuKXLwgCSkF0U=:f3r42IMKqqK91C7exeG25Zhsh+N58tjkD/xkkBrLXWo=' valid until '2020-01-01';
create role gina login password 'SCRAM-SHA-256$4096:c2FsdCBvZiBjYXJvbCAxNg==$hfU1Fb0tLVGAwLk3M+9SvaRxHDDALpzuKXLwgCSkF0U=:f3r42IMKqqK91C7exeG25Zhsh+N58tjkD/xkkBrLXWo=' valid until 'infinity';
create role hugo login password 'md5a7d0f8a8b3f4b5d5a7a5f5d0a5a7b5c5';
create role ines login;
grant staff to alice;

create type mood as enum ('sad', 'ok', 'happy', 'ecstatic');
create type pair as (a int4, b text);
create domain posint as int4 check (value > 0);
create domain email as text check (value ~ '@');
create type frange as range (subtype = float8);

-- One colocation group: keys of the integer class.
create table users (
  id int8 primary key, name text not null, email email, country char(2), manager_id int8, score float8,
  created_at timestamptz, tags text[], profile jsonb, active bool);
create table events (
  id int8 not null, user_id int8 not null, kind text not null, at timestamptz not null, amount numeric(10,2), payload jsonb
) partition by range (at);
create table events_2023 partition of events for values from ('2023-01-01 00:00+00') to ('2024-01-01 00:00+00');
create table events_2024 partition of events for values from ('2024-01-01 00:00+00') to ('2025-01-01 00:00+00');
create index on events (user_id);
create table visits (user_id int8, page text, n int4);
create table small_keys (k int4 primary key, s int2, n int8, f float8);
create table orders (
  id int8 primary key, customer_id int8, placed date, total numeric(12,2), status char(1), note text);
create table lineitem (
  order_id int8, line int4, sku text, quantity int4, price numeric(10,2), discount float8, shipped date,
  primary key (order_id, line));
create table "Order Items" ("Id" int8 not null, "UserId" int8 not null, "Product Name" text, "Qty" int4);
create table dupes (id int8 primary key, k int4, v text, w numeric, d date, f float8);
create table empty_s (id int8 primary key, k int4, v text, n numeric, f float8, d date, b bool);
create table lonely (id int8 primary key, v text, n numeric, k int4);
create table big (id int8 primary key, x int8, pad text);
create table limits (id int8 primary key, i2 int2, i4 int4, i8 int8, n numeric, f4 float4, f8 float8);
-- Keys of other classes.
create table by_text (k text primary key, n int4, v numeric);
create table by_uuid (k uuid primary key, n int4);
create table by_date (k date primary key, n int4, v text);

-- Written by tests; empty at first.
create table countries_of_accounts (code char(2) primary key);
create table accounts (
  id int8 primary key, owner text not null default 'nobody', balance numeric(12,2) default 0 check (balance >= 0),
  opened timestamptz default now(), marks int4[], country char(2) references countries_of_accounts);
create table bookings (
  account int8 references accounts (id) on delete cascade deferrable initially deferred, n int4, what text, primary key (account, n));
create table parted (k int4 not null, part int4 not null, v text, primary key (k, part)) partition by list (part);
create table parted_1 partition of parted for values in (1);
create table parted_2 partition of parted for values in (2);
create table by_code (code varchar(4) primary key, v text);
-- What one shard cannot keep.
create table numbered (id int8 primary key, n serial, v text);
create table single_names (id int8 primary key, name text unique, v text);
create table single_words (id int8 primary key, word text, v text);
create unique index on single_words (lower(word));
create table orphans (id int8 primary key, account int8 references users (id));
create table watched (id int8 primary key, v text);
create function watch() returns trigger language plpgsql as 'begin new.id := new.id + 1; return new; end';
create trigger watch before insert or update on watched for each row execute function watch();
create table part_watched (k int4, part int4) partition by list (part);
create table part_watched_1 partition of part_watched for values in (1);
create trigger watch after update on part_watched_1 for each row execute function watch();

-- Reference tables.
create table tags (id int4 primary key, label text, weight numeric(6,2), mood mood, active bool);
create table countries (code char(2) primary key, name text, region text);
create table empty_r (id int8, v text);
create schema other;
create table other.users (id int8 primary key, name text);

create view v_users as select id, name, country from users where active;
create view v_user_events as
  select u.id, u.name, e.id as event_id, e.kind, e.amount from users u join events e on e.user_id = u.id;
create view v_user_totals as
  select u.id, u.name, count(e.id) as events, coalesce(sum(e.amount), 0) as total
  from users u left join events e on e.user_id = u.id group by u.id, u.name;
create view v_kinds as select kind, count(*) as n, sum(amount) as total from events group by kind;
create view v_countries as select code, name from countries where region is not null;
create view v_clock as
  select id, now() as seen, statement_timestamp() as said, current_date as today, age(created_at) as age from users where active;
create view v_clocks as select seen, count(*) as n, min(today) as today from v_clock group by seen;
create function moment() returns timestamptz language sql stable as 'select now()';
create view v_union as select id, name from users union all select id, label from tags;

create function add_one(int8) returns int8 language sql immutable as 'select $1 + 1';
create function count_users() returns int8 language sql stable as 'select count(*) from public.users';
create function count_users_plpgsql() returns int8 language plpgsql stable as 'begin return (select count(*) from public.users); end';
create function count_countries() returns int8 language sql stable begin atomic select count(*) from countries; end;
create domain crowd as int8 check (value <= public.count_users());
create domain small_crowd as crowd check (value < 100000);
create function noisy(int8) returns int8 language plpgsql volatile as 'begin return $1; end';
-- A type with operators and aggregates of its own, as extensions have them: everybody else's `=` and max are what they were.
create type release as (major int4, minor int4);
create function same_release(release, release) returns bool language sql immutable as 'select $1.major = $2.major';
create operator = (leftarg = release, rightarg = release, function = same_release);
create function release_text(release) returns text language sql immutable as 'select $1.major || ''.'' || $1.minor';
create cast (release as text) with function release_text(release);
create function later_release(release, release) returns release language sql immutable strict as 'select greatest($1, $2)';
create aggregate max(release) (sfunc = later_release, stype = release);
create aggregate product(int8) (sfunc = int8mul, stype = int8, initcond = '1');
create sequence counter;

-- Rows that only their owner sees, and a view whose owner sees them all.
create table notes (id int8 primary key, owner text not null, v int4);
alter table notes enable row level security;
create policy own on notes using (owner = current_user);
create view all_notes as select * from notes;
-- Whom a policy lets see a row is said by rows of other shards, or by those that every shard has.
create table member_notes (id int8 primary key, owner text not null, v int4);
alter table member_notes enable row level security;
create policy members on member_notes using (exists (select from public.users u where u.name = owner or u.id = 1));
create table country_notes (id int8 primary key, code char(2), v int4);
alter table country_notes enable row level security;
create policy known on country_notes using (code in (select c.code from public.countries c where c.region is not null) and current_user <> 'nobody');
-- What checks new rows, by the rows of one shard.
create table checked_rows (id int8 primary key, v int8 check (v <= count_users()));
create table domain_rows (id int8 primary key, v crowd);
create table numbers_rows (id int8 primary key, v int8 check (add_one(v) > 0));
create function become(name text) returns text language plpgsql as 'begin execute format(''set role %I'', name); return current_user; end';
-- Bob's own table hides the one in public; nobody may look into `hidden`.
create table hides (id int8 primary key);
create schema bob authorization bob;
create table bob.hides (id int8);
create schema hidden;
create table hidden.hides (id int8);

-- What of a table belongs to a shard; dropped after loading.
create schema shardfn;
create table shardfn.h_int8 (k int8) partition by hash (k);
create table shardfn.h_text (k text) partition by hash (k);
create table shardfn.h_uuid (k uuid) partition by hash (k);
create table shardfn.h_date (k date) partition by hash (k);
create function shardfn.shard_of(parent regclass, anyelement) returns int4 language sql as $$
  select case when satisfies_hash_partition(parent, 3, 0, $2) then 0
              when satisfies_hash_partition(parent, 3, 1, $2) then 1 else 2 end
$$;
create procedure shardfn.keep_only(mine int4) language plpgsql as $$
declare rule text[];
begin
  foreach rule slice 1 in array array[
    ['users', 'id', 'int8'], ['events', 'user_id', 'int8'], ['visits', 'user_id', 'int8'],
    ['small_keys', 'k::int8', 'int8'], ['orders', 'id', 'int8'], ['lineitem', 'order_id', 'int8'],
    ['"Order Items"', '"UserId"', 'int8'], ['dupes', 'id', 'int8'], ['lonely', 'id', 'int8'],
    ['big', 'id', 'int8'], ['notes', 'id', 'int8'], ['member_notes', 'id', 'int8'], ['country_notes', 'id', 'int8'],
    ['limits', 'id', 'int8'], ['alltypes', 'id', 'int8'],
    ['by_text', 'k', 'text'], ['by_uuid', 'k', 'uuid'], ['by_date', 'k', 'date']]
  loop
    execute format('delete from %s where not satisfies_hash_partition(''shardfn.h_%s''::regclass, 3, %s, %s)',
                   rule[1], rule[3], mine, rule[2]);
  end loop;
end $$;
