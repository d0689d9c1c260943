/*
 * Every fixed limit of the product, in one place. A limit is compared before anything is allocated.
 * Limits that an operator may change are rows of config_table.h; these are the ceilings above them.
 */
#pragma once

/* quotas */
#define LIMIT_BUCKET_DEBT_MS 60000    /* no more than so much over one is to be caught up with */
#define LIMIT_QUOTA_WAIT_MS 10000     /* a QoS 1 or 2 publish waits so long, then it is refused */
#define LIMIT_QUOTA_WAIT_QOS0_MS 1000 /* ... one of QoS 0 is dropped */
#define LIMIT_QUOTA_IDLE_ENTRIES \
    65536 /* what was used by who is gone; then the oldest is forgotten */

/* names (DESIGN: names on the wire) */
#define LIMIT_TENANT_BYTES 63
#define LIMIT_DEVICE_ID_BYTES 128
#define LIMIT_USER_NAME_BYTES 1024 /* device@tenant, or an IoT Hub user name */
#define LIMIT_PASSWORD_BYTES 4096  /* a SAS token fits */
#define LIMIT_CLIENT_ID_BYTES 256
#define LIMIT_API_KEY_ID_BYTES 64
#define LIMIT_HOST_BYTES 253 /* of a name in iothub.hosts */

/* any connection */
#define LIMIT_BEFORE_LOGIN_BYTES (64 * 1024) /* memory one peer may cause before it is known */
#define LIMIT_READ_BUFFER_BYTES (256 * 1024) /* per worker, shared by its connections */
#define LIMIT_OUTPUT_BYTES (1024 * 1024)     /* unsent bytes of one connection, then it is closed */
#define LIMIT_CONNECTIONS_PER_WORKER 1000000
#define LIMIT_RESERVED_DESCRIPTORS \
    4352 /* no connection takes them: the stream, PostgreSQL, files */
#define LIMIT_WORKERS 64
#define LIMIT_PROXY_HEADER_BYTES 2048 /* of the PROXY protocol, extensions included */
#define LIMIT_WEBSOCKET_MESSAGE_BYTES (2 * 1024 * 1024) /* all frames of one message */
#define LIMIT_TLS_HANDSHAKES_PER_WORKER 4096            /* in flight, from their first byte on */
#define LIMIT_TLS_SILENT_PER_WORKER 4096                /* no byte yet; then the oldest gives way */

/* MQTT */
#define LIMIT_MQTT_PACKET_BYTES (1024 * 1024) /* ceiling of mqtt.max_packet_bytes */
#define LIMIT_MQTT_CONNECT_BYTES (16 * 1024)  /* the first packet */
#define LIMIT_MQTT_TOPIC_BYTES 1024
#define LIMIT_MQTT_TOPIC_LEVELS 16
#define LIMIT_MQTT_TOPIC_ALIASES 16 /* of one connection */
#define LIMIT_MQTT_PROPERTIES 32
#define LIMIT_MQTT_PROPERTY_BYTES (16 * 1024)
#define LIMIT_IOTHUB_TOPIC_BYTES (8 * 1024)     /* property bags are in it */
#define LIMIT_IOTHUB_MESSAGE_BYTES (256 * 1024) /* of a device: payload and properties */
#define LIMIT_IOTHUB_KEEP_ALIVE_S 1177          /* and what a device gets that asks for none */
#define LIMIT_MQTT_SUBSCRIPTIONS 16             /* filters of one SUBSCRIBE and of one session */
#define LIMIT_SESSIONS_KEPT_PER_WORKER 1000000  /* without a connection; no more are kept */
#define LIMIT_SESSION_SWEEP_CALLS 16 /* a second apart: then every kept session was looked at */
#define LIMIT_WILLS_BYTES \
    (32 * 1024 * 1024)                   /* of one worker, of its connections and that wait, each */
#define LIMIT_WILLS_ASKED 16             /* about which the registry is asked, of one worker */
#define LIMIT_WILL_RETRY_MS 5000         /* after a will that was due could not be stored */
#define LIMIT_MQTT_UNRELEASED 16384      /* QoS 2 messages of a 3.1.1 session without PUBREL */
#define LIMIT_MQTT_WITHHELD_PUBLISHES 64 /* 3.1.1: unacknowledged after a refusal, then closed */
#define LIMIT_MQTT_WITHHELD_MS 10000     /* ... or after this time */

/* the flight recorder, per worker */
#define LIMIT_FLIGHT_ENTRIES 32768  /* of devices: 4 MiB, when they are written to */
#define LIMIT_FLIGHT_STRANGERS 4096 /* ... of names that somebody claims */
#define LIMIT_FLIGHT_STEPS 4096     /* entries that one look-up goes past */
#define LIMIT_RECENT_ENTRIES 200    /* of one answer */
/* producer sequences */
#define LIMIT_PRODUCERS_PER_DEVICE 4
#define LIMIT_PRODUCER_ID_BYTES 32
#define LIMIT_PRODUCER_SLOTS 32 /* of one producer's events on the way to the disk; more wait */
#define LIMIT_PRODUCER_IDLE_MS (7 * 24 * 3600 * 1000LL) /* unused, then it is forgotten */
#define LIMIT_PRODUCER_YIELD_MS (24 * 3600 * 1000LL)    /* ... then it gives way to a fifth */

/* messages to devices */
#define LIMIT_OUTBOX_MESSAGES 64        /* to one device, until it has acknowledged and replied */
#define LIMIT_OUTBOX_BYTES (512 * 1024) /* ... and of them all */
#define LIMIT_OUTBOX_INFLIGHT 32        /* sent to it and not acknowledged */
#define LIMIT_OUTBOX_INFLIGHT_BYTES (256 * 1024) /* ... with that one message more */
#define LIMIT_OUTGOING_PAYLOAD_BYTES (128 * 1024)
#define LIMIT_OUTGOING_PROPERTY_BYTES (8 * 1024) /* as encoded in MQTT 5 */
#define LIMIT_OUTGOING_UNSENT_BYTES (512 * 1024) /* the device does not read: no more of them */
#define LIMIT_CALLS_PER_WORKER 4096              /* waiting for a reply */
#define LIMIT_CALLS_OF_TENANT 1024               /* ... on one worker */
#define LIMIT_CALL_BYTES_PER_WORKER (64 * 1024 * 1024)
#define LIMIT_CALL_CONTENT_TYPE_BYTES 256
#define LIMIT_METHOD_NAME_BYTES 64

/* commands */
#define LIMIT_COMMAND_PAYLOAD_BYTES (64 * 1024)
#define LIMIT_COMMAND_BODY_BYTES (256 * 1024)   /* of a POST: base64, or JSON with escapes */
#define LIMIT_COMMAND_PROPERTY_BYTES (7 * 1024) /* as JSON; in MQTT 5 others come with them */
#define LIMIT_COMMAND_REPLY_BYTES (32 * 1024)
#define LIMIT_COMMANDS_PENDING 1000 /* of one device */
#define LIMIT_COMMAND_DELIVERIES 10 /* without an acknowledgement; then it is dead-lettered */
#define LIMIT_COMMAND_TTL_MS (30LL * 24 * 3600 * 1000)
#define LIMIT_COMMANDS_OFFERED 16             /* of one device, in memory and not delivered yet */
#define LIMIT_COMMANDS_PER_WORKER (64 * 1024) /* in memory, of all devices */
#define LIMIT_COMMAND_BYTES_PER_WORKER (128 * 1024 * 1024)
#define LIMIT_COMMAND_REPLIES 4096      /* to commands that are not in memory, of one worker */
#define LIMIT_COMMAND_WATCHERS 64       /* that the home of a device tells of one command */
#define LIMIT_COMMANDS_OF_STATEMENT 256 /* created, taken or projected at a time */
#define LIMIT_COMMAND_BYTES_OF_STATEMENT (1024 * 1024)
#define LIMIT_RELAYED_BYTES                                               \
    (64 * 1024 * 1024) /* read of stream_outbox and not deleted there yet \
                        */
#define LIMIT_COMMANDS_COLLECTED                                                                  \
    5000                              /* let go, or removed, by a statement that nobody waits for \
                                       */
#define LIMIT_INSTANCE_LEASE_MS 30000 /* how long others wait for a gateway that says nothing */

/* device twins */
#define LIMIT_TWIN_BYTES (32 * 1024) /* of desired, and of reported state, as compact JSON */
#define LIMIT_TWIN_DEPTH 10          /* of objects and arrays below the document */
#define LIMIT_TWIN_KEY_BYTES 1024
#define LIMIT_TWIN_STRING_BYTES 4096
#define LIMIT_TWIN_NUMBER (1LL << 52)
#define LIMIT_TWIN_NOTE_BYTES 512
#define LIMIT_TWIN_LISTENERS 9 /* of one device: itself and its gateways */
#define LIMIT_TWIN_ASKS 4096   /* of one worker, not answered */
#define LIMIT_TWIN_ASK_BYTES (16 * 1024 * 1024)
#define LIMIT_TWIN_LOADS 64                         /* devices read at a time */
#define LIMIT_TWIN_KNOWN_BYTES (32 * 1024 * 1024)   /* documents that a worker remembers */
#define LIMIT_TWIN_MESSAGE_BYTES (64 * 1024 * 1024) /* ... of desired state, on their way */
#define LIMIT_TWIN_UNSAID_BYTES (64 * 1024 * 1024)  /* ... reported, not in PostgreSQL yet */

/* jobs */
#define LIMIT_JOBS_OF_TENANT 100                /* at a time */
#define LIMIT_JOBS_KEPT_OF_TENANT 1000          /* ... with those that have come to their end */
#define LIMIT_JOB_LISTED_DEVICES 10000          /* of one job that lists them */
#define LIMIT_JOB_DEVICES 100000                /* of one job */
#define LIMIT_JOB_DEVICES_OF_TENANT 1000000     /* ... of all that are kept */
#define LIMIT_JOB_RATE 1000                     /* devices of one job in a second */
#define LIMIT_JOB_STEP_JOBS 4                   /* that go on together */
#define LIMIT_JOB_STEP_DEVICES 250              /* of one job at a time */
#define LIMIT_JOB_STEP_TWINS 16                 /* ... whose desired state is changed */
#define LIMIT_JOB_STEP_BYTES (4 * 1024 * 1024L) /* ... of their payloads */

/* events */
#define LIMIT_EVENT_PAYLOAD_BYTES (512 * 1024)
#define LIMIT_EVENT_HEADERS_BYTES (32 * 1024)

/* the stream */
#define LIMIT_UNIT_BYTES (1024 * 1024)
#define LIMIT_GROUP_BYTES (4 * 1024 * 1024)
#define LIMIT_PARTITIONS_PER_STREAM 1024
#define LIMIT_APPENDER_BYTES (16 * 1024 * 1024)        /* open and in flight, of one worker */
#define LIMIT_SESSION_SHARE_BYTES (128 * 1024)         /* ... of one device, while others publish */
#define LIMIT_TENANT_SHARE_BYTES (128 * 1024)          /* ... of one tenant, likewise */
#define LIMIT_PLACER_BACKLOG_BYTES (64 * 1024 * 1024)  /* durable, not yet in a segment */
#define LIMIT_PLACER_RETAINED_BYTES (32 * 1024 * 1024) /* placed, kept for close readers */
#define LIMIT_CHUNK_POOL_FREE_BYTES (64 * 1024 * 1024)
#define LIMIT_SEGMENT_DESCRIPTORS 4096       /* two for a segment that is written; or half of all */
#define LIMIT_INDEX_BYTES (64 * 1024 * 1024) /* of all segments; what is not used goes */
#define LIMIT_PARTITIONS (128 * 1024)        /* of a store, with a record */
#define LIMIT_STATE_BYTES (448 * 1024 * 1024) /* in a checkpoint; beyond it only deletions */
#define LIMIT_CHECKPOINT_BYTES (1024 * 1024 * 1024)
#define LIMIT_MUTATION_KEY_BYTES 512
#define LIMIT_MUTATION_VALUE_BYTES (64 * 1024)
#define LIMIT_FETCH_TURN_BYTES (256 * 1024) /* one sendfile */

/* Kafka */
#define LIMIT_KAFKA_REQUEST_BYTES (1024 * 1024)
#define LIMIT_KAFKA_BEFORE_LOGIN_BYTES (16 * 1024)
#define LIMIT_KAFKA_PIPELINED_BYTES (64 * 1024)
#define LIMIT_KAFKA_FETCH_PARTITIONS 4096
#define LIMIT_KAFKA_DESCRIBED_CONFIGS 1024          /* topics of one DescribeConfigs */
#define LIMIT_KAFKA_DESCRIBED_KEYS 256              /* ... and the keys that are named for each */
#define LIMIT_KAFKA_FETCH_BYTES (16 * 1024 * 1024)  /* of one answer */
#define LIMIT_KAFKA_ANSWER_BYTES (16 * 1024 * 1024) /* ... without its records: many topics */
#define LIMIT_KAFKA_MAX_WAIT_MS 30000
#define LIMIT_KAFKA_THROTTLE_MS 1000      /* a connection over its quota is muted so long at most */
#define LIMIT_KAFKA_GROUPS 10000          /* of one worker */
#define LIMIT_KAFKA_GROUPS_OF_TENANT 1000 /* ... that belong to one tenant */
#define LIMIT_KAFKA_GROUP_NAME_BYTES 255
#define LIMIT_KAFKA_GROUP_MEMBERS 1000
#define LIMIT_KAFKA_GROUP_PROTOCOLS 16                     /* of one member */
#define LIMIT_KAFKA_GROUP_METADATA_BYTES (8 * 1024 * 1024) /* of all members */
/* Memory of one request to a coordinator with its answer, and of all answers to one message. */
#define LIMIT_KAFKA_GROUP_REQUEST_BYTES (32 * 1024 * 1024)
#define LIMIT_KAFKA_GROUP_OFFSETS 16384 /* partitions with a committed offset */
/* Memory of the stored offsets of one tenant's groups on one worker, metadata too. */
#define LIMIT_KAFKA_TENANT_OFFSET_BYTES (64 * 1024 * 1024)
#define LIMIT_KAFKA_OFFSET_METADATA_BYTES 4096
#define LIMIT_KAFKA_CLIENT_ID_BYTES 128 /* of it in a member's id */
#define LIMIT_KAFKA_SESSION_MS_MIN 1000
#define LIMIT_KAFKA_SESSION_MS_MAX (30 * 60 * 1000)

/* metrics with labels of their own; what is beyond is summed up as "other" */
#define LIMIT_METRIC_GROUPS 500           /* consumer groups; over all workers, as is the next */
#define LIMIT_METRIC_GROUPS_OF_TENANT 100 /* the last series is the tenant's "other" */
#define LIMIT_METRIC_TENANTS 100          /* whose streams have series */

/* HTTP */
#define LIMIT_HTTP_HEAD_BYTES (16 * 1024)
#define LIMIT_HTTP_HEADERS 64
#define LIMIT_HTTP_BODY_BYTES (1024 * 1024) /* ceiling; a route row may ask for less */
#define LIMIT_HTTP_TARGET_BYTES 4096
#define LIMIT_JSON_DEPTH 16
#define LIMIT_PAGE_ROWS 1000

/* the service API of Azure IoT Hub */
#define LIMIT_IOTHUB_QUERY_BYTES 4096
#define LIMIT_IOTHUB_QUERY_TOP 1000000
#define LIMIT_IOTHUB_QUERY_SCANNED 1000 /* devices looked at for one page */
#define LIMIT_IOTHUB_BULK 100           /* devices of one request */

/* registry */
#define LIMIT_CREDENTIALS_PER_DEVICE 8
#define LIMIT_AUTHORITIES_PER_TENANT 64 /* whose connections survive a device's change */
#define LIMIT_AUTHORITIES_PER_LOGIN 128 /* of the issuers' names, looked at for a certificate */
#define LIMIT_API_KEYS_PER_TENANT 1000  /* they are deleted together with the tenant */
#define LIMIT_ACCESS_POLICIES_PER_TENANT 64
#define LIMIT_REGISTRY_STATEMENTS 4096     /* in line for one connection: a fraction of a second */
#define LIMIT_REGISTRY_CONNECTIONS 3       /* for requests of the API */
#define LIMIT_REGISTRY_REQUESTS 512        /* of the API, under way */
#define LIMIT_REGISTRY_ACCOUNT_REQUESTS 32 /* ... of one tenant or one API key of the platform */
#define LIMIT_REGISTRY_CHANGES 1000        /* looked up at a time, beside those statements */
#define LIMIT_REGISTRY_UNKNOWN_NAMES 10000 /* remembered for a moment as unknown */
#define LIMIT_REGISTRY_AUTHORITIES 10000   /* cached certificate authorities */
#define LIMIT_PASSWORD_QUEUE 64            /* passwords that wait for the slow function */
#define LIMIT_PASSWORD_QUEUE_KEPT 16       /* ... of which for who did not fail lately */
#define LIMIT_ATTEMPTS_BUCKETS 32768       /* 768 KiB */
#define LIMIT_ATTEMPTS_OF_SOURCE 20        /* wrong passwords from one address at a time */
#define LIMIT_ATTEMPTS_OF_SOURCE_MS 1000   /* ... one of which is forgotten in this time */
#define LIMIT_ATTEMPTS_OF_DEVICE 5
#define LIMIT_ATTEMPTS_OF_DEVICE_MS 10000
#define LIMIT_ATTEMPTS_OF_RESERVE 4 /* for devices that did not fail, from an address that did */
#define LIMIT_ATTEMPTS_OF_RESERVE_MS 1000
#define LIMIT_METADATA_BYTES (32 * 1024)
#define LIMIT_TAGS_BYTES (8 * 1024)
#define LIMIT_POLICY_BYTES (16 * 1024)
#define LIMIT_POLICY_GROUPS 64
#define LIMIT_POLICY_RULES 32           /* of quarantine */
#define LIMIT_TOPIC_PATTERNS 64         /* of one tenant's topic map */
#define LIMIT_GROUP_NAME_BYTES 64       /* of devices */
#define LIMIT_QUOTA 1000000000000000L   /* of anything in a second */
#define LIMIT_VIA_GATEWAYS 8            /* of one device behind them */
#define LIMIT_CHILDREN_PER_WORKER 65536 /* devices behind gateways that are remembered */
#define LIMIT_CHILD_REFUSED_MS 1000     /* ... as ones that may not be spoken for */
