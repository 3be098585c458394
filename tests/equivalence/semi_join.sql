-- name: keys of a filtered table restrict the one it is joined with
select u.name, o.id, o.total from users u join orders o on o.customer_id = u.id where u.country = 'DE' order by o.id

-- name: restricted by a table without rows
select u.name, o.id from empty_s u2 join orders o on o.customer_id = u2.k join users u on u.id = o.customer_id where u2.v = 'x'

-- name: the preserved side keeps rows that meet nothing
select u.id, o.id from users u left join orders o on o.customer_id = u.id and o.status = 'O' where u.country = 'DE' order by 1, 2

-- name: the preserved side is not restricted by the other
select u.id, o.id from users u left join orders o on o.customer_id = u.id and o.total > 100000000 where u.id < 40 order by 1, 2

-- name: right join from the other side
select u.id, o.id from orders o right join users u on o.customer_id = u.id and o.status = 'O' where u.country = 'DE' order by 1, 2

-- name: full join restricts nothing
select u.id, o.id from (select id, country from users where id < 30) u full join (select id, customer_id from orders where status = 'O') o on o.customer_id = u.id order by 1, 2

-- name: NULLs in the joining column of both sides
select a.id, b.id from dupes a join lonely b on a.k = b.k where a.v is not null order by 1, 2

-- name: NULL keys do not meet each other
select count(*) from dupes a join dupes b on a.k = b.k where a.k is null or b.v is null

-- name: anti join keeps what finds nothing
select u.id from users u where u.country = 'DE' and not exists (select from orders o where o.customer_id = u.id) order by 1

-- name: anti join whose inner side is empty
select u.id from users u where u.country = 'DE' and not exists (select from empty_s e where e.k = u.id) order by 1

-- name: anti join whose outer side is empty
select e.id from empty_s e where not exists (select from orders o where o.customer_id = e.id)

-- name: NOT IN with NULLs in the list
select u.id from users u where u.id < 50 and u.id not in (select k from dupes) order by 1

-- name: NOT IN of the preserved rows only
select u.id from users u where u.id < 50 and u.id not in (select customer_id from orders where customer_id is not null) order by 1

-- name: IN as a value is not a condition
select u.id, u.id in (select customer_id from orders where status = 'O') as has from users u where u.country = 'DE' order by 1

-- name: IN below OR is not a condition
select u.id from users u where u.country = 'DE' or u.id in (select customer_id from orders where total < 10) order by 1

-- name: IN below NOT is not a condition
select u.id from users u where not (u.id in (select k from dupes where k is not null)) and u.id < 40 order by 1

-- name: IN of a column off the key, its inner side restricted
select o.id from orders o where o.total > 500 and o.customer_id in (select d.k from dupes d where d.v is not null) order by 1

-- name: IN of grouped rows
select o.id from orders o where o.status = 'O' and o.customer_id in (select d.k from dupes d group by d.k having count(*) > 1) order by 1

-- name: IN of limited rows, which must not be restricted before the limit
select o.id from orders o where o.status = 'O' and o.customer_id in (select d.id from dupes d order by d.id limit 5) order by 1

-- name: IN of windowed rows
select o.id from orders o where o.customer_id in (select d.k from (select k, row_number() over (order by id) as n from dupes) d where d.n < 9) order by 1

-- name: IN of DISTINCT ON rows
select o.id from orders o where o.customer_id in (select distinct on (v) k from dupes order by v, id) order by 1

-- name: IN of a union
select o.id from orders o where o.status = 'O' and o.customer_id in (select k from dupes union select id from lonely) order by 1

-- name: = ANY of a subquery
select o.id from orders o where o.total > 300 and o.customer_id = any (select k from dupes where id < 100) order by 1

-- name: scalar aggregate of restricted rows, zero where there are none
select u.id, (select count(*) from orders o where o.customer_id = u.id) from users u where u.country = 'FR' order by 1

-- name: scalar aggregate in a condition
select o.id from orders o join users u on u.id = o.customer_id
where u.country = 'DE' and o.total > (select avg(o2.total) from orders o2 where o2.customer_id = u.id) order by 1

-- name: correlated two levels further out
select u.id from users u where u.country = 'DE' and exists (
  select from dupes d where d.k = 3 and exists (select from orders o where o.customer_id = u.id and o.status = 'O')) order by 1

-- name: correlated with a nullable side
select u.id, d.id, (select count(*) from orders o where o.customer_id = d.k) as n
from users u left join dupes d on d.id = u.manager_id and d.v is not null where u.id < 60 order by 1, 2

-- name: lateral over restricted rows
select u.id, x.total from users u cross join lateral (select o.total from orders o where o.customer_id = u.id order by o.total desc, o.id limit 2) x
where u.country = 'DE' order by 1, 2

-- name: lateral gives a column a second name
select d.id, s.x from dupes d left join lateral (select d.k as x where d.id % 2 = 0) s on true join lonely l on l.k = d.k where d.id < 60 order by 1, 2, l.id

-- name: USING off the key
select count(*), sum(a.id) from dupes a join lonely b using (k) where a.v is not null

-- name: NATURAL join off the key
select count(*) from (select k, v from dupes where id < 200) a natural join (select k, n from lonely) b

-- name: equality through a third column
select count(*) from dupes a, lonely b, orders o where a.k = b.k and b.k = o.customer_id and a.id < 50

-- name: integers of several widths
select count(*) from small_keys s join dupes d on d.k = s.s join orders o on o.customer_id = s.k where d.id < 300

-- name: text keys under different types
select a.id, b.n from alltypes a join by_text b on b.k = a.vc where a.grp = 1 order by 1, 2

-- name: numeric equality is no filter of bytes
select count(*) from dupes a join dupes b on a.w = b.w where a.id < 40

-- name: float equality
select count(*) from dupes a join alltypes b on a.f = b.f8 where a.id < 40

-- name: the same view twice
select a.id, b.total from v_user_totals a join v_user_totals b on b.events = a.id where a.name is not null order by 1, 2

-- name: a view of rows twice, each restricted by another table
select count(*) from v_users a, v_users b, orders o, dupes d where o.customer_id = a.id and d.k = b.id and o.status = 'O' and d.id < 20

-- name: a WITH query twice
with x as (select id, k from dupes where v is not null)
select count(*) from x a, x b, orders o, lonely l where a.k = o.customer_id and b.k = l.k and o.status = 'O' and l.id < 30

-- name: a recursive query's rows are more than its first
with recursive r(id, depth) as (
  select u.id, 1 from users u where u.manager_id is null
  union all select u.id, r.depth + 1 from users u join r on u.manager_id = r.id where r.depth < 5)
select r.id, count(o.id) from r left join orders o on o.customer_id = r.id group by r.id order by 1

-- name: a union's rows are more than its first arm's
select count(*) from (select k from dupes where id < 10 union all select id::int4 from lonely) s join orders o on o.customer_id = s.k where o.status = 'O'

-- name: grouping sets make NULLs
select s.k, count(o.id) from (select k, v, count(*) from dupes where id < 90 group by grouping sets ((k), (v))) s left join orders o on o.customer_id = s.k group by s.k order by 1

-- name: tables that meet on their shard and one that does not
select o.id, l.line, u.name from orders o, lineitem l, users u
where l.order_id = o.id and o.customer_id = u.id and u.country = 'DE' and l.quantity > 5 order by 1, 2

-- name: aliases of columns in tables read together
select x.a, y.c from orders x(a, b), lineitem y(c, d), users u where x.a = y.c and x.b = u.id and u.country = 'DE' order by 1, 2, y.d

-- name: names of columns read together in GROUP BY, HAVING and ORDER BY
select o.customer_id, date_trunc('month', placed) as m, sum(price) from orders o join lineitem l on order_id = o.id join users u on u.id = customer_id
where u.active group by customer_id, m having count(*) > 1 order by o.customer_id, m

-- name: an output name that is another column's
select o.id as customer_id, o.customer_id as id from orders o, lineitem l, users u
where l.order_id = o.id and o.customer_id = u.id and l.line = 1 order by id, customer_id

-- name: casts keep the name of their column
select * from (select o.id::text, l.price::float8, (o.total) from orders o, lineitem l, users u
  where l.order_id = o.id and o.customer_id = u.id and l.line = 1) s order by id, price limit 20

-- name: columns that depend on a grouped key
select o.id, o.total, o.note, count(*) from orders o join lineitem l on l.order_id = o.id join users u on u.id = o.customer_id
where u.country = 'DE' group by o.id order by o.id

-- name: a reference table that filters
select l.id, c.name from lonely l, users u, countries c where u.id = l.k and u.country = c.code and c.region = 'Europe' order by 1

-- name: a reference table with several rows for one
select l.id, t.label from lonely l, users u, tags t where u.id = l.k and t.weight > u.id and t.active order by 1, 2

-- name: alternatives over two tables
select o.id, u.id from orders o, users u where o.customer_id = u.id
and (o.status = 'O' and u.country = 'DE' or o.status = 'F' and u.country = 'FR' and o.total > 10) order by 1

-- name: alternatives of which one says nothing of a table
select o.id, u.id from orders o, users u where o.customer_id = u.id and (o.status = 'O' and u.country = 'DE' or u.country = 'FR') order by 1

-- name: alternatives with NULL
select d.id, u.id from dupes d, users u where d.k = u.id and (d.v is null and u.country is null or d.v = 'a' and null or d.k = 4 and u.id = 4) order by 1

-- name: alternatives below NOT
select o.id, u.id from orders o, users u where o.customer_id = u.id and not (o.status = 'O' and u.country = 'DE' or o.total > 100 and u.active) order by 1

-- name: a condition that fails on some row
-- expect: 22012
select o.id, u.id from orders o, users u where o.customer_id = u.id and 1 / (o.id - o.id) > 0

-- name: a parameter that only conditions of stages name
-- params: [["text", "DE"], ["int4", "3"]]
select u.id, count(*) from users u, orders o where o.customer_id = u.id and u.country = $1 and o.id % $2 = 0 group by u.id order by 1

-- name: whole rows of tables that could be read together
-- expect: same-or-refused
select o, u.id from orders o, lineitem l, users u where l.order_id = o.id and o.customer_id = u.id and l.line = 1 order by o.id, u.id

-- name: a star over tables that could be read together
select * from orders o join lineitem l on l.order_id = o.id join users u on u.id = o.customer_id where u.country = 'DE' and l.line = 1 order by o.id

-- name: a star of one of them
select l.*, u.id from orders o join lineitem l on l.order_id = o.id join users u on u.id = o.customer_id where u.country = 'DE' order by l.order_id, l.line

-- name: outer join beside tables that meet
select o.id, l.line, d.id from orders o join lineitem l on l.order_id = o.id left join dupes d on d.k = o.customer_id and d.v = 'a'
join users u on u.id = o.customer_id where u.country = 'DE' order by 1, 2, 3

-- name: many keys restrict nothing but change nothing
select count(*) from big b join orders o on o.customer_id = b.x where b.id > 10

-- name: an equality in every alternative
select o.id, u.id from orders o, users u where o.customer_id = u.id and o.status = 'O' and u.country = 'DE' or u.id = o.customer_id and o.status = 'F' and u.country = 'FR' order by 1, 2

-- name: an equality in all alternatives but one
select count(*) from dupes d, lonely l where d.k = l.k and d.v = 'a' or l.k = d.k and l.id < 10 or d.id = 7 and l.id = 3

-- name: the sharding keys are equal in every alternative
select o.id, l.line from orders o, lineitem l where o.id = l.order_id and o.status = 'O' and l.line = 1 or l.order_id = o.id and o.total > 900 order by 1, 2

-- name: exists with a star
select u.id from users u where u.country = 'DE' and exists (select * from orders o where o.customer_id = u.id) order by 1

-- name: not exists with a star, a limit and a condition on another column
select u.id from users u where not exists (select o.*, u.name from orders o where o.customer_id = u.id and o.total > 200 limit 1) order by 1

-- name: exists with a star over a join
select u.id from users u where exists (select * from orders o join dupes d on d.k = o.customer_id where o.customer_id = u.id and d.v is null) order by 1

-- name: exists with a star that an ordinal means
select u.id from users u where exists (select * from orders o where o.customer_id = u.id order by 2 limit 1) and u.country = 'DE' order by 1

-- name: exists over nothing
select u.id from users u where exists (select * from empty_s e where e.k = u.id or e.k is null) order by 1

-- name: what comes twice behind EXISTS, IN and ANY
select count(*) from users u where exists (select * from users m where m.manager_id = u.id) and u.id in (select d.k from dupes d where d.v <> 'z') or u.id = any (select manager_id from users)

-- name: what comes twice behind NOT IN and ALL
select u.id from users u where u.id not in (select m.manager_id from users m where m.manager_id is not null) and u.id > all (select d.k from dupes d where d.k < 4) order by u.id limit 20

-- name: what comes twice counts where it is counted
select u.id from users u where u.id in (select count(*) from users m group by m.manager_id) or exists (select m.manager_id from users m where m.manager_id = u.id group by m.manager_id having count(*) > 1) or exists (select from users m where m.manager_id = u.id offset 1) order by u.id

-- name: what comes twice counts in a window
select u.id from users u where u.id in (select count(*) over (partition by m.manager_id) from users m where m.country = u.country) order by u.id

-- name: what comes twice behind EXISTS in a derived table
select q.c, count(*) from (select u.country as c from users u where u.score > (select avg(score) from users) and not exists (select * from users m where m.manager_id = u.id)) q group by q.c order by q.c

-- name: what comes twice counts in an aggregate that stands in a subquery
select u.id from users u where u.id in (select (select count(m.country)) from users m where m.manager_id = u.id) or u.id = any (select (values (count(m.country))) from users m) or u.id in (select (select g from generate_series(300, count(m.country) + 200) g limit 1) from users m) order by u.id
