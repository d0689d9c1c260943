#include "gateway/kafka/scram.h"

#include <stdio.h>
#include <string.h>

#include "common/assert.h"
#include "common/reader.h"
#include "common/writer.h"

enum { BASE64_SIZE = SCRAM_HEADER_MAX / 3 * 4 + 8, PROOF_TEXT_SIZE = 44 };

/* ---- attributes ---- */

/* The text up to the next comma, which is taken too; the rest stays in *rest. */
static struct slice take_part(struct slice *rest) {
    const uint8_t *comma = rest->size ? memchr(rest->data, ',', rest->size) : NULL;
    size_t size = comma ? (size_t)(comma - rest->data) : rest->size;
    struct slice part = slice_make(rest->data, size);
    *rest = slice_skip(*rest, size + (comma != NULL));
    return part;
}

/* The value of "x=value"; false when it is not that attribute. */
static bool value_of(struct slice part, char attribute, struct slice *ret_value) {
    if (part.size < 2 || part.data[0] != attribute || part.data[1] != '=')
        return false;
    *ret_value = slice_skip(part, 2);
    return true;
}

static bool is_printable(struct slice text) {
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < 0x21 || text.data[i] > 0x7e || text.data[i] == ',')
            return false;
    return text.size > 0;
}

static bool append(struct scram *s, struct slice text) {
    if (text.size > sizeof(s->transcript) - s->transcript_size)
        return false;
    if (text.size > 0)
        memcpy(s->transcript + s->transcript_size, text.data, text.size);
    s->transcript_size += text.size;
    return true;
}

/* ---- the client's first message ---- */

/* "=2C" is a comma and "=3D" an equals sign; any other "=" is a mistake. */
static int decode_name(struct slice text, char *ret_name, size_t *ret_size) {
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = (char)text.data[i];
        if (c == '=') {
            struct slice escape = slice_make(text.data + i, text.size - i < 3 ? 0 : 3);
            bool is_comma = slice_equals_string(escape, "=2C");
            if (!is_comma && !slice_equals_string(escape, "=3D"))
                return DG_ERR_MALFORMED;
            c = is_comma ? ',' : '=';
            i += 2;
        }
        if (size == SCRAM_NAME_MAX)
            return DG_ERR_LIMIT;
        ret_name[size++] = c;
    }
    *ret_size = size;
    return size > 0 ? 0 : DG_ERR_MALFORMED;
}

/* "n,," or "y,,", perhaps with the name to act for: it must be the client's own. */
static int take_header(struct scram *s, struct slice message, struct slice *rest,
                       struct slice *ret_acting) {
    struct slice flag = take_part(rest), acting = take_part(rest), value;
    size_t size = (size_t)(rest->data - message.data);
    if (value_of(flag, 'p', &value))
        return DG_ERR_NOT_SUPPORTED;
    if (!slice_equals_string(flag, "n") && !slice_equals_string(flag, "y"))
        return DG_ERR_MALFORMED;
    if (acting.size > 0 && !value_of(acting, 'a', ret_acting))
        return DG_ERR_MALFORMED;
    if (size > sizeof(s->header))
        return DG_ERR_LIMIT;
    memcpy(s->header, message.data, size);
    s->header_size = size;
    return 0;
}

static int set_nonce(struct scram *s, struct slice theirs, struct slice ours) {
    if (!is_printable(theirs))
        return DG_ERR_MALFORMED;
    if (theirs.size > sizeof(s->nonce) - ours.size)
        return DG_ERR_LIMIT;
    memcpy(s->nonce, theirs.data, theirs.size);
    memcpy(s->nonce + theirs.size, ours.data, ours.size);
    s->their_nonce_size = theirs.size;
    s->nonce_size = theirs.size + ours.size;
    return 0;
}

int scram_take_first(struct scram *s, struct slice message, struct slice our_nonce) {
    dg_assert(our_nonce.size > 0 && our_nonce.size < sizeof(s->nonce));
    struct scram next = {0};
    struct slice rest = message, acting = slice_make(NULL, 0), name, nonce;
    int err = message.size > 0 ? take_header(&next, message, &rest, &acting) : DG_ERR_MALFORMED;
    if (err < 0)
        return err;
    struct slice bare = rest;
    /* A mandatory extension ("m=") stands in the name's place: not a name, so it is refused. */
    if (!value_of(take_part(&rest), 'n', &name) || !value_of(take_part(&rest), 'r', &nonce) ||
        (acting.size > 0 && !slice_equals(acting, name)))
        return DG_ERR_MALFORMED;
    if ((err = decode_name(name, next.name, &next.name_size)) < 0 ||
        (err = set_nonce(&next, nonce, our_nonce)) < 0)
        return err;
    if (!append(&next, bare) || !append(&next, slice_from_string(",")))
        return DG_ERR_LIMIT;
    *s = next;
    return 0;
}

/* ---- ours ---- */

int scram_challenge(struct scram *s, const uint8_t *salt, size_t salt_size, int iterations,
                    struct slice *ret_message) {
    char text[SCRAM_NONCE_MAX + BASE64_SIZE + 32], salt_text[BASE64_SIZE];
    dg_assert(salt_size <= SCRAM_HEADER_MAX && s->nonce_size > 0 && !s->is_challenged);
    credential_base64_encode(salt, salt_size, salt_text);
    int size = snprintf(text, sizeof(text), "r=%.*s,s=%s,i=%d", (int)s->nonce_size, s->nonce,
                        salt_text, iterations);
    const char *start = s->transcript + s->transcript_size;
    if (!append(s, slice_make(text, (size_t)size)))
        return DG_ERR_LIMIT;
    *ret_message = slice_make(start, (size_t)size);
    s->is_challenged = true;
    return 0;
}

/* ---- the client's last message ---- */

/* The header again, in base64: nobody on the way has changed it. */
static bool binds_header(const struct scram *s, struct slice text) {
    char expected[BASE64_SIZE];
    size_t size = credential_base64_encode((const uint8_t *)s->header, s->header_size, expected);
    return slice_equals(text, slice_make(expected, size));
}

/* Ours, whole. librdkafka before 2.6.1 puts its own part in front of it once more, which the broker
 * of its time did not notice; the message still belongs to this exchange and no other. */
static bool is_nonce(const struct scram *s, struct slice text) {
    struct slice nonce = slice_make(s->nonce, s->nonce_size);
    struct slice theirs = slice_make(s->nonce, s->their_nonce_size);
    bool repeats = text.size == theirs.size + nonce.size &&
                   slice_equals(slice_make(text.data, theirs.size), theirs);
    return slice_equals(repeats ? slice_skip(text, theirs.size) : text, nonce);
}

static int decode_proof(struct slice text, uint8_t ret_proof[SCRAM_KEY_SIZE]) {
    if (text.size != PROOF_TEXT_SIZE || !is_printable(text) ||
        credential_base64_decode(text, ret_proof, SCRAM_KEY_SIZE) != SCRAM_KEY_SIZE)
        return DG_ERR_MALFORMED;
    return 0;
}

int scram_take_final(struct scram *s, struct slice message, uint8_t ret_proof[SCRAM_KEY_SIZE]) {
    dg_assert(s->is_challenged);
    const uint8_t *comma = message.size ? memrchr(message.data, ',', message.size) : NULL;
    struct slice signed_part = slice_make(message.data, comma ? (size_t)(comma - message.data) : 0);
    struct slice rest = signed_part, binding, nonce, proof;
    if (!comma || !value_of(take_part(&rest), 'c', &binding) ||
        !value_of(take_part(&rest), 'r', &nonce) ||
        !value_of(slice_skip(message, signed_part.size + 1), 'p', &proof))
        return DG_ERR_MALFORMED;
    if (!binds_header(s, binding) || !is_nonce(s, nonce))
        return DG_ERR_BAD_CREDENTIALS;
    int err = decode_proof(proof, ret_proof);
    if (err < 0)
        return err;
    if (!append(s, slice_from_string(",")) || !append(s, signed_part))
        return DG_ERR_LIMIT;
    return 0;
}

size_t scram_write_success(const uint8_t signature[SCRAM_KEY_SIZE],
                           char ret_message[SCRAM_SUCCESS_SIZE]) {
    memcpy(ret_message, "v=", 2);
    return 2 + credential_base64_encode(signature, SCRAM_KEY_SIZE, ret_message + 2);
}
