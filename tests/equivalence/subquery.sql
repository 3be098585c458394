-- name: subquery in FROM
select * from (select id, upper(name) as n from users where active) s where id < 20

-- name: nested subqueries
select a from (select b + 1 as a from (select id * 2 as b from users) x) y where a < 30

-- name: subquery with renamed columns
select x, y from (select id, name from users) s(x, y) where x = 4

-- name: scalar subquery over a reference table
select id, (select name from countries c where c.code = u.country) as country from users u

-- name: scalar subquery over a sharded table, uncorrelated
-- expect: same-or-refused
select id, (select max(id) from events) from users where id < 5

-- name: scalar subquery in WHERE
-- expect: same-or-refused
select id from users where score = (select max(score) from users)

-- name: scalar subquery alone
-- expect: same-or-refused
select (select count(*) from users), (select count(*) from events)

-- name: scalar subquery correlated by the key
-- expect: same-or-refused
select id, (select count(*) from events e where e.user_id = u.id) from users u

-- name: scalar subquery correlated by the key with limit
-- expect: same-or-refused
select id, (select kind from events e where e.user_id = u.id order by at desc, id limit 1) from users u

-- name: scalar subquery correlated by another column
-- expect: same-or-refused
select id, (select name from users m where m.id = u.manager_id) from users u

-- name: tie above a limit does not count
-- expect: same-or-refused
select id, (select s.id from (select id, user_id from events order by id limit 3) s where s.user_id = u.id limit 1) from users u where id < 60

-- name: tie above an aggregate does not count
-- expect: same-or-refused
select id, (select s.n from (select max(user_id) as m, count(*) as n from events) s where s.m = u.id) from users u

-- name: EXISTS by the key
select id from users u where exists (select 1 from events e where e.user_id = u.id and e.kind = 'buy')

-- name: NOT EXISTS by the key
select id from users u where not exists (select 1 from events e where e.user_id = u.id)

-- name: EXISTS over a reference table
select id from users u where exists (select 1 from countries c where c.code = u.country and c.region = 'Europe')

-- name: NOT EXISTS over a reference table
select id from users u where not exists (select 1 from countries c where c.code = u.country)

-- name: EXISTS not correlated
-- expect: same-or-refused
select id from users where exists (select 1 from lonely where v = 'none such') or id < 3

-- name: EXISTS not correlated over one shard's rows
-- expect: same-or-refused
select count(*) from users where exists (select 1 from lonely)

-- name: EXISTS by another column
-- expect: same-or-refused
select id from users u where exists (select 1 from orders o where o.customer_id = u.id)

-- name: reference outside, sharded inside
-- note: a row of the outer would come from several shards
-- expect: same-or-refused
select code from countries c where exists (select 1 from users u where u.country = c.code)

-- name: reference outside, sharded inside, negated
-- expect: same-or-refused
select code from countries c where not exists (select 1 from users u where u.country = c.code)

-- name: reference outside tied by the inner key
-- expect: same-or-refused
select t.id from tags t where exists (select 1 from users u where u.id = t.id)

-- name: reference outside IN sharded
-- expect: same-or-refused
select t.id from tags t where t.id in (select user_id from events)

-- name: reference outside NOT IN sharded
-- expect: same-or-refused
select t.id from tags t where t.id not in (select user_id from events)

-- name: IN by the key
select id from users where id in (select user_id from events where kind = 'buy')

-- name: IN over a reference table
select id from users where country in (select code from countries where region = 'Americas')

-- name: IN not by the key
-- expect: same-or-refused
select id from users where id in (select customer_id from orders)

-- name: IN over one shard's rows
-- expect: same-or-refused
select id from users where score in (select k from lonely)

-- name: IN as a value
-- note: FALSE is not NULL
-- expect: same-or-refused
select id, id in (select user_id from visits) as visited from users

-- name: IN negated
-- expect: same-or-refused
select count(*) from users where not (id in (select user_id from visits))

-- name: IN under OR
-- expect: same-or-refused
select id from users where id < 4 or id in (select user_id from events where kind = 'buy')

-- name: NOT IN with a NULL anywhere
-- note: one NULL on one shard empties the answer everywhere
-- expect: same-or-refused
select count(*) from users where id not in (select user_id from visits)

-- name: NOT IN without NULLs
-- expect: same-or-refused
select id from users where id not in (select user_id from events)

-- name: NOT IN a locally empty inner
-- note: NULL NOT IN (empty) is true, and the inner is empty on two shards
-- expect: same-or-refused
select count(*) from visits where user_id not in (select id from lonely)

-- name: NOT IN over a reference table
select id from users where id not in (select id from tags)

-- name: NOT IN over a reference table with NULLs
select count(*) from users where country not in (select region from countries)

-- name: NOT IN an empty reference table
select count(*) from users where country not in (select v from empty_r)

-- name: NOT IN an empty sharded table
-- expect: same-or-refused
select count(*) from users where id not in (select id from empty_s)

-- name: ANY of a subquery
-- expect: same-or-refused
select id from users where id = any (select user_id from events where amount > 400)

-- name: ALL of a subquery
-- expect: same-or-refused
select count(*) from users where id > all (select id from lonely)

-- name: ALL of an empty subquery
-- expect: same-or-refused
select count(*) from users where id > all (select id from empty_s)

-- name: row IN subquery
-- expect: same-or-refused
select id from users where (id, active) in (select user_id, kind = 'buy' from events)

-- name: array of a subquery
-- expect: same-or-refused
select id, array(select e.id from events e where e.user_id = u.id order by e.id) from users u where id < 20

-- name: subquery in an aggregate
-- expect: same-or-refused
select sum((select count(*) from events e where e.user_id = u.id)) from users u

-- name: subquery in HAVING
-- expect: same-or-refused
select country, count(*) from users group by country having count(*) > (select count(*) from lonely)

-- name: subquery with OFFSET 0
-- expect: same-or-refused
select id from (select id from users offset 0) s where id < 7

-- name: CTE used once
with t as (select id, name from users where active) select * from t where id < 30

-- name: CTE used twice on the key
-- expect: same-or-refused
with t as (select id, name from users where id < 50) select a.id, b.name from t a join t b on a.id = b.id

-- name: CTE used twice off the key
-- expect: same-or-refused
with t as (select id, manager_id from users where id < 50) select count(*) from t a join t b on a.id = b.manager_id

-- name: CTE with an aggregate
-- expect: same-or-refused
with t as (select country, count(*) as n from users group by country) select * from t where n > 49

-- name: CTE of group by the key
with t as (select user_id, count(*) as n from events group by user_id) select u.id, t.n from users u join t on t.user_id = u.id

-- name: CTE materialized
-- expect: same-or-refused
with t as materialized (select id from users) select count(*) from t

-- name: CTE not used
-- expect: same-or-refused
with t as (select * from users) select count(*) from events

-- name: CTE named like a table
-- note: users is the CTE here, and a reference table's rows
with users as (select id, label as name from tags) select count(*), max(name) from users

-- name: CTE named like a table, joined with the table
-- expect: same-or-refused
with users as (select id from tags) select count(*) from users u join public.users p on p.id = u.id

-- name: recursive CTE of constants
-- expect: same-or-refused
with recursive t(n) as (select 1 union all select n + 1 from t where n < 10) select sum(n) from t

-- name: recursive CTE over a sharded table
-- expect: same-or-refused
with recursive t as (select id, manager_id, 1 as depth from users where id = 5 union select u.id, u.manager_id, depth + 1 from users u join t on u.id = t.manager_id where depth < 6) select * from t

-- name: recursive CTE over a reference table
-- expect: same-or-refused
with recursive t as (select id from tags where id = 1 union select x.id from tags x join t on x.id = t.id + 1) select count(*) from t

-- name: recursive CTE pinned
-- expect: same-or-refused
with recursive t as (select id, user_id, 1 as n from events where user_id = 17 union all select t.id, t.user_id, n + 1 from t where n < 3) select count(*) from t

-- name: view
select * from v_users where id < 20

-- name: view pinned by the key
select * from v_users where id = 17

-- name: view of a colocated join
-- expect: same-or-refused
select count(*), sum(amount) from v_user_events

-- name: view grouped by the key
-- expect: same-or-refused
select * from v_user_totals where events > 5

-- name: view grouped by the key, pinned
-- expect: same-or-refused
select * from v_user_totals where id = 17

-- name: view grouped by another column
-- note: each shard would give its own groups
-- expect: same-or-refused
select * from v_kinds

-- name: view grouped by another column, filtered
-- expect: same-or-refused
select kind from v_kinds where n > 300

-- name: view of a reference table
select * from v_countries

-- name: view with a union over sharded and reference
-- note: the reference rows count once
select count(*) from v_union

-- name: rows of a view with a union over sharded and reference
select id, name from v_union order by id, name limit 200

-- name: groups of a view with a union over sharded and reference
select count(distinct name), sum(id) from (select * from v_union) q

-- name: view with a union over sharded and reference in a WITH query
with c as (select id from v_union) select c.id, count(*) from c join tags t on t.id = c.id group by c.id

-- name: view with a union over sharded and reference as a scalar subquery
select (select count(*) from v_union), count(*) from users

-- name: view with a union over sharded and reference, columns by schema
select public.v_union.name from public.v_union where public.v_union.id < 4

-- name: view joined with a table
-- expect: same-or-refused
select v.id, e.id as e from v_users v join events e on e.user_id = v.id where v.id < 30

-- name: a domain's column brought to the merge session
-- note: shards describe a domain's values by its base type
select count(*), min(x.email) from (select id, email from users where id < 50) x join users u on u.id <> x.id and x.email is not null

-- name: aggregate of the outer query's columns
select (select sum(u.id)) from users u

-- name: aggregate of the outer query's columns in ORDER BY
select 1 from users u where u.id < 20 order by (select count(u.id))

-- name: aggregate of the outer query's columns over a reference table
select (select max(u.id) from countries c where c.code = 'BR') from users u

-- name: aggregate of the outer query's columns in a filter
select (select count(*) filter (where u.id < 9)) from users u

-- name: VALUES with a subquery
values ((select count(*) from users)), (2)

-- name: VALUES with a subquery, in FROM
select * from (values ((select count(*) from users)), (2)) x

-- name: VALUES with a subquery, in IN
select 1 where 5 in (values ((select count(*) from users)), (5))

-- name: LIMIT by a subquery
select id from users where id = 1 union all select id from users where id = 1 limit (select count(*) from users where id = 3)

-- name: GROUP BY a subquery's comparison
select (u.id = (select max(user_id) from events)) as e, count(*) from users u group by u.id = (select max(user_id) from events)

-- name: GROUP BY a subquery's comparison, by its name
select (u.id = (select max(user_id) from events)) as e, count(*) from users u group by e

-- name: GROUP BY an IN subquery
select u.id in (select manager_id from users) as e, count(*) from users u group by u.id in (select manager_id from users)

-- name: GROUP BY a correlated EXISTS
select exists (select from lonely l where l.k = d.k), count(*) from dupes d group by exists (select from lonely l where l.k = d.k)

-- name: GROUP BY a subquery over a reference table
select k in (select id from tags) as e, count(*), max(w) from dupes group by k in (select id from tags)

-- name: DISTINCT ordered by its IN subquery
select distinct k in (select k from lonely) from dupes order by k in (select k from lonely)

-- name: DISTINCT ON an IN subquery
select distinct on (k in (select k from lonely)) k, id from dupes order by k in (select k from lonely), id, k

-- name: HAVING with the grouped subquery
select k in (select k from lonely) as e, count(*) from dupes group by k in (select k from lonely) having k in (select k from lonely)

-- name: columns of a star that depend on the grouped key, off the sharding key
select d.*, count(*) from dupes d join lonely l on l.id = d.k group by d.id

-- name: column that depends on the grouped key, in a subquery
select (select d.v), count(*) from dupes d join lonely l on l.id = d.k group by d.id

-- name: column that depends on the grouped key, in a correlated subquery
select d.k, (select count(*) from lonely l where l.id = d.k and l.v <> d.v) from dupes d group by d.id

-- name: column that depends on the grouped key, in ROLLUP
select d.id, d.v, l.k, count(*) from dupes d join lonely l on l.id = d.k group by d.id, rollup (l.k)

-- name: row of an outer table in a subquery
-- note: not only of the columns that are named besides
select (select l::text) from lonely l, tags t join dupes d on d.k = t.id where l.k = t.id and d.id = l.id + 1 order by 1

-- name: row of an outer table with a star in a subquery
select (select row(l.*)::text from countries limit 1) from lonely l, dupes d where d.k = l.k

-- name: row of a view that is taken apart
select v from v_kinds v

-- name: row of an aliased join
select j::text from (lonely a(i1, v1, n1, k1) join dupes b on a.k1 = b.k) as j where j.n1 < 30

-- name: a WITH query grouped by a key, and used again in a subquery of HAVING
-- note: both uses have the same table underneath
with w(a, b) as (select id, v from dupes order by 1, 2 offset 3), g(n) as (select count(*) from w x group by x.a having '2020-01-01' not in (select d.d from w y join dupes d on d.id = y.a where y.b = 'a')) select g.n, l.id from g, lonely l where l.id < 14

-- name: a recursive WITH names a later query
-- note: not the table of that name
with recursive x (id) as (select * from users union all select id + 1 from x where id < 5), users (id) as (values (1)) select * from x

-- name: a recursive WITH names a later query over shards
with recursive x (id) as (select id from z union all select id + 1 from x where id < 20), z (id) as (select id from users where id > 15) select count(*), sum(id) from x

-- name: queries of WITH RECURSIVE in the wrong order without recursion
with recursive a as (select count(*) as n from b), b as (select id from dupes where k > 1) select n from a

-- name: mutual recursion
-- expect: 0A000
with recursive x (id) as (select 1 union select id + 1 from y where id < 5), y (id) as (select id from users union select id + 1 from x where id < 5) select * from x

-- name: a row as a whole in a subquery's rows
select count(*), min(u.id) from users u where u in (select x from users x where x.id < 10)

-- name: a row cast to its own type before IN and ANY
select x.id from dupes x where x.id < 50 and x::dupes in (select e::dupes from dupes e where e.k is not null) and (x.*)::dupes = any (select e from dupes e) order by x.id

-- name: a row as a whole against all of a subquery's rows
select y.id from dupes y where y <> all (select x from dupes x where x.id > 3) order by y.id

-- name: a row that an outer join makes NULL in a subquery's rows
select count(*), count(l), (l in (select x from lonely x)) as found from dupes d left join lonely l on l.id = d.k group by 3 order by 1

-- name: rows as wholes that are compared
select count(*) from dupes a, dupes b where a = b and a.k = b.k + 0

-- name: an aggregate of the outer query in VALUES
select (values (count(u.country))) from users u

-- name: an aggregate of the outer query in VALUES behind IN
select 300 in (values (count(u.id)), (1)), array(values (count(u.id))) from users u

-- name: an aggregate of the outer query in a join's condition
select (select count(*) from countries a join countries b on count(u.country) > 150) from users u

-- name: an aggregate of the outer query in a derived table
select count(*) from (select (values (count(u.country))) from users u) s
