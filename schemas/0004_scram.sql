-- A Kafka client that logs in with SASL SCRAM-SHA-256 proves that it knows an API key's secret without
-- sending it. To check the proof StoredKey and ServerKey (RFC 5802) are needed, which the keyed hash
-- cannot give: 64 bytes, sealed with the master key. Null: the key was made before, or by a gateway
-- that does not know of this; it logs in with PLAIN only.
alter table api_key add column scram bytea;

-- Whoever replaces a secret and does not know of the column must not leave the old secret valid.
create function api_key_replaced() returns trigger language plpgsql as $$
begin
    if new.secret <> old.secret and new.scram is not distinct from old.scram then
        new.scram := null;
    end if;
    return new;
end $$;
create trigger api_key_replaced before update on api_key for each row
    execute function api_key_replaced();
