/*
 * Every configuration key: CONFIG(section, key, type, default, minimum, maximum, flags, help).
 * The row drives the parser, the checks, `check-config --print`, the environment override
 * DURAGATE_CFG_<SECTION>__<KEY>, and the reference page. Types: STRING, SIZE (bytes; 64KiB, 1GiB),
 * DURATION_MS (500ms, 30s, 1h, 7d), NUMBER, BOOL. Flags: SECRET (redacted, <KEY>_FILE allowed),
 * RELOAD (a reload takes effect without a restart), 0.
 */
/* clang-format off */
CONFIG(server, node_id,             STRING, "gw1", 1, 32, 0, "Name of this gateway, part of event ids")
CONFIG(server, workers,             NUMBER, "0", 0, LIMIT_WORKERS, 0, "Worker threads; 0: one less than the processors, at least one")
CONFIG(server, log_level,           STRING, "info", 1, 8, RELOAD, "debug, info, warn or error")
CONFIG(server, log_format,          STRING, "text", 1, 8, RELOAD, "text or json")
CONFIG(server, pid_file,            STRING, "", 0, 4096, 0, "Where to write the process id; empty: nowhere")
CONFIG(server, drain_timeout,       DURATION_MS, "10s", 0, 600000, RELOAD, "How long a stop waits for acknowledgements to leave")
CONFIG(server, proxy_sources,       STRING, "", 0, 1024, RELOAD, "Addresses and networks of proxies (10.0.0.0/8, 2001:db8::7), comma separated: on every listener, their connections must begin with a PROXY protocol header of version 2, whose client address holds from then on; empty: off")

CONFIG(mqtt, bind,                  STRING, "127.0.0.1:1883,[::1]:1883", 0, 1024, 0, "MQTT over plain TCP: addresses, comma separated; empty: off")
CONFIG(mqtt, tls_bind,              STRING, "", 0, 1024, 0, "MQTT over TLS: addresses")
CONFIG(mqtt, max_packet_bytes,      SIZE, "256KiB", 1024, LIMIT_MQTT_PACKET_BYTES, RELOAD, "Largest MQTT packet a device may send")
CONFIG(mqtt, receive_maximum,       NUMBER, "1024", 1, 65535, RELOAD, "QoS 1 and 2 publishes a device may have in flight: not acknowledged, with QoS 2 not completed")
CONFIG(mqtt, max_keep_alive,        DURATION_MS, "20m", 1000, 65535000, RELOAD, "Longest keep-alive; a device that asks for more or none gets this one")
CONFIG(mqtt, max_session_expiry,    DURATION_MS, "7d", 0, 315360000000, RELOAD, "How long a session is kept without its connection at most; MQTT 3.1.1 sessions that are not clean get all of it. 0: sessions end with their connection")
CONFIG(mqtt, server_reference,      STRING, "", 0, 256, RELOAD, "Where devices are sent when this gateway stops: MQTT 5 server reference, host or host:port, several with a space between; empty: nowhere")
CONFIG(mqtt, connect_rate,          NUMBER, "0", 0, 1000000, RELOAD, "Connections that the MQTT listeners accept in a second (a second's worth at once); others wait in the backlog of the operating system, without being refused; 0: no limit")
CONFIG(mqtt, connect_timeout,       DURATION_MS, "10s", 100, 600000, RELOAD, "Time from accept to a complete CONNECT, TLS included; on every listener, to a complete header of server.proxy_sources")

CONFIG(kafka, bind,                 STRING, "127.0.0.1:9092,[::1]:9092", 0, 1024, 0, "Kafka protocol over plain TCP: addresses")
CONFIG(kafka, tls_bind,             STRING, "", 0, 1024, 0, "Kafka protocol over TLS: addresses")
CONFIG(kafka, advertised,           STRING, "localhost:9092", 1, 261, RELOAD, "host:port that clients of the plain listener are told to connect to")
CONFIG(kafka, tls_advertised,       STRING, "localhost:9093", 1, 261, RELOAD, "host:port that clients of the TLS listener are told to connect to")
CONFIG(kafka, idle_timeout,         DURATION_MS, "10m", 1000, 86400000, RELOAD, "A connection without a request for so long is closed")
CONFIG(kafka, offsets_retention,    DURATION_MS, "7d", 0, 315360000000, RELOAD, "The committed offsets of a consumer group that nobody has used for so long are forgotten; 0: never")
CONFIG(kafka, connections_per_key,  NUMBER, "1000", 0, LIMIT_CONNECTIONS_PER_WORKER, RELOAD, "Connections that are logged in with one API key, on all workers; 0: no limit")
CONFIG(kafka, quota_fetch_bytes_per_second, SIZE, "0", 0, 1099511627776, RELOAD, "Bytes of events that one API key may fetch in a second, all its connections together; who takes more waits; 0: no limit")
CONFIG(kafka, quota_requests_per_second, NUMBER, "0", 0, 1000000000, RELOAD, "Requests that one API key may make in a second, all its connections together; who makes more waits; 0: no limit")

CONFIG(iothub, hosts,               STRING, "", 0, 4096, RELOAD, "Host names that clients written for Azure IoT Hub connect to, each with its tenant: hub.example.com=acme, hub2.example.com=t2. Such clients are served on all listeners of MQTT and HTTPS; empty: none")

CONFIG(https, bind,                 STRING, "", 0, 1024, 0, "HTTPS for devices and services: addresses")
CONFIG(management, bind,            STRING, "127.0.0.1:8080,[::1]:8080", 0, 1024, 0, "Management HTTP (API, health, metrics) in plain text: addresses")
CONFIG(management, tls_bind,        STRING, "", 0, 1024, 0, "Management HTTPS: addresses")
CONFIG(management, request_timeout, DURATION_MS, "30s", 100, 600000, RELOAD, "Whole-request deadline of any HTTP listener")

CONFIG(tls, certificate_file,       STRING, "", 0, 4096, RELOAD, "Server certificate chain, PEM (P-256 advised)")
CONFIG(tls, key_file,               STRING, "", 0, 4096, RELOAD, "Its private key, PEM")
CONFIG(tls, rsa_certificate_file,   STRING, "", 0, 4096, RELOAD, "A second chain with an RSA key, for clients without ECDSA; optional")
CONFIG(tls, rsa_key_file,           STRING, "", 0, 4096, RELOAD, "Its private key, PEM")
CONFIG(tls, handshake_timeout,      DURATION_MS, "10s", 100, 600000, RELOAD, "Time for a TLS handshake")

CONFIG(registry, conninfo,          STRING, "host=/var/run/postgresql dbname=duragate", 1, 4096, 0, "PostgreSQL connection string, without the password; hostaddr or a socket directory, a name blocks while it is looked up")
CONFIG(registry, password,          STRING, "", 0, 1024, SECRET, "PostgreSQL password")
CONFIG(registry, query_timeout,     DURATION_MS, "2s", 50, 60000, RELOAD, "Deadline of one statement, from the moment it is PostgreSQL's turn; a PostgreSQL that misses it counts as down. All waiting included an answer takes at most a quarter more")
CONFIG(registry, cache_devices,     NUMBER, "200000", 100, 100000000, 0, "Devices kept in the cache")
CONFIG(registry, auto_migrate,      BOOL, "false", 0, 1, 0, "Apply missing migrations at start; for demonstrations only")

CONFIG(security, master_key_file,   STRING, "", 0, 4096, 0, "Key that seals device keys and hashes generated ones: 'key-id:base64 of 32 bytes', mode 0640 or stricter")
CONFIG(security, allow_plaintext_passwords, BOOL, "false", 0, 1, 0, "Allow passwords and API keys on plain-text listeners beyond loopback")
CONFIG(security, unknown_connections, NUMBER, "1000", 0, LIMIT_CONNECTIONS_PER_WORKER, RELOAD, "Connections that have not logged in yet, of one address (IPv6: of one /64) on one worker; 0: no limit; loopback has none")

CONFIG(storage, directory,          STRING, "/var/lib/duragate", 1, 4000, 0, "Where the stream lives; a local file system")
CONFIG(storage, journal_size,       SIZE, "256MiB", 16777216, 17179869184, 0, "The commit journal, preallocated; changed only on an empty store")
CONFIG(storage, segment_size,       SIZE, "128MiB", 1048576, 2147483647, RELOAD, "A segment file is closed when it reaches this size")
CONFIG(storage, segment_age,        DURATION_MS, "1d", 1000, 31536000000, RELOAD, "... or this age")
CONFIG(storage, retention_bytes,    SIZE, "0", 0, 9000000000000000, RELOAD, "Size a partition may keep; 0: no limit")
CONFIG(storage, retention_time,     DURATION_MS, "7d", 0, 315360000000, RELOAD, "How long events are kept; 0: for ever")
CONFIG(storage, compression,        STRING, "none", 1, 8, RELOAD, "How record batches are compressed from now on: none, lz4 or zstd. It costs CPU; consumers need the codec (kafkajs: a plug-in, zstd: Fetch 10 or later)")
CONFIG(storage, reserve,            SIZE, "64MiB", 0, 9000000000000000, RELOAD, "Free space that is left untouched on the file system")

CONFIG(events, device_time_window,  DURATION_MS, "7d", 0, 315360000000, RELOAD, "A device's own time is believed if it is at most so far from the receive time")
CONFIG(events, presence,            BOOL, "true", 0, 1, RELOAD, "Write connected and disconnected events")

CONFIG(commands, retention,         DURATION_MS, "1d", 0, 31536000000, RELOAD, "How long commands that have come to their end can still be looked up")
/* clang-format on */
