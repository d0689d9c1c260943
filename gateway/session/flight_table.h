/*
 * What the flight recorder (flight.h) knows: kinds of entries, and what to do about errors.
 *
 * KIND(id, name, metric, is_end, by_detail, detail, words): name is the API's (schemas/openapi.yaml
 * lists the same; a test compares them). metric: counts the entries; METRIC_COUNT when it depends
 * on the error (see ADVICE) or another one counts them. is_end: a connection is over. by_detail:
 * with another detail it is not the same again. detail: what the detail is, or NULL for none.
 * words: when they end in a colon, the error's text follows.
 *
 * ADVICE(kind, err, refused, words): what to do. The first row that fits an entry; kind FLIGHT_ANY
 * and err 0 fit everything. refused: the metric that counts a refused login or CONNECT.
 */
/* clang-format off */
KIND(CONNECTED,         "connected",          METRIC_COUNT,                  false, true,  "client id", "connected")
KIND(RESUMED,           "resumed",            METRIC_COUNT,                  false, true,  "client id", "connected and went on with its session")
KIND(LOGIN_REFUSED,     "login_refused",      METRIC_COUNT,                  true,  false, NULL,        "login refused:")
KIND(CONNECT_REFUSED,   "connect_refused",    METRIC_COUNT,                  true,  true,  "why",       "connection refused:")
KIND(DISCONNECTED,      "disconnected",       METRIC_DISCONNECTS_DEVICE,     true,  false, NULL,        "disconnected by the device")
KIND(LOST,              "connection_lost",    METRIC_DISCONNECTS_LOST,       true,  false, NULL,        "connection lost:")
KIND(KEEP_ALIVE,        "keep_alive_timeout", METRIC_DISCONNECTS_KEEP_ALIVE, true,  false, NULL,        "nothing heard for 1.5 times the keep-alive")
KIND(TAKEN_OVER,        "taken_over",         METRIC_DISCONNECTS_TAKEN_OVER, true,  false, "by",        "taken over by a newer connection")
KIND(PROTOCOL_ERROR,    "protocol_error",     METRIC_DISCONNECTS_PROTOCOL,   true,  true,  "why",       "ended for a protocol error:")
KIND(ENDED,             "ended",              METRIC_DISCONNECTS_GATEWAY,    true,  true,  "why",       "ended by the gateway:")
KIND(SUBSCRIBED,        "subscribed",         METRIC_COUNT,                  false, true,  "filter",    "subscribed")
KIND(SUBSCRIBE_REFUSED, "subscribe_refused",  METRIC_SUBSCRIPTIONS_REFUSED,  false, true,  "filter",    "subscription refused:")
KIND(PUBLISH_REFUSED,   "publish_refused",    METRIC_COUNT,                  false, false, "topic",     "publish refused:")
KIND(QUARANTINED,       "quarantined",        METRIC_COUNT,                  false, false, "why",       "stored in the tenant's quarantine stream")
KIND(WITHHELD,          "withheld",           METRIC_COUNT,                  false, false, NULL,        "acknowledgements are withheld:")
KIND(DROPPED,           "dropped",            METRIC_MQTT_QOS0_DROPPED,      false, false, NULL,        "QoS 0 event dropped:")
KIND(WILL_STORED,       "will_stored",        METRIC_WILLS_STORED,           false, true,  "topic",     "will stored")
KIND(WILL_REFUSED,      "will_refused",       METRIC_WILLS_REFUSED,          false, true,  "topic",     "will not stored:")
KIND(SESSION_EXPIRED,   "session_expired",    METRIC_SESSIONS_EXPIRED,       false, false, NULL,        "session expired")

ADVICE(FLIGHT_LOGIN_REFUSED,     DG_ERR_BAD_CREDENTIALS,     METRIC_CONNECTS_REFUSED_CREDENTIALS, "the user name is device@tenant, the secret one of `duragate credential list`, not expired; if it is lost, make another with `duragate credential create`")
ADVICE(FLIGHT_ANY,               DG_ERR_BAD_CREDENTIALS,     METRIC_CONNECTS_REFUSED_CREDENTIALS, "connect as device@tenant with a secret, or with a client certificate")
ADVICE(FLIGHT_LOGIN_REFUSED,     DG_ERR_NOT_AUTHORIZED,      METRIC_CONNECTS_REFUSED_FORBIDDEN,   "two tenants vouch for this certificate: give the user name device@tenant as well")
ADVICE(FLIGHT_CONNECT_REFUSED,   DG_ERR_NOT_AUTHORIZED,      METRIC_CONNECTS_REFUSED_FORBIDDEN,   "the detail says what is missing; secrets need TLS or the gateway's own machine")
ADVICE(FLIGHT_ANY,               DG_ERR_DISABLED,            METRIC_CONNECTS_REFUSED_FORBIDDEN,   "the device or its tenant is switched off: `duragate device enable` lets it in")
ADVICE(FLIGHT_ANY,               DG_ERR_ADMINISTRATIVE,      METRIC_CONNECTS_REFUSED_FORBIDDEN,   "its credential, the device or its tenant was changed or removed; it may connect again with a valid one")
ADVICE(FLIGHT_ANY,               DG_ERR_ATTEMPTS,            METRIC_CONNECTS_REFUSED_THROTTLED,   "too many wrong secrets, for this device or from this address: correct whoever sends them, then wait some seconds")
ADVICE(FLIGHT_ANY,               DG_ERR_CONNECTION_RATE,     METRIC_CONNECTS_REFUSED_THROTTLED,   "it connects too often: let the client wait longer after each failure")
ADVICE(FLIGHT_ANY,               DG_ERR_BUSY,                METRIC_CONNECTS_REFUSED_UNAVAILABLE, "the gateway was busy, or this device had another connection waiting: let the client wait and try again")
ADVICE(FLIGHT_ANY,               DG_ERR_UNAVAILABLE,         METRIC_CONNECTS_REFUSED_UNAVAILABLE, "PostgreSQL could not be asked: /readyz of the gateway says why")
ADVICE(FLIGHT_ANY,               DG_ERR_NO_MEMORY,           METRIC_CONNECTS_REFUSED_UNAVAILABLE, "the gateway is out of memory: give it more, or fewer connections")
ADVICE(FLIGHT_ANY,               DG_ERR_SHUTTING_DOWN,       METRIC_CONNECTS_REFUSED_UNAVAILABLE, "the gateway was stopped; the device may connect again when it runs")
ADVICE(FLIGHT_ANY,               DG_ERR_CLIENT_ID,           METRIC_CONNECTS_REFUSED_PROTOCOL,    "a client id is needed in MQTT 3.1.1 unless the session is clean")
ADVICE(FLIGHT_ANY,               DG_ERR_UNSUPPORTED_VERSION, METRIC_CONNECTS_REFUSED_PROTOCOL,    "the gateway speaks MQTT 3.1.1 and 5: set the client's protocol version")
ADVICE(FLIGHT_ANY,               DG_ERR_BAD_AUTH_METHOD,     METRIC_CONNECTS_REFUSED_PROTOCOL,    "enhanced authentication (AUTH) is not offered: use a secret or a client certificate")
ADVICE(FLIGHT_ANY,               DG_ERR_TOO_LARGE,           METRIC_CONNECTS_REFUSED_PROTOCOL,    "a packet was larger than its receiver takes: send less at a time, or raise mqtt.max_packet_bytes or the client's maximum")
ADVICE(FLIGHT_PUBLISH_REFUSED,   DG_ERR_NOT_AUTHORIZED,      METRIC_CONNECTS_REFUSED_OTHER,       "publish to a topic that does not begin with $, or to $dg/events/...")
ADVICE(FLIGHT_PUBLISH_REFUSED,   DG_ERR_NOT_SUPPORTED,       METRIC_CONNECTS_REFUSED_OTHER,       "this gateway does not serve that control topic: publish elsewhere")
ADVICE(FLIGHT_ANY,               DG_ERR_VIA,                 METRIC_CONNECTS_REFUSED_OTHER,       "a device behind this one must be registered, enabled, and list this one in its member via (docs/devices.md)")
ADVICE(FLIGHT_PUBLISH_REFUSED,   DG_ERR_NO_CALL,             METRIC_CONNECTS_REFUSED_OTHER,       "it answered too late, or with an id that is not that of $dg/commands/<id>/...: answer sooner, or give the call a longer response_timeout")
ADVICE(FLIGHT_SUBSCRIBE_REFUSED, DG_ERR_NOT_SUPPORTED,       METRIC_CONNECTS_REFUSED_OTHER,       "this gateway does not serve that control topic")
ADVICE(FLIGHT_SUBSCRIBE_REFUSED, DG_ERR_LIMIT,               METRIC_CONNECTS_REFUSED_OTHER,       "the session has as many subscriptions as it may: unsubscribe first")
ADVICE(FLIGHT_SUBSCRIBE_REFUSED, 0,                          METRIC_CONNECTS_REFUSED_OTHER,       "a device subscribes to its own $dg/commands/# and $dg/state/desired and to nothing else")
ADVICE(FLIGHT_ANY,               DG_ERR_TOPIC_NAME,          METRIC_CONNECTS_REFUSED_OTHER,       "a topic has no wildcard, at most 16 levels and 1024 bytes")
ADVICE(FLIGHT_ANY,               DG_ERR_STORAGE_FULL,        METRIC_CONNECTS_REFUSED_OTHER,       "the disk is full: make room, or shorten storage.retention_time or storage.retention_bytes; the device sends it again")
ADVICE(FLIGHT_QUARANTINED,       0,                          METRIC_CONNECTS_REFUSED_OTHER,       "the payload is not what the tenant's policy asks of this topic: correct the device, or the rule")
ADVICE(FLIGHT_ANY,               DG_ERR_QUOTA,               METRIC_CONNECTS_REFUSED_OTHER,       "the quota is used up: send less, or raise it")
ADVICE(FLIGHT_ANY,               DG_ERR_RATE,                METRIC_CONNECTS_REFUSED_OTHER,       "it sends faster than it may: send less often, or raise the rate")
ADVICE(FLIGHT_ANY,               DG_ERR_RECEIVE_MAXIMUM,     METRIC_CONNECTS_REFUSED_OTHER,       "the client has more QoS 1 and 2 messages under way than the gateway announced: let it keep to the receive maximum")
ADVICE(FLIGHT_ANY,               DG_ERR_TIMEOUT,             METRIC_CONNECTS_REFUSED_OTHER,       "the connection was not complete within mqtt.connect_timeout: the network is slow, or the registry did not answer")
ADVICE(FLIGHT_ENDED,             DG_ERR_NOT_AUTHORIZED,      METRIC_CONNECTS_REFUSED_OTHER,       "the credential's time is over: give the device another, or publish where it may")
ADVICE(FLIGHT_KEEP_ALIVE,        0,                          METRIC_CONNECTS_REFUSED_OTHER,       "the network broke or the device slept; let it ping in time, or ask for a longer keep-alive")
ADVICE(FLIGHT_LOST,              0,                          METRIC_CONNECTS_REFUSED_OTHER,       "the network broke, or the device stopped without DISCONNECT")
ADVICE(FLIGHT_TAKEN_OVER,        0,                          METRIC_CONNECTS_REFUSED_OTHER,       "if it is not the same device that came again, two have one identity: give each its own")
ADVICE(FLIGHT_SESSION_EXPIRED,   0,                          METRIC_CONNECTS_REFUSED_OTHER,       "it was away for longer than its session expiry: it subscribes again when it comes back")
ADVICE(FLIGHT_PROTOCOL_ERROR,    0,                          METRIC_CONNECTS_REFUSED_OTHER,       "the client broke the clause of MQTT that is named: correct or update it")
ADVICE(FLIGHT_CONNECT_REFUSED,   DG_ERR_MALFORMED,           METRIC_CONNECTS_REFUSED_PROTOCOL,    "the client broke the clause of MQTT that is named: correct or update it")
ADVICE(FLIGHT_CONNECT_REFUSED,   DG_ERR_PROTOCOL,            METRIC_CONNECTS_REFUSED_PROTOCOL,    "the client broke the clause of MQTT that is named: correct or update it")
ADVICE(FLIGHT_ANY,               0,                          METRIC_CONNECTS_REFUSED_OTHER,       NULL)
/* clang-format on */
