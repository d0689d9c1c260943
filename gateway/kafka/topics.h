/* What a tenant's streams are called as topics: <tenant>.events, .commands, .audit, .quarantine. */
#pragma once

#include "registry/registry.h"

enum { KAFKA_TOPIC_NAME_SIZE = LIMIT_TENANT_BYTES + 16 };

/* The kinds that are topics, in order; ended by STREAM_KINDS. */
extern const enum stream_kind kafka_topic_kinds[];

/* "events" */
const char *kafka_topic_kind_name(enum stream_kind kind);
/* "acme.events"; returns its length. */
size_t kafka_topic_name(const struct registry_tenant *tenant, enum stream_kind kind,
                        char *ret_name);
