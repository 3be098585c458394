-- Rows of all other tables, the same on every node. Floats are multiples of 1/4, so that sums do not depend on their order.
insert into users
select i, (array['ana', 'Ana', 'Ána', 'bob', 'Bob', 'd''Arc', 'de Souza', 'De Souza', 'Émile', 'emile', 'Zoë', 'zoe', '李', 'Łukasz'])[1 + i % 14] || ' ' || i / 2 % 40,
  case when i % 11 <> 0 then 'u' || i || '@example.com' end, (array['BR', 'US', 'DE', 'FR', 'JP', null])[1 + i % 6],
  case when i % 5 <> 0 then 1 + i * 31 % 320 end, case when i % 17 <> 0 then (i * 53 % 400) * 0.25 end,
  case when i % 13 <> 0 then timestamptz '2022-01-01 00:00+00' + i * 7 * interval '1 hour' end,
  case when i % 6 <> 0 then (array['{vip}', '{}', '{new,beta}', '{vip,old}'])[1 + i % 4]::text[] end,
  case when i % 8 <> 0 then jsonb_build_object('age', 18 + i % 60, 'lang', (array['pt', 'en', 'fr'])[1 + i % 3]) end,
  case when i % 10 <> 0 then i % 3 <> 0 end
from generate_series(1, 300) i;

-- User ids up to 330: some have no user; users whose id is a multiple of 7 have no event.
insert into events
select i, u, (array['click', 'view', 'buy', 'refund', 'Login'])[1 + i % 5], timestamptz '2023-01-01 00:00+00' + i * 8 * interval '1 hour',
  case when i % 4 <> 0 then (i * 37 % 50000) / 100.0 - 50 end, case when i % 10 <> 0 then jsonb_build_object('n', i % 6, 'src', (array['web', 'app'])[1 + i % 2]) end
from generate_series(1, 2000) i cross join lateral (select 1 + i * 17 % 330 as u) k where u % 7 <> 0;

insert into visits select case when i % 9 <> 0 then 1 + i * 11 % 320 end, (array['/', '/a', '/b', null])[1 + i % 4], case when i % 5 <> 0 then i % 20 end from generate_series(1, 400) i;
insert into small_keys select i, i::int2, i * 10, i from generate_series(-20, 120) i;
insert into orders
select i, case when i % 12 <> 0 then 1 + i * 7 % 300 end, date '2024-01-01' + i % 90, (i * 12345 % 100000) / 100.0, (array['O', 'F', 'P'])[1 + i % 3], case when i % 4 = 0 then 'note ' || i end
from generate_series(1, 200) i;
insert into lineitem
select o, l, 'sku' || (o * l) % 17, 1 + (o + l) % 9, (o * 31 + l * 7) % 1000 / 10.0, case when l % 3 <> 0 then (o % 5) * 0.25 end, case when (o + l) % 5 <> 0 then date '2024-02-01' + (o % 60)::int4 end
from generate_series(1, 210) o cross join generate_series(1, 6) l where l <= o % 7;
insert into "Order Items" select i, 1 + i * 3 % 300, (array['Widget', 'widget', 'Gadget "XL"', 'Bob''s Pie', 'Café crème', null])[1 + i % 6], i % 13 from generate_series(1, 300) i;
insert into dupes
select i, (array[null, 0, 1, 2, 3, 4, 5])[1 + i % 7], (array['a', 'b', 'B', 'á', null, '', 'c '])[1 + i * 3 % 7], (array[null, '1', '1.0', '1.00', '2.5', 'NaN'])[1 + i % 6]::numeric,
  (array[null, '2020-01-01', '2020-06-15', '2021-01-01'])[1 + i % 4]::date, (array[null, 0, '-0', 'NaN', 1.5])[1 + i % 5]::float8
from generate_series(1, 400) i;
insert into lonely
select i, 'v' || i, case when i % 3 <> 0 then i * 1.5 end, i % 3 from generate_series(1, 60) i where satisfies_hash_partition('shardfn.h_int8'::regclass, 3, 1, i::int8);
insert into big select i, i * 7919 % 30011, md5(i::text) from generate_series(1, 30000) i;

-- Each shard gets one row near every limit: sums overflow only over all of them.
insert into limits
select min(i), 32767, 2147483647, 9223372036854775807 / 2, 99999999999999999999999999999999.99, 3e38, 1.5e308
from generate_series(1, 100) i group by shardfn.shard_of('shardfn.h_int8'::regclass, i::int8);

insert into by_text
select k, row_number() over (order by k collate "C"), (row_number() over (order by k collate "C")) * 0.5
from (values ('a'), ('A'), ('á'), ('b'), (''), ('a '), ('ab'), ('日本'), ('😀'), ('x''y'), ('NULL'), ('42'), ('co-op'), ('coop'), ('Zoë'), ('zoe')) v(k)
union all select 'key' || i, 100 + i, i * 0.5 from generate_series(1, 80) i;
insert into by_uuid select md5(i::text)::uuid, i from generate_series(1, 90) i;
insert into by_date select date '2024-01-01' + i, i, 'day ' || i % 7 from generate_series(0, 99) i union all values (date '-infinity', -1, 'first'), (date 'infinity', 1000, 'last'), (date '0044-03-15 BC', -2, 'ides');

insert into tags
select i, (array['alpha', 'Beta', 'gamma', 'éta', null])[1 + i % 5] || i / 5, case when i % 9 <> 0 then i * 137 % 2000 / 100.0 end, (array['sad', 'ok', 'happy', 'ecstatic', null])[1 + i % 5]::mood, case when i % 7 <> 0 then i % 2 = 0 end
from generate_series(1, 40) i;
insert into countries_of_accounts values ('BR'), ('US');
insert into countries values ('BR', 'Brasil', 'Americas'), ('US', 'United States', 'Americas'), ('DE', 'Deutschland', 'Europe'), ('FR', 'France', 'Europe'), ('XX', 'Nowhere', null);
insert into other.users select i, 'other ' || i from generate_series(1, 5) i;

insert into notes select i, (array['app', 'alice', 'bob', 'staff', 'carol'])[1 + i % 5], i * 7 % 100 from generate_series(1, 400) i;
insert into member_notes select i, 'user ' || i, i from generate_series(1, 60) i;
insert into country_notes select i, (array['BR', 'US', 'XX', null])[1 + i % 4], i from generate_series(1, 60) i;

grant select on notes, all_notes, countries, hides, events to alice, bob, carol, dora, staff;
grant select on users to alice;
grant insert, delete on notes to alice, bob;
alter table bob.hides owner to bob;
insert into hides values (1), (2), (3);
grant create on schema public to app;
grant usage on schema other to app, guarded;
grant all on all tables in schema public, other to app, guarded;
grant all on all sequences in schema public to app, guarded;
