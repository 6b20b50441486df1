-- Tells onewriter of changes as soon as they are committed; safe to run again. Then, for each table:
--
--   CREATE TRIGGER onewriter_notice AFTER INSERT OR UPDATE OR DELETE ON TABLE FOR EACH ROW
--   EXECUTE FUNCTION onewriter.notice('CHANNEL', 'KIND', 'COLUMN OF THE ID', 'COLUMN OF THE PARTITION');
--
-- Nothing rests on it: what is not told is found by polls.

CREATE SCHEMA IF NOT EXISTS onewriter;

CREATE OR REPLACE FUNCTION onewriter.notice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  gone jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
  now_there jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
  told text;
BEGIN
  -- A record that moved is told of in both partitions; the same text is sent once in a transaction.
  FOR told IN
    SELECT DISTINCT json_build_object('kind', TG_ARGV[1], 'id', one ->> TG_ARGV[2], 'partition', one ->> TG_ARGV[3])::text
    FROM unnest(ARRAY[gone, now_there]) AS one
    WHERE one IS NOT NULL
  LOOP
    -- PostgreSQL takes less than 8000 bytes, and the application's write must not fail over this.
    IF octet_length(told) < 8000 THEN PERFORM pg_notify(TG_ARGV[0], told); END IF;
  END LOOP;
  RETURN NULL;
END
$$;
