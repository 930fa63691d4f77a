select b.bid, count(*), sum(a.abalance), array_agg(a.aid order by a.abalance desc)
from pgbench_accounts a join pgbench_branches b using (bid) join pgbench_tellers t using (bid)
where a.aid % 97 = 3 and a.filler like '%' group by b.bid having count(*) > 1 order by 2 desc;
