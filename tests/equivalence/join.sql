-- name: colocated inner join
select u.id, u.name, e.id as event, e.amount from users u join events e on e.user_id = u.id

-- name: colocated join by WHERE
select u.id, e.id as event from users u, events e where e.user_id = u.id and e.kind = 'buy'

-- name: colocated join with USING
select order_id, placed, sku from orders o(order_id) join lineitem using (order_id)

-- name: USING merges the column of star
select * from (select id as order_id, placed from orders) o join lineitem using (order_id)

-- name: natural join on the key
-- note: the common columns are the key alone
select * from (select id as user_id, country from users) u natural join (select user_id, page from visits) v

-- name: natural join without common columns is a cross join
-- expect: same-or-refused
select count(*) from (select id as a from lonely) x natural join (select id as b from orders where id < 20) y

-- name: three colocated tables
select u.id, e.id as e, o."Id" as o from users u join events e on e.user_id = u.id join "Order Items" o on o."UserId" = u.id where e.kind = 'buy'

-- name: transitive equality
select u.id, v.page, o."Qty" from users u, visits v, "Order Items" o where u.id = v.user_id and o."UserId" = v.user_id

-- name: int4 key with int8 key
select s.k, u.name from small_keys s join users u on u.id = s.k

-- name: key joined by the float of a key
-- note: 2^53: int8 = float8 is not the key's equality
-- expect: same-or-refused
select count(*) from users u join small_keys s on u.id = s.k::float8

-- name: key joined by numeric
-- expect: same-or-refused
select count(*) from users u join small_keys s on u.id = s.k::numeric

-- name: key joined by a cast that keeps the class
-- expect: same-or-refused
select count(*) from users u join small_keys s on u.id::int4 = s.k

-- name: key joined by an expression
-- expect: same-or-refused
select count(*) from users u join small_keys s on u.id = s.k + 1

-- name: text keys of one table under another collation
-- expect: same-or-refused
select count(*) from by_text a join by_text b on a.k = b.k collate "C"

-- name: text key self join
select a.k, b.n from by_text a join by_text b on a.k = b.k

-- name: uuid key self join
select count(*) from by_uuid a join by_uuid b on a.k = b.k

-- name: keys of different classes
-- expect: same-or-refused
select count(*) from by_text t join users u on t.k = u.id::text

-- name: colocated only by the key's other column
-- expect: same-or-refused
select count(*) from users u join events e on e.id = u.id

-- name: not colocated
-- expect: same-or-refused
select u.id, o.id as o from users u join orders o on o.customer_id = u.id

-- name: self join on the key
select a.id, b.name from users a join users b on a.id = b.id

-- name: self join off the key
-- expect: same-or-refused
select a.id, m.name from users a join users m on m.id = a.manager_id

-- name: self join by inequality
-- expect: same-or-refused
select count(*) from lonely a join lonely b on a.id < b.id

-- name: colocated join with a further inequality
select count(*) from users u join events e on e.user_id = u.id and e.amount > u.score

-- name: key equality under OR is no equality
-- expect: same-or-refused
select count(*) from lonely a join lonely b on a.id = b.id or a.k = b.k

-- name: key equality negated
-- expect: same-or-refused
select count(*) from lonely a join lonely b on not (a.id <> b.id)

-- name: is not distinct from as a join
-- expect: same-or-refused
select count(*) from visits a join visits b on a.user_id is not distinct from b.user_id

-- name: nullable keys do not meet
select count(*) from visits a join visits b on a.user_id = b.user_id

-- name: cross join of sharded tables
-- expect: same-or-refused
select count(*) from lonely a cross join lonely b

-- name: cross join with a reference table
select count(*) from users cross join countries

-- name: cross join with values
select u.id, v.x from users u cross join (values (1), (2)) v(x) where u.id < 6

-- name: join with values on the key
select u.id, v.x from users u join (values (3::int8, 'a'), (4, 'b')) v(id, x) on v.id = u.id

-- name: join with generate_series
select u.id, g from users u join generate_series(1, 5) g on g = u.id % 7

-- name: sharded with reference
select u.id, u.name, c.name as country from users u join countries c on c.code = u.country

-- name: reference first
select u.id, c.name from countries c join users u on c.code = u.country

-- name: sharded left join reference
select u.id, c.name from users u left join countries c on c.code = u.country

-- name: reference preserved by a left join
-- note: every shard would null-extend
-- expect: same-or-refused
select c.code, u.id from countries c left join users u on c.code = u.country and u.id < 10

-- name: reference preserved by a left join, counted
-- expect: same-or-refused
select c.code, count(u.id) from countries c left join users u on c.code = u.country group by c.code

-- name: sharded right join reference preserves the reference
-- expect: same-or-refused
select c.code, u.id from users u right join countries c on c.code = u.country

-- name: reference right join sharded preserves the sharded
select u.id, c.name from countries c right join users u on c.code = u.country

-- name: full join with reference
-- expect: same-or-refused
select u.id, c.code from users u full join countries c on c.code = u.country

-- name: reference with reference
select t.id, c.code from tags t join countries c on length(c.name) = t.id

-- name: reference left join reference
select c.code, t.label from countries c left join tags t on t.id = length(c.name)

-- name: reference full join reference
select c.code, t.id from countries c full join tags t on t.id = length(c.name)

-- name: reference left join reference then sharded
-- expect: same-or-refused
select c.code, t.id, u.id as u from countries c left join tags t on t.id = length(c.name) left join users u on u.country = c.code and u.id < 20

-- name: reference pair joined into sharded
select count(*) from users u left join (countries c join tags t on t.id = length(c.name)) on c.code = u.country

-- name: colocated left join
select u.id, e.id as event from users u left join events e on e.user_id = u.id

-- name: colocated left join with a filter in ON
select u.id, e.id as event from users u left join events e on e.user_id = u.id and e.kind = 'buy'

-- name: colocated left join that finds none
select u.id from users u left join events e on e.user_id = u.id where e.id is null

-- name: colocated right join
select u.id, e.id as event from users u right join events e on e.user_id = u.id

-- name: colocated full join
select u.id, e.user_id, e.id as event from users u full join events e on e.user_id = u.id

-- name: colocated full join with nullable keys
select u.id, v.user_id, v.page from users u full join visits v on v.user_id = u.id

-- name: full join using merges the key
-- expect: same-or-refused
select id, name, n from users full join (select k::int8 as id, n from small_keys) s using (id)

-- name: full join on a false condition
-- expect: same-or-refused
select count(*) from lonely a full join lonely b on false

-- name: left join without key equality
-- expect: same-or-refused
select count(*) from users u left join events e on e.id = u.id

-- name: left join on true with a one-shard table
-- expect: same-or-refused
select count(*) from users u left join lonely l on true

-- name: left join of left join
select u.id, e.id as e, v.page from users u left join events e on e.user_id = u.id left join visits v on v.user_id = u.id where u.id < 40

-- name: left join chained over the nullable key
-- note: the key of the nullable side, used for a further strict equality
select u.id, e.id as e, o."Id" as o from users u left join events e on e.user_id = u.id left join "Order Items" o on o."UserId" = e.user_id where u.id < 40

-- name: group by the nullable key
-- note: the NULL group spans shards
select e.user_id, count(*) from users u left join events e on e.user_id = u.id group by e.user_id

-- name: distinct of the nullable key
select distinct e.user_id from users u left join events e on e.user_id = u.id

-- name: window over the nullable key
-- note: the NULL partition spans shards
-- expect: same-or-refused
select u.id, count(*) over (partition by e.user_id) from users u left join events e on e.user_id = u.id and e.kind = 'buy'

-- name: full join, grouped by the merged key
select id, count(*) from users full join (select user_id as id, page from visits) v using (id) group by id

-- name: empty sharded table on the left
select e.id, u.name from empty_s e left join users u on u.id = e.id

-- name: empty sharded table on the right
select u.id, e.v from users u left join empty_s e on u.id = e.id where u.id < 30

-- name: empty reference table inner
select count(*) from users, empty_r

-- name: empty reference table left
select u.id, r.v from users u left join empty_r r on r.id = u.id where u.id < 30

-- name: one-shard table joined colocated
select l.id, u.name from lonely l join users u on u.id = l.id

-- name: one-shard table left joined
select count(*), count(l.id) from users u left join lonely l on l.id = u.id

-- name: join under parentheses and aliases
select j.id, j.kind from (users u join events e on e.user_id = u.id) as j(id, name, email, country, manager_id, score, created_at, tags, profile, active, eid, user_id, kind) where j.active

-- name: subquery on one side
select u.id, s.n from users u join (select user_id, count(*) as n from events group by user_id) s on s.user_id = u.id

-- name: subquery whose key is renamed
select u.id, s.k from users u join (select user_id as k, amount from events where amount > 100) s on s.k = u.id

-- name: subquery whose key is hidden by an expression
-- expect: same-or-refused
select u.id from users u join (select user_id + 0 as k from events) s on s.k = u.id where u.id < 20

-- name: subquery with another column under the key's name
-- expect: same-or-refused
select u.id, s.user_id from users u join (select id as user_id from events) s on s.user_id = u.id

-- name: subquery with a global aggregate on one side
-- expect: same-or-refused
select u.id, s.m from users u join (select max(id) as m from events) s on s.m > u.id where u.id < 10

-- name: subquery with a limit on one side
-- expect: same-or-refused
select u.id, s.id as e from users u join (select user_id, id from events order by id limit 20) s on s.user_id = u.id

-- name: lateral correlated by the key
-- expect: same-or-refused
select u.id, s.id as e from users u, lateral (select e.id from events e where e.user_id = u.id order by e.id limit 2) s

-- name: lateral not correlated by the key
-- expect: same-or-refused
select l.id, s.id as e from lonely l, lateral (select e.id from events e where e.id > l.id order by e.id limit 2) s

-- name: left join lateral function
select u.id, t from users u left join lateral unnest(u.tags) t on true where u.id < 40

-- name: jsonb_each of a column
select u.id, j.key, j.value from users u, jsonb_each(u.profile) j where u.id < 40

-- name: implicit join with a misplaced condition
-- expect: same-or-refused
select count(*) from users u, events e, lonely l where u.id = e.user_id and l.id < 5

-- name: full join of plain keys using
select id, name, n from users full join (select user_id as id, n from visits) s using (id)

-- name: unnest of several arrays
select t.*, d.v from dupes d join unnest(array[1, 2, 3], array['x', 'y', 'z']) t(n, l) on t.n = d.id order by 1

-- name: unnest of several arrays, no names given
select d.id, u.* from dupes d, unnest(array[d.id, 2], array[d.v]) u where d.id < 9 order by 1, 2, 3

-- name: unnest of several arrays with ordinality over stages
select d.id, l.id, u.x, u.y, u.o from dupes d join lonely l on l.id = d.k, unnest(array[1, 2]::int8[], array[d.v]) with ordinality u(x, y, o) order by 1, 2, 5

-- name: ROWS FROM several functions
select * from rows from (generate_series(1, 3), unnest(array['a', 'b'])) with ordinality t(a, b, c) join dupes d on d.id = t.a order by d.id

-- name: ROWS FROM columns by the functions' names
select t.generate_series, t.unnest, d.id from rows from (generate_series(1, 3), unnest(array['a', 'b'])) t join dupes d on d.id = t.generate_series order by d.id

-- name: function of FROM with a name for its column
select d.id, x.value from dupes d, jsonb_array_elements('[1, 2]'::jsonb) x where d.id < 4 order by 1, x.value::text

-- name: function of FROM with several columns
select d.id, x.key, x.value from dupes d join lonely l on l.id = d.k, jsonb_each('{"a": 1, "b": 2}'::jsonb) x order by 1, 2, l.id

-- name: function of FROM over a subquery
select d.id, g from dupes d join lonely l on l.id = d.k, generate_series(1, (select count(*) from lonely where id < 3)) g order by 1, 2, l.id

-- name: subquery in ON of an inner join
select d.id from dupes d join lonely l on l.id = d.id and l.id in (select k from dupes) order by 1

-- name: subquery over a reference table in ON of a left join
select d.id, l.id from dupes d left join lonely l on l.id = d.id and exists (select 1 from tags t where t.id = l.id) where d.id < 20 order by 1

-- name: correlated subquery in ON of a left join
select d.id, l.id from dupes d left join lonely l on l.id = d.k and exists (select 1 from dupes t where t.id = l.id + d.id) where d.id < 20 order by 1, 2

-- name: subquery in ON of a full join
select d.id, l.id from dupes d full join lonely l on l.id = d.k and d.k = (select max(id) from lonely where id < 4) where coalesce(d.id, 0) < 20 order by 1, 2

-- name: subquery in ON, pinned
select u.id, e.id from users u join events e on e.user_id = u.id and e.id in (select id from events where user_id = 5) where u.id = 5 order by 2

-- name: rows as values, off the key
select t from dupes t join lonely l on l.id = t.k where t.id < 50 order by t.id, l.id

-- name: rows as values that an outer join makes NULL
select l, count(l), count(l.*), l is null from dupes t left join lonely l on l.id = t.k group by l.id, l order by l.id

-- name: rows as values in functions
select to_jsonb(t), row(t.*, 1), row(t.id, t.v), (t).v, t.v as "V" from dupes t join lonely l on l.id = t.k where t.id < 40 order by t.id, l.id

-- name: row of a view
select v from v_kinds v where kind = 'click'

-- name: row of a view over an outer join
select v, d.id from dupes d left join v_kinds v on v.kind = d.v where d.id < 30 order by d.id

-- name: table of a row, grouped
-- only: simple
select tableoid::regclass, count(*) from events group by 1 order by 2, tableoid::regclass::text

-- name: a lateral subquery passes a key on, and an outer join makes it NULL
-- note: the column is NULL where the key is not
select t.id, q.c1 from users t left join lateral (select t.id as c1 from orders s where s.id = t.id + 150) q on true where q.c1 is null and t.id < 80

-- name: groups by a key that a lateral subquery passes on
select q.c1, count(*) from users t left join lateral (select t.id as c1 from orders s where s.id = t.id and s.total < 300) q on true group by q.c1

-- name: full join on a key that a lateral subquery passes on
select count(*), count(q.c1), count(v.user_id) from users t left join lateral (select t.id as c1 from orders s where s.id = t.id and s.total < 300) q on true full join visits v on v.user_id = q.c1

-- name: a condition between a table and what a lateral subquery passes on of it
select id from limits where id not in (select e.id from events e, lateral (select e.kind as c1 from orders o) q(c1) where q.c1 = e.kind and e.id > 1995)

-- name: a WITH query passes an outer key on
select u.id from users u where exists (with q as (select u.id as c1 from visits v where v.user_id = u.id + 3) select 1 from orders s left join q on true where s.id = u.id and q.c1 is null)
-- name: join with names for all its columns
select count(*), max(j.lv) from (dupes d join lonely l on l.id = d.k) as j(id, k, v, w, d, f, lid, lv, ln, lk) where j.lid = 3

-- name: join with names for some of its columns
select j.a, j.b, j.id from (users u left join events e on e.id = u.manager_id) as j(a, b) where j.a < 5 order by 1, 3

-- name: table of a row, off the key
-- only: simple
select e.tableoid::regclass, e.id, e.tableoid::regclass::text from events e join lonely l on l.id = e.id order by e.id

-- name: table of a row in a condition, off the key
select count(*) from events e join lonely l on l.id = e.id where e.tableoid::regclass::text = 'events_2023'

-- name: table of a row beside a star, off the key
-- expect: refused
select e.*, e.tableoid::regclass::text from events e join lonely l on l.id = e.id order by e.id


-- name: USING with a name for its columns
select x.id, u.name, o.name from users u join other.users o using (id) as x where x.id < 9 order by x.id

-- name: USING with a name for its columns, off the key
select x.k, x, count(*), max(d.id) from dupes d join lonely l using (k) as x where x.k > 1 group by x.k, x order by x.k

-- name: FULL JOIN USING with a name for its columns
select x.id, l.id, e.id from lonely l full join empty_s e using (id) as x order by x.id

-- name: XMLTABLE over all rows
select x.n, x.o from (select xmlelement(name r, xmlagg(xmlelement(name i, id) order by id)) as x from dupes where id < 9) q, xmltable('/r/i' passing q.x columns n int path '.', o for ordinality) x order by x.o

-- name: XMLTABLE of each row
select d.id, x.a, x.b, x.c from dupes d, xmltable('/r/a' passing xmlelement(name r, xmlelement(name a, coalesce(d.k, 0)), xmlelement(name a, d.id)) columns a int path '.', b text path '@z' default coalesce(d.v, 'none'), "C" text path '@y') as x(a, b, c) where d.id < 10 order by 1, 2

-- name: XMLTABLE of each row, grouped off the key
select xmltable.n, count(*) from dupes d left join lateral xmltable('/r/a' passing xmlelement(name r, xmlelement(name a, coalesce(d.k, 0))) columns n int path '.') on true group by xmltable.n order by 1

-- name: XMLTABLE whose document counts over all shards
select t.id, x.n from tags t, xmltable('/r/a' passing xmlelement(name r, xmlelement(name a, (select count(*) from dupes d where d.k = t.id))) columns n int path '.') x where t.id < 9 order by t.id

-- name: XMLTABLE with namespaces
select x.n, l.id from lonely l, xmltable(xmlnamespaces('http://x.y' as z), '/z:r/z:a' passing ('<r xmlns="http://x.y"><a>1</a></r>'::xml) columns n int path '.') x order by l.id

-- name: XMLTABLE of a value that is none
-- expect: 22P02
select x.n from lonely l, xmltable('/r/a' passing ('<r><a/></r>'::xml) columns n int path '.') x
