-- The guard for PostgreSQL 12 and newer: who may change a partition's records in this database, by the
-- same rule as src/core/guard.ts. Safe to run again. Every statement ends with a semicolon and a blank line.
--
-- Locks: a check keeps a share lock on the partition's row to the end of the app's transaction, so that
-- writers of one epoch run side by side; an advance or a seal takes the row exclusively, so it waits for
-- the writes that were let in before it, and what asks after it is judged by the new row.

CREATE SCHEMA IF NOT EXISTS onewriter;

CREATE TABLE IF NOT EXISTS onewriter.guard (
  partition text COLLATE "C" PRIMARY KEY,
  epoch     bigint NOT NULL CHECK (epoch >= 0),
  owner     text NOT NULL CHECK (owner IN ('legacy', 'app')),
  closed    boolean NOT NULL,
  -- A user's write was accepted since the last seal.
  written   boolean NOT NULL,
  CONSTRAINT open_means_written CHECK (owner = 'legacy' OR closed OR written)
);

-- From an older guard: its rows kept no count, so they are taken for written until their next seal, and
-- PostgreSQL does not replace a function by one that answers with another column.
DO $$
DECLARE
  old regprocedure;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_attribute
                 WHERE attrelid = 'onewriter.guard'::regclass AND attname = 'written') THEN
    ALTER TABLE onewriter.guard ADD COLUMN written boolean NOT NULL DEFAULT true,
      ADD CONSTRAINT open_means_written CHECK (owner = 'legacy' OR closed OR written);
  END IF;
  FOR old IN SELECT p.oid::regprocedure FROM pg_proc AS p
    WHERE p.pronamespace = 'onewriter'::regnamespace AND p.proname IN ('verdict', 'advance', 'seal')
      AND NOT 'written' = ANY (p.proargnames)
  LOOP
    EXECUTE 'DROP FUNCTION ' || old;
  END LOOP;
END
$$;

-- The rule alone. NULL means accepted; a partition without a row is judged as (0, 'legacy', false).
CREATE OR REPLACE FUNCTION onewriter.refusal(row_epoch bigint, row_owner text, row_closed boolean,
                                             access text, at_epoch bigint)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN access = 'read' THEN NULL
    WHEN at_epoch < row_epoch THEN 'stale-epoch'
    WHEN at_epoch = row_epoch AND row_closed THEN 'closed-epoch'
    WHEN access = 'write' AND row_owner <> 'app' THEN 'legacy-owns'
    WHEN access = 'copy' AND row_owner = 'app' AND at_epoch = row_epoch THEN 'app-owns'
  END
$$;

-- What the row says now and what a request would be told. Takes no lock and changes nothing.
CREATE OR REPLACE FUNCTION onewriter.verdict(of_partition text, access text, at_epoch bigint)
RETURNS TABLE (partition text, epoch bigint, owner text, closed boolean, written boolean, accept boolean,
               code text)
LANGUAGE sql STABLE AS $$
  SELECT of_partition, r.epoch, r.owner, r.closed, r.written, r.code IS NULL, r.code
  FROM (
    SELECT h.*, onewriter.refusal(h.epoch, h.owner, h.closed, access, at_epoch) AS code
    FROM (
      SELECT coalesce(g.epoch, 0) AS epoch, coalesce(g.owner, 'legacy') AS owner,
             coalesce(g.closed, false) AS closed, coalesce(g.written, false) AS written
      FROM (SELECT 1) AS one LEFT JOIN onewriter.guard AS g ON g.partition = of_partition
    ) AS h
  ) AS r
$$;

-- Call this first in the transaction that writes. Returns, or raises OW001 stale-epoch, OW002 legacy-owns,
-- OW003 app-owns, OW004 closed-epoch (DETAIL is the code); after that the transaction cannot commit.
CREATE OR REPLACE FUNCTION onewriter.check(of_partition text, access text, at_epoch bigint)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
  held onewriter.guard;
  code text;
  wanted_owner text;
BEGIN
  IF of_partition IS NULL OR at_epoch IS NULL OR at_epoch < 0
     OR access IS NULL OR access NOT IN ('read', 'write', 'copy') THEN
    RAISE EXCEPTION 'onewriter.check needs a partition, an epoch from 0 and read, write or copy'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF access = 'read' THEN RETURN; END IF;
  wanted_owner := CASE access WHEN 'write' THEN 'app' ELSE 'legacy' END;
  -- A look without a lock tells which lock to take: raising a share lock to an exclusive one later would
  -- deadlock two transactions that both hold the share lock.
  SELECT g.* INTO held FROM onewriter.guard AS g WHERE g.partition = of_partition;
  IF NOT FOUND THEN
    IF onewriter.refusal(0, 'legacy', false, access, at_epoch) IS NULL THEN
      INSERT INTO onewriter.guard VALUES (of_partition, 0, 'legacy', false, false) ON CONFLICT DO NOTHING;
      SELECT g.* INTO STRICT held FROM onewriter.guard AS g WHERE g.partition = of_partition FOR UPDATE;
    ELSE
      held := (of_partition, 0, 'legacy', false, false);
    END IF;
  ELSIF held.epoch = at_epoch AND held.owner = wanted_owner AND NOT held.closed THEN
    -- Nothing to change: an open row of the app is marked as written, since only a user's write opens it.
    -- Should the row change before the lock is held, then only towards a refusal: its epoch never falls, and
    -- within one epoch an open row can only be closed.
    SELECT g.* INTO STRICT held FROM onewriter.guard AS g WHERE g.partition = of_partition FOR SHARE;
  ELSIF onewriter.refusal(held.epoch, held.owner, held.closed, access, at_epoch) IS NULL THEN
    SELECT g.* INTO STRICT held FROM onewriter.guard AS g WHERE g.partition = of_partition FOR UPDATE;
  END IF;
  code := onewriter.refusal(held.epoch, held.owner, held.closed, access, at_epoch);
  IF code IS NOT NULL THEN
    RAISE EXCEPTION 'onewriter guard: % (% under epoch %; the row has epoch %, owner %)',
      code, access, at_epoch, held.epoch, held.owner
      USING DETAIL = code, ERRCODE = CASE code
        WHEN 'stale-epoch' THEN 'OW001' WHEN 'legacy-owns' THEN 'OW002'
        WHEN 'app-owns' THEN 'OW003' ELSE 'OW004' END;
  END IF;
  IF held.epoch <> at_epoch OR held.owner <> wanted_owner OR held.closed THEN
    UPDATE onewriter.guard AS g SET epoch = at_epoch, owner = wanted_owner, closed = false,
      written = g.written OR access = 'write'
    WHERE g.partition = of_partition;
  END IF;
END
$$;

-- For a request that touches several partitions: checks each under its own epoch. In one order, whoever asks, so
-- that two transactions never wait for each other.
CREATE OR REPLACE FUNCTION onewriter.check_all(of_partitions text[], access text, at_epochs bigint[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  one record;
BEGIN
  IF of_partitions IS NULL OR cardinality(of_partitions) = 0
     OR cardinality(of_partitions) IS DISTINCT FROM cardinality(at_epochs) THEN
    RAISE EXCEPTION 'onewriter.check_all needs partitions, and an epoch for each'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR one IN
    SELECT t.name, t.at_epoch FROM unnest(of_partitions, at_epochs) AS t (name, at_epoch)
    ORDER BY t.name COLLATE "C"
  LOOP
    PERFORM onewriter.check(one.name, access, one.at_epoch);
  END LOOP;
END
$$;

-- At a fence: nothing more at this epoch or below. The old owner's guard gets the fence's epoch, the new owner's the
-- one before it, so that the handoff's own copies pass. `accept` says whether that now holds.
CREATE OR REPLACE FUNCTION onewriter.advance(of_partition text, at_epoch bigint)
RETURNS TABLE (partition text, epoch bigint, owner text, closed boolean, written boolean, accept boolean,
               code text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  held onewriter.guard;
BEGIN
  INSERT INTO onewriter.guard VALUES (of_partition, 0, 'legacy', false, false) ON CONFLICT DO NOTHING;
  SELECT g.* INTO STRICT held FROM onewriter.guard AS g WHERE g.partition = of_partition FOR UPDATE;
  IF at_epoch >= held.epoch THEN
    UPDATE onewriter.guard AS g SET epoch = at_epoch, closed = true WHERE g.partition = of_partition
    RETURNING g.* INTO held;
  END IF;
  RETURN QUERY SELECT held.partition, held.epoch, held.owner, held.closed, held.written, a.taken,
    CASE WHEN NOT a.taken THEN 'stale-epoch' END
  FROM (SELECT held.epoch = at_epoch AND held.closed AS taken) AS a;
END
$$;

-- Before a commit, for the new owner: copies of this and older epochs are over, and the app owns what comes.
CREATE OR REPLACE FUNCTION onewriter.seal(of_partition text, at_epoch bigint)
RETURNS TABLE (partition text, epoch bigint, owner text, closed boolean, written boolean, accept boolean,
               code text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  held onewriter.guard;
BEGIN
  INSERT INTO onewriter.guard VALUES (of_partition, 0, 'legacy', false, false) ON CONFLICT DO NOTHING;
  SELECT g.* INTO STRICT held FROM onewriter.guard AS g WHERE g.partition = of_partition FOR UPDATE;
  IF at_epoch >= held.epoch THEN
    UPDATE onewriter.guard AS g SET epoch = at_epoch, owner = 'app', closed = true, written = false
    WHERE g.partition = of_partition RETURNING g.* INTO held;
  END IF;
  RETURN QUERY SELECT held.partition, held.epoch, held.owner, held.closed, held.written, a.taken,
    CASE WHEN NOT a.taken THEN 'stale-epoch' END
  FROM (SELECT held.epoch = at_epoch AND held.owner = 'app' AND held.closed AS taken) AS a;
END
$$;
