-- name: union all of sharded tables
select id, name from users union all select user_id, kind from events

-- name: union all of three
select id from users union all select user_id from events union all select id from orders

-- name: union all with filters on the key
select id from users where id = 5 union all select user_id from events where user_id = 7

-- name: union all of one table's parts
select id from users where active union all select id from users where not active

-- name: union all of reference tables
select id::text, label from tags union all select code, name from countries

-- name: union all of sharded and reference
-- note: the reference arm's rows count once
-- expect: same-or-refused
select id, name from users union all select id, label from tags

-- name: union all of reference and sharded
-- expect: same-or-refused
select id, label from tags union all select id, name from users

-- name: union all with constants
-- expect: same-or-refused
select id, name from users where id < 5 union all select 0, 'total'

-- name: union all with an aggregate arm
-- expect: same-or-refused
select id from users where id < 5 union all select count(*) from users

-- name: union all ordered and limited
select id, 'u' as what from users union all select id, 'o' from orders order by id desc, what limit 11

-- name: union all with limits inside
-- expect: same-or-refused
(select id from users order by id limit 3) union all (select id from orders order by id desc limit 3)

-- name: union all with types that differ
select id from users union all select k from small_keys

-- name: union all with numeric and integer
select n from lonely union all select id from users

-- name: union all names come from the first
select id as first from users where id < 3 union all select id as second from orders where id < 3

-- name: union all then group
select kind, count(*) from (select kind from events union all select status from orders) s group by kind

-- name: union all of empty tables
select id from empty_s union all select id from empty_s

-- name: union all with an empty arm
select id from empty_s union all select id from lonely

-- name: union
-- expect: same-or-refused
select country from users union select code from countries

-- name: union of one column off the key
-- expect: same-or-refused
select country from users union select country from users

-- name: union with the key at the same position
-- expect: same-or-refused
select id from users union select user_id from events

-- name: union with the key at another position
-- expect: same-or-refused
select id, manager_id from users union select k::int8, id from dupes

-- name: union of sharded and reference
-- note: a reference row may equal a row of any shard
-- expect: same-or-refused
select id from users union select id from tags

-- name: intersect by the key
-- expect: same-or-refused
select id from users intersect select user_id from events

-- name: intersect off the key
-- expect: same-or-refused
select country from users intersect select status::text from orders

-- name: intersect all
-- expect: same-or-refused
select user_id from events intersect all select user_id from visits

-- name: intersect with reference
-- expect: same-or-refused
select id from users intersect select id from tags

-- name: except by the key
-- expect: same-or-refused
select id from users except select user_id from events

-- name: except off the key
-- note: a value on another shard must take it away
-- expect: same-or-refused
select id from orders except select customer_id from orders

-- name: except all
-- expect: same-or-refused
select user_id from events except all select user_id from visits

-- name: except with reference second
-- expect: same-or-refused
select id from users except select id from tags

-- name: except with reference first
-- note: a row of the reference survives only if no shard has it
-- expect: same-or-refused
select id from tags except select id from users

-- name: except of numerics with different scales
-- expect: same-or-refused
select count(*) from (select w from dupes except select 1.0) s

-- name: nested set operations
-- expect: same-or-refused
(select id from users union all select id from orders) except select user_id from visits

-- name: union all in a subquery joined on the key
-- expect: same-or-refused
select count(*) from (select id from users union all select user_id from visits) s join events e on e.user_id = s.id

-- name: union all in a subquery grouped by the key
-- expect: same-or-refused
select id, count(*) from (select id from users union all select user_id from visits) s group by id

-- name: union all grouped by a column that is the key in one arm only
-- expect: same-or-refused
select x, count(*) from (select id as x from users union all select id from events) s group by x

-- name: recursion in SEARCH DEPTH FIRST order
with recursive m(id, mgr) as (select id, manager_id from users where id = 5 union all select u.id, u.manager_id from users u join m on u.id = m.mgr) search depth first by id set ord select id, mgr, ord from m order by ord

-- name: recursion in SEARCH BREADTH FIRST order with CYCLE
with recursive m(id, mgr) as (select id, manager_id from users where id = 5 union all select u.id, u.manager_id from users u join m on u.id = m.mgr) search breadth first by id set ord cycle id set is_cycle using path select id, mgr, is_cycle, path, ord from m order by id

-- name: CYCLE with its own marks
with recursive m(id, mgr) as (select id, manager_id from users where id < 10 union select u.id, u.manager_id from users u join m on u.id = m.mgr) cycle id set c to 'y' default 'n' using p select count(*), min(c), max(c) from m

-- name: an arm of reference tables under several conditions
-- note: no shard but one may answer it
with w(a) as (select true from users u union all select true from tags t where (t.id > 2 and t.id < 9)) select count(*) from w

-- name: rows as a whole of a view with an arm that one shard answers
-- note: on the other shards the view stands by its query, whose rows have no type
select t2 from v_union t2

-- name: rows as a whole of a view, in an expression
select (t2).name, t2 is null, row_to_json(t2)::text from v_union t2 where (t2).id < 50

-- name: rows as a whole of a view that an outer join makes NULL
select o.id, t2 from orders o left join v_union t2 on t2.id = o.customer_id and t2.name <> 'x' where o.id < 40
