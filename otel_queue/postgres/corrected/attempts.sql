-- Delivery attempts by project, endpoint, outcome and HTTP status text; one row is one HTTP call.
--
-- The gateway declared this metric and never filled it: there is no earlier number to agree with. Rows go when their
-- partition is dropped, so the sum falls at retention, and a reader sees that as a counter's reset.
-- Returns project_id, endpoint_id, succeeded, http_status ("200 OK", NULL without a response), total.
-- Reads all of delivery_attempts.

SELECT project_id, coalesce(endpoint_id, '') AS endpoint, coalesce(status, false) AS succeeded, http_status, count(*) AS total
FROM convoy.delivery_attempts
GROUP BY 1, 2, 3, 4
