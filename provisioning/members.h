/*
 * What a JSON object of the API may hold, as tables of members: the check of what clients send, and
 * the text form in which values become parameters of statements. Pure.
 */
#pragma once

#include <jansson.h>

#include "common/err.h"
#include "common/slice.h"
#include "registry/registry.h"

enum member_kind {
    MEMBER_BOOLEAN,
    MEMBER_INTEGER,  /* from minimum to maximum */
    MEMBER_TEXT,     /* from minimum to maximum bytes */
    MEMBER_NAME,     /* enum name_kind in minimum */
    MEMBER_TIME,     /* RFC 3339; null is the same as absent */
    MEMBER_NAMES,    /* a list of at most maximum different names, enum name_kind in minimum */
    MEMBER_LIST,     /* of at most maximum values, whatever they are */
    MEMBER_METADATA, /* any object of at most maximum bytes */
    MEMBER_VALUE,    /* any value, null too */
    MEMBER_TAGS,     /* an object of strings, at most maximum bytes */
    MEMBER_ROLES,    /* a list of role names, at least one */
    MEMBER_RIGHTS,   /* ... of rights of an access policy */
    MEMBER_READ_ONLY /* in answers only */
};

/* Alphabets of names on the wire (DESIGN: names on the wire). */
enum name_kind { NAME_TENANT, NAME_DEVICE, NAME_HUB_DEVICE, NAME_OTHER };

/* Tables end with a member without a name. */
struct member {
    const char *name;
    enum member_kind kind;
    bool required;
    int64_t minimum, maximum;
    const char *fallback; /* parameter text when absent; NULL: SQL NULL */
};

bool name_is_valid(enum name_kind kind, struct slice name);
/* "1 to 128 of A-Z a-z 0-9 . _ : -" */
const char *name_rule(enum name_kind kind);

/* 0, or DG_ERR_INVALID and a sentence that begins with the JSON pointer of what is wrong. */
DG_NODISCARD int members_check(const struct member *members, const json_t *object, char *ret_detail,
                               size_t detail_size);

/* A merge patch: null resets texts, metadata, tags and times, and nothing else. Otherwise as above;
 * the other values are checked when they have been merged. */
DG_NODISCARD int members_check_patch(const struct member *members, const json_t *patch,
                                     char *ret_detail, size_t detail_size);

/* A new object with only the members that a client may write and that have a value. NULL: out of
 * memory. */
json_t *members_select_writable(const struct member *members, const json_t *object);

/* Appends one checked member, or its fallback, as a parameter. */
DG_NODISCARD int member_bind(const struct member *member, const json_t *object,
                             struct registry_request *request);
/* Appends every writable member in the table's order. */
DG_NODISCARD int members_bind(const struct member *members, const json_t *object,
                              struct registry_request *request);

/* not_before and not_after (either may be absent) leave a time in between. */
DG_NODISCARD int members_check_validity(const json_t *object, char *ret_detail, size_t detail_size);

/* Bits of a checked list of names of roles or rights. */
uint32_t member_roles(const json_t *names);
/* "admin, operator" of any set of bits. */
void roles_print(uint32_t roles, char *ret_text, size_t size);
