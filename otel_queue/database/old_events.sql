-- Events of before the tracked window, counted, each once: on the day of its first row.
--
-- Arguments as in old_deliveries.sql. Returns project_id, day (YYYYMMDD), source (NULL for none and for a blank one), total.
-- Reads the old events, once.

SELECT project_id, least(to_char(created_at AT TIME ZONE 'UTC', 'YYYYMMDD'), {last_day}) AS day, source, count(*)
FROM (
    SELECT d.project_id, min(nullif(d.source_id, '')) AS source, min(d.created_at) AS created_at
    FROM convoy.events d
    WHERE d.created_at < {until}
        AND (d.created_at < {slack} OR CASE
            WHEN d.id COLLATE "C" ~ {dated} AND d.id COLLATE "C" >= {lowest} AND d.id COLLATE "C" < {highest}
                THEN d.id COLLATE "C" < {first_id}
            ELSE d.created_at < {midnight}
        END)
    GROUP BY d.id, d.project_id
) event
GROUP BY 1, 2, 3
