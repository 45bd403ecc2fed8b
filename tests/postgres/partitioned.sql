-- Makes the three large tables partitioned by project and day of creation; what was there is the default partition.
-- An id alone is no longer unique then.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['events', 'event_deliveries', 'delivery_attempts'] LOOP
        EXECUTE format('ALTER TABLE convoy.%I RENAME TO %I', name, name || '_default');
        EXECUTE format('ALTER TABLE convoy.%I DROP CONSTRAINT %I', name || '_default', name || '_pkey');
        EXECUTE format('ALTER TABLE convoy.%I ALTER created_at SET NOT NULL', name || '_default');
        EXECUTE format(
            'CREATE TABLE convoy.%I (LIKE convoy.%I INCLUDING DEFAULTS) PARTITION BY RANGE (project_id, created_at)',
            name, name || '_default'
        );
        EXECUTE format('ALTER TABLE convoy.%I ADD PRIMARY KEY (id, created_at, project_id)', name);
        EXECUTE format('ALTER TABLE convoy.%I ATTACH PARTITION convoy.%I DEFAULT', name, name || '_default');
        -- The days of one project around now; every other project's rows go to the default partition.
        FOR day IN -2..1 LOOP
            EXECUTE format(
                'CREATE TABLE convoy.%I PARTITION OF convoy.%I FOR VALUES FROM (%L, %L) TO (%L, %L)',
                format('%s_p_%s', name, day + 2), name, 'P', current_date + day, 'P', current_date + day + 1
            );
        END LOOP;
        EXECUTE format('CREATE INDEX ON convoy.%I (created_at)', name);
    END LOOP;
    CREATE INDEX ON convoy.event_deliveries (status);
END
$$;
