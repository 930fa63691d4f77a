create table word(id integer primary key, name text, kind int, length real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
insert into word select i, printf('word-%d-%s', i * 7919 % 200003, hex(randomblob(8))), i % 97, i * 0.5 from n;
create index by_name on word(name);
create index by_kind on word(kind, length);
select kind, count(*), avg(length), group_concat(name, ',') from word group by kind having count(*) > 10;
select a.kind, json_group_array(b.name) from word a join word b on a.id = b.kind where b.name like '%9%' group by a.kind;
select name, row_number() over (partition by kind order by length desc) from word order by upper(name) limit 50000;
update word set name = replace(name, 'word', 'term') || kind where kind % 3 = 0;
create trigger watch after delete on word begin update word set length = length + 1 where id = old.id + 1; end;
delete from word where id % 11 = 0;
with recursive tree(id, path) as (select 1, 'x' union all select id * 2, path || '/' || id from tree where id < 1000000)
select count(*), max(length(path)) from tree;
select count(distinct name), max(substr(name, 3, 9)) from word where name glob 'term*';
