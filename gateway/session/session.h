/*
 * One MQTT connection's session: a state machine without socket, clock or loop. Inputs are calls
 * with bytes, results and the time (in the shared part); effects go out through a table that the
 * endpoint implements, or a recorder in a test.
 *
 *   WAIT_CONNECT -> AUTHENTICATING -> CLAIMING -> CONNECTED -> CLOSED
 *
 * Which packet is allowed in which state is the table at the top of session.c; anything else is a
 * protocol error. In AUTHENTICATING and CLAIMING input is held, not refused.
 *
 * A session outlives its connection until every record it appended is durable (or refused), its
 * last events are appended, and its claim is settled; then it releases the claim. That is what
 * makes a take-over orderly: the newcomer's first event is appended after the old one's last is
 * durable, whichever workers they are on. What outlives the connection (kept.h) goes with the
 * claim.
 *
 * One worker's thread. Errors end the session, they are not returned.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/err.h"
#include "common/slice.h"
#include "gateway/command/twin.h"
#include "gateway/event/event.h"
#include "gateway/mqtt/packet.h"
#include "gateway/session/admission.h"
#include "gateway/session/aliases.h"
#include "gateway/session/children.h"
#include "gateway/session/device_map.h"
#include "gateway/session/flight.h"
#include "gateway/session/inflight.h"
#include "gateway/session/kept.h"
#include "gateway/session/producers.h"
#include "registry/registry.h"

struct session;

enum session_state {
    SESSION_WAIT_CONNECT,
    SESSION_AUTHENTICATING,
    SESSION_CLAIMING,
    SESSION_CONNECTED,
    SESSION_CLOSED,
    SESSION_STATE_COUNT
};

/* What a device offers to prove who it is. Slices are valid during the call. */
struct session_login {
    enum registry_login_kind kind; /* DEVICE_SECRET, or DEVICE_CERTIFICATE: the handshake's */
    struct slice tenant;           /* empty with a certificate that names none */
    struct slice device;           /* likewise */
    struct slice secret;           /* empty with a certificate */
    struct slice host;             /* IoT Hub's dialect: that the device uses; else empty */
};

/* Why a session ended. */
struct session_end {
    int err; /* 0: the device said goodbye */
    const char
        *clause;      /* of the specification, for malformed packets and protocol errors, or NULL */
    const char *text; /* in words; NULL: the error's text */
};

enum { SESSION_PEER_TEXT_SIZE = 64, SESSION_ID_TEXT_SIZE = 64, SESSION_WHY_SIZE = 192 };

/* A connection that took the place of another one of its device. */
struct session_takeover {
    char old_peer[SESSION_PEER_TEXT_SIZE], new_peer[SESSION_PEER_TEXT_SIZE];
    char old_session_id[SESSION_ID_TEXT_SIZE];
};

/* What a device says to a command. Slices are valid during the call. */
struct session_command_reply {
    int64_t device_key, command_key;
    unsigned status;
    struct slice content_type, payload;
};

/* What a session does to the world. None of them calls back into the session but claim(). */
struct session_effects {
    void (*send)(struct session *session, const void *data, size_t size);
    /* 0: session_login_done() follows. DG_ERR_NOT_FOUND: no certificate. Others: as a result. */
    int (*login)(struct session *session, const struct session_login *login);
    /* 0: session_claim_done() follows or was called. */
    int (*claim)(struct session *session);
    /* Takes over session->kept and session->producers and makes them NULL. */
    void (*release)(struct session *session);
    /* Asks the registry for a device behind this gateway. 0: the answer is stored in
     * shared->children, then session_child_done() follows. DG_ERR_NO_MEMORY. */
    int (*find_child)(struct session *session, struct slice name);
    /* Appends an event of the session's device, or of event->child, in one unit with changes of
     * state. 0: session_append_done() follows with tag. DG_ERR_PRESSURE: nothing was taken and
     * session_ready() follows. Others: refused. */
    int (*append)(struct session *session, const struct device_event *event,
                  const struct stream_mutation *with, unsigned count, uint64_t tag);
    /* The session receives commands from now on: for its device, or for one behind it, as long as
     * it does not say otherwise. */
    void (*receives)(struct session *session, int64_t device_key);
    void (*receives_no_more)(struct session *session, int64_t child_key);
    /* A reply of the device to a command of the queue. As append, but for DG_ERR_PRESSURE. */
    int (*reply)(struct session *session, const struct session_command_reply *reply, uint64_t tag);
    /* Changes state. As append. */
    int (*mutate)(struct session *session, const struct stream_mutation *mutation, uint64_t tag);
    /* Asks the home of a device's twin. 0: session_twin_answered() follows. DG_ERR_BUSY,
     * DG_ERR_NO_MEMORY. */
    int (*ask_twin)(struct session *session, const struct twin_request *request);
    /* Desired state of a device comes by session_deliver() from now on, or no more. As
     * twins_listen() and twins_ignore(). */
    int (*listen_state)(struct session *session, const struct twin_listener *listener);
    void (*ignore_state)(struct session *session, int64_t device_key);
    /* The offset that the state has under the key of a QoS 2 identity; -1: none. */
    int64_t (*find_offset)(struct session *session, struct slice key);
    /* A session that is over, and whose record is gone or replaced: its identities go too. Takes
     * over kept. */
    void (*discard)(struct session *session, struct session_kept *kept);
    void (*pause)(struct session *session);  /* stop offering input ... */
    void (*resume)(struct session *session); /* ... offer again what was left */
    void (*set_deadline)(struct session *session, uint64_t at_ms);
    /* The peer's address as text, NUL-terminated; "" when it has gone. */
    void (*format_peer)(struct session *session, char *ret_text);
    /* Of which the session is a part: the new one until connected(), the old one when it ended with
     * DG_ERR_TAKEN_OVER. NULL: none, or no memory. */
    const struct session_takeover *(*takeover)(const struct session *session);
    /* A filter that the device may not subscribe to: log. */
    void (*filter_refused)(const struct session *session, struct slice filter, int err);
    /* Packets may now be so large (unparsed input bound), after login. */
    void (*raise_input_limit)(struct session *session, uint32_t max_packet_bytes);
    /* Became one of the connected devices: log. */
    void (*connected)(struct session *session);
    /* Ends the connection after what was sent; the one place that logs why. */
    void (*close)(struct session *session, const struct session_end *end);
    /* Nothing is left to do: session_free() may be called as soon as the connection has gone. */
    void (*finished)(struct session *session);
};

struct session_tenant; /* tenants.h: name and stream, one per worker and tenant */

/* What the sessions of one worker share. Set up by session_shared_init(). */
struct session_shared {
    const struct session_effects *effects;
    const struct config *config; /* the newest; set before each input */
    uint64_t now_ns;             /* monotonic, of the input being handled; set by the caller */
    int64_t wall_ms;             /* likewise */
    int64_t done_offset;         /* of what is told durable; set before session_append_done() */
    struct inflight_pool inflight_pool;
    struct quota_ledger *quotas; /* all workers' */
    struct quota_line *waited;   /* quotas that somebody waits for */
    uint64_t last_session;       /* who has published last, and since when it is another one */
    int64_t last_tenant;         /* (share.h) */
    uint64_t session_changed_ns, tenant_changed_ns;
    struct device_map tenants; /* tenant key -> struct session_tenant * */
    struct children children;  /* devices behind those of the sessions */
    char prefix[48];           /* of session ids: node, boot, worker */
    uint32_t next_number;
    uint64_t will_bytes;    /* of the connections' wills */
    int32_t stream_epoch;   /* of the stream while it is open */
    uint64_t next_epoch;    /* of a new session; begins anywhere, by chance */
    uint32_t latency_count; /* acknowledgements of equal latency not yet observed */
    uint64_t latency_ns;
    struct flight *flight; /* the endpoint's; NULL: nothing is recorded */
    /* Of the report of state that was refused last, until it is answered: more than an error's text
     * says. The device gets that when others came in between. */
    struct session_why {
        uint64_t session; /* 0: nothing */
        uint16_t packet_id;
        char text[SESSION_WHY_SIZE];
    } why;
    int64_t claimed_key; /* flight.h: of who the CONNECT being handled says it is; else 0 */
    void *context;       /* the endpoint's */
};

/* prefix: at most 47 characters. */
void session_shared_init(struct session_shared *shared, const struct session_effects *effects,
                         const struct config *config, const char *prefix);
void session_shared_free(struct session_shared *shared);
/* Counts quotas together with another worker's sessions. Before the first session. */
void session_shared_join(struct session_shared *shared, const struct session_shared *other);
/* End of a turn: hands over what was counted. */
void session_shared_turn(struct session_shared *shared);

enum session_flag {
    SESSION_PASSWORDS_ALLOWED = 1 << 0, /* encrypted, loopback or switched on */
    SESSION_LINKED = 1 << 1,            /* the connection exists */
    SESSION_PAUSED_STREAM = 1 << 2,     /* waits for session_ready() */
    SESSION_PAUSED_WINDOW = 1 << 3,     /* 3.1.1: waits for acknowledgements to leave */
    SESSION_PAUSED_LOGIN = 1 << 4,      /* waits for login and claim */
    SESSION_PAUSED_STATE = 1 << 5,      /* waits until what a packet changed is durable */
    SESSION_WITHHOLDING = 1 << 6,       /* 3.1.1: a publish was refused, no ack leaves any more */
    SESSION_CLAIM_ASKED = 1 << 7,
    SESSION_CLAIM_HELD = 1 << 8,
    SESSION_PRESENT = 1 << 9,      /* the connected event was appended */
    SESSION_FINISHED = 1 << 10,    /* finished() was called */
    SESSION_EXPIRY_ZERO = 1 << 11, /* CONNECT asked for no session after the connection */
    SESSION_NO_PROBLEM_INFORMATION = 1 << 12, /* no reason strings on acks (MQTT5 3.1.2-29) */
    SESSION_WILL_DUE = 1 << 13,               /* the will waits to be appended */
    SESSION_KEEP_ALIVE_CAPPED = 1 << 14,      /* the device learns ours */
    SESSION_CLIENT_ID_ASSIGNED = 1 << 15,
    SESSION_PAUSED_DRAIN = 1 << 16,
    SESSION_CLEAN_START = 1 << 17,
    SESSION_EXPIRY_CAPPED = 1 << 18, /* the device learns ours */
    SESSION_DURABLE = 1 << 19,       /* what is kept is on the disk too */
    SESSION_RESUMED = 1 << 20,       /* goes on with what an earlier connection left */
    SESSION_CHANGED = 1 << 21,       /* its record is to be written, for a packet's sake */
    SESSION_SAVING = 1 << 22,        /* ... is on the way to the disk */
    SESSION_OPENED = 1 << 23,        /* ... was, for the first time, or need not be */
    SESSION_END_SAVED = 1 << 24,
    SESSION_RECEIPTS = 1 << 25,     /* acknowledgements say where the event is */
    SESSION_IOTHUB = 1 << 26,       /* of that dialect: session_iothub.h */
    SESSION_PAUSED_SHARE = 1 << 28, /* has its share in flight: share.h */
    SESSION_PAUSED_QUOTA = 1 << 29, /* over a quota: admission.h */
    SESSION_PAUSED_CHILD = 1 << 27, /* waits for what the registry says of a child */
    SESSION_ENTERED = 1 << 30,      /* counted among its tenant's connections */
};
enum {
    SESSION_PAUSED = SESSION_PAUSED_STREAM | SESSION_PAUSED_WINDOW | SESSION_PAUSED_LOGIN |
                     SESSION_PAUSED_STATE | SESSION_PAUSED_DRAIN | SESSION_PAUSED_QUOTA |
                     SESSION_PAUSED_SHARE | SESSION_PAUSED_CHILD
};

struct session {
    struct session_shared *shared;
    /* the endpoint's: the connection, the claim, sessions of one device, sessions that wait */
    void *link;
    void *claim;
    struct session *neighbour;
    struct session *next_waiting;
    uint64_t id; /* names it in tickets, logins and claims */
    struct session_tenant *tenant;
    struct admission *admission; /* NULL: no quota concerns it */
    uint8_t *names; /* device id, client id, then what session_iothub.h says; NUL-terminated */
    struct session_will *will; /* of this connection */
    struct inflight *inflight;
    struct aliases *aliases;
    struct session_kept *kept;   /* NULL: nothing to keep */
    struct session_kept *former; /* the session that this one takes the place of */
    struct producer *producers;  /* the device's, from the claim on; NULL: none */
    int64_t device_key;
    int64_t credential_key;
    int64_t valid_until_ms; /* wall clock; 0: no end */
    uint64_t connected_ms;  /* monotonic */
    uint64_t input_ms;      /* monotonic, of the last whole packet */
    uint32_t partition;
    uint32_t flags;             /* enum session_flag */
    uint32_t number;            /* with the shared prefix: the session id of presence events */
    uint32_t outstanding;       /* appended and not yet durable: share.h */
    uint32_t max_packet_bytes;  /* ours, as announced */
    uint32_t peer_packet_bytes; /* the device's; never send more */
    uint32_t expiry_s;          /* granted: how long the session outlives the connection */
    uint32_t withheld_ms;       /* since connected_ms, when withholding began */
    uint32_t published; /* taken in since connected_ms; as the next two, for people to see */
    uint32_t dropped;   /* of them QoS 0, not stored */
    uint16_t refused;   /* stays at its maximum */
    uint16_t keep_alive_s;
    uint16_t receive_maximum;
    uint16_t client_id_size;
    int8_t end_err; /* while it withholds: why */
    uint8_t withheld_count;
    uint8_t peer_receive_maximum; /* the device's, or more than the outbox sends */
    uint8_t peer_alias_maximum;   /* the device's, or ours */
    uint8_t device_size;
    uint8_t state;   /* enum session_state */
    uint8_t version; /* enum mqtt_version; 0 before CONNECT */
    union {
        uint8_t end_reason;    /* what the device's DISCONNECT says */
        uint8_t filters_asked; /* until then: of the SUBSCRIBE that waits for the registry */
    };
};

/* A new connection. id must be unique among the worker's sessions. */
void session_init(struct session *session, struct session_shared *shared, uint64_t id,
                  bool passwords_allowed);
/* After finished() and session_unlinked(). */
void session_free(struct session *session);

/* ---- inputs: shared->now_ns and wall_ms are set before each ---- */

/* Bytes; returns how many were used. */
size_t session_receive(struct session *session, const uint8_t *data, size_t size);
void session_login_done(struct session *session, int err, const struct registry_identity *identity);
/* err 0: the claim is held, and kept (the device's session without a connection, or NULL) belongs
 * to the session. may_keep: there is room for one more. */
void session_claim_done(struct session *session, int err, struct session_kept *kept, bool may_keep);
/* What was appended with this tag is durable (err 0), or was refused. */
void session_append_done(struct session *session, uint64_t tag, int err);
/* What the effect reply() was given is durable (err 0), or was not taken: DG_ERR_NO_CALL ... */
void session_reply_done(struct session *session, uint64_t tag, int err);
/* The home of a twin has answered. */
void session_twin_answered(struct session *session, const struct twin_answer *answer);
/* What find_child() asked for is known. */
void session_child_done(struct session *session);
/* After append() answered DG_ERR_PRESSURE: try again. */
void session_ready(struct session *session);
/* A deadline passed; the next one, 0 when the session has ended. */
uint64_t session_deadline(struct session *session);
/* A message for the device. 0: it goes out now or in its turn, on this connection or another one of
 * the session, and comes back through finished(). Else it is still the caller's:
 * DG_ERR_NOT_CONNECTED, DG_ERR_NOT_FOUND (the device has not subscribed to it, or may not speak for
 * the one whose it is), DG_ERR_LIMIT, DG_ERR_NO_MEMORY, DG_ERR_PRESSURE: later. */
DG_NODISCARD int session_deliver(struct session *session, struct outbox_message *message);
/* The commands of a device are wanted back. */
void session_recall(struct session *session, int64_t device_key);
/* The server ends it. text may be NULL; copied nowhere, valid during the call. */
void session_stop(struct session *session, int err, const char *text);
/* A newer connection of the device, from this address, takes its place. */
void session_evict(struct session *session, const char *by_peer);
/* No more input; ends with DG_ERR_SHUTTING_DOWN as soon as nothing is in flight. */
void session_drain(struct session *session);
/* The connection has gone (err says why, if the session does not know better). */
void session_unlinked(struct session *session, int err);

/* What the registry says of the session's tenant or device has changed; group: the device's. Ends
 * the session when memory is out. */
void session_update_quotas(struct session *session, struct slice group);

/* True when this change of the registry ends the session. */
bool session_is_revoked(const struct session *session,
                        const struct registry_revocation *revocation);

static inline struct slice session_device(const struct session *session) {
    return slice_make(session->names, session->device_size);
}
static inline struct slice session_client_id(const struct session *session) {
    return slice_make(session->names + session->device_size, session->client_id_size);
}
static inline bool session_is_iothub(const struct session *session) {
    return session->flags & SESSION_IOTHUB;
}
struct slice session_tenant_name(const struct session *session);
/* Its name in presence events; NUL-terminated. */
void session_format_id(const struct session *session, char *ret_text);
/* Who an event of this session is from, and which stream it belongs to; it has a device. */
void session_source(const struct session *session, const struct device_event *event,
                    struct event_source *ret_source);
