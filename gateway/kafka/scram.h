/*
 * The server's side of SASL SCRAM-SHA-256 (RFC 5802, RFC 7677), from message to message:
 *
 *     client   n,,n=user,r=nonce                      scram_take_first()
 *     server   r=nonce+ours,s=salt,i=iterations       scram_challenge()
 *     client   c=biws,r=nonce+ours,p=proof            scram_take_final()
 *     server   v=signature                            scram_write_success()
 *
 * Pure: salt and nonce come in as arguments. Whether the proof is right the registry judges
 * (registry/scram_keys.h). There is no channel binding: a client that could but believes that we
 * cannot ("y") is right; one that demands it ("p=...") is refused.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/slice.h"
#include "registry/scram_keys.h"

enum {
    SCRAM_NAME_MAX = 128,
    SCRAM_NONCE_MAX = 256, /* the client's part and ours */
    SCRAM_HEADER_MAX = 160,
    SCRAM_TRANSCRIPT_MAX = 2048,
    SCRAM_SUCCESS_SIZE = 2 + 44 + 1,
};

struct scram {
    bool is_challenged;
    size_t name_size, their_nonce_size, nonce_size, header_size, transcript_size;
    char name[SCRAM_NAME_MAX];
    char nonce[SCRAM_NONCE_MAX];
    char header[SCRAM_HEADER_MAX];         /* GS2: what the client says of channel binding */
    char transcript[SCRAM_TRANSCRIPT_MAX]; /* what both sides sign: the messages so far */
};

static inline struct slice scram_name(const struct scram *s) {
    return slice_make(s->name, s->name_size);
}

/* What the client's proof is about; after scram_take_final(). */
static inline struct slice scram_auth_message(const struct scram *s) {
    return slice_make(s->transcript, s->transcript_size);
}

/* The client's first message; the name is known afterwards. our_nonce: printable, no comma.
 * DG_ERR_MALFORMED, DG_ERR_LIMIT, DG_ERR_NOT_SUPPORTED (channel binding). */
DG_NODISCARD int scram_take_first(struct scram *s, struct slice message, struct slice our_nonce);

/* Our answer to it, within s. DG_ERR_LIMIT. */
DG_NODISCARD int scram_challenge(struct scram *s, const uint8_t *salt, size_t salt_size,
                                 int iterations, struct slice *ret_message);

/* The client's last message. DG_ERR_MALFORMED; DG_ERR_BAD_CREDENTIALS when it belongs to another
 * exchange. */
DG_NODISCARD int scram_take_final(struct scram *s, struct slice message,
                                  uint8_t ret_proof[SCRAM_KEY_SIZE]);

/* "v=...", NUL-terminated; its length. */
size_t scram_write_success(const uint8_t signature[SCRAM_KEY_SIZE],
                           char ret_message[SCRAM_SUCCESS_SIZE]);
