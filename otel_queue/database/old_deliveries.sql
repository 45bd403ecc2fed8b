-- Deliveries of before the tracked window that are final, counted.
--
-- `until` is a day behind the beginning of the window and `slack` a day before it; `dated`, `first_id` and `midnight` tell which rows around midnight are older
-- than the window (slices.py). An event that was replayed has one source.
-- Returns project_id, day (YYYYMMDD), endpoint_id, status, event_type, whether the event has a row, its source, total.
-- Reads the old deliveries, and the events, once.

WITH event AS (
    SELECT project_id, id, min(nullif(source_id, '')) AS source
    FROM convoy.events
    WHERE created_at < {events_until}
    GROUP BY project_id, id
)
SELECT
    d.project_id,
    least(to_char(d.created_at AT TIME ZONE 'UTC', 'YYYYMMDD'), {last_day}) AS day,
    d.endpoint_id,
    d.status,
    d.event_type,
    e.id IS NOT NULL AS has_event,
    e.source,
    count(*) AS total
FROM convoy.event_deliveries d
LEFT JOIN event e ON e.id = d.event_id AND e.project_id = d.project_id
WHERE d.created_at < {until} AND d.deleted_at IS NULL
    AND (d.created_at < {slack} OR CASE
        WHEN d.id COLLATE "C" ~ {dated} AND d.id COLLATE "C" >= {lowest} AND d.id COLLATE "C" < {highest}
            THEN d.id COLLATE "C" < {first_id}
        ELSE d.created_at < {midnight}
    END)
    AND (d.status NOT IN ('Scheduled', 'Processing', 'Retry'))
GROUP BY 1, 2, 3, 4, 5, 6, 7
