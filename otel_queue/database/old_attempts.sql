-- Attempts of before the attempts' window, counted.
--
-- Arguments as in old_deliveries.sql, with the bounds of that window.
-- Returns project_id, endpoint_id, status, http_status, total. Reads the old attempts, once.

SELECT d.project_id, d.endpoint_id, coalesce(d.status, false), d.http_status, count(*)
FROM convoy.delivery_attempts d
WHERE d.created_at < {until}
    AND (d.created_at < {slack} OR CASE
        WHEN d.id COLLATE "C" ~ {dated} AND d.id COLLATE "C" >= {lowest} AND d.id COLLATE "C" < {highest}
            THEN d.id COLLATE "C" < {first_id}
        ELSE d.created_at < {midnight}
    END)
GROUP BY 1, 2, 3, 4
