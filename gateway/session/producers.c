#include "gateway/session/producers.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/reader.h"
#include "common/writer.h"

enum { LAYOUT = 1, WINDOW = 128, NUMBERS = 16, SLOT_BITS = 5 };
_Static_assert(LIMIT_PRODUCER_SLOTS == 1 << SLOT_BITS, "a slot's bit in `busy` and in a ticket");
_Static_assert((NUMBERS << SLOT_BITS) - 1 == PRODUCERS_TICKET_MAX, "number and slot");

__extension__ typedef unsigned __int128 window_t;

/* Of one epoch. */
struct state {
    window_t window; /* bit 0: highest */
    uint64_t highest;
    uint32_t epoch;
};

struct pending {
    uint64_t sequence;
    uint32_t epoch;
    bool replaces; /* the producer that is leaving goes with it */
};

struct producer {
    struct producer *next;
    struct pending *pending; /* by slot; NULL: nothing is on the way */
    struct state durable;
    int64_t used_ms; /* wall clock */
    uint32_t busy;   /* slots that are on the way, a bit each */
    uint8_t number;  /* among the device's */
    uint8_t slot_count;
    bool is_leaving;
    uint8_t id_size;
    uint8_t id[];
};

/* ---- the text ---- */

static bool is_id_byte(uint8_t byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-';
}

static bool is_id(struct slice id) {
    if (id.size == 0 || id.size > LIMIT_PRODUCER_ID_BYTES)
        return false;
    for (size_t i = 0; i < id.size; i++)
        if (!is_id_byte(id.data[i]))
            return false;
    return true;
}

/* In the one way to write it, so that equal sequences are equal texts. */
static bool parse_number(struct slice digits, uint64_t max, uint64_t *ret_number) {
    uint64_t number = 0;
    if (digits.size == 0 || (digits.size > 1 && digits.data[0] == '0'))
        return false;
    for (size_t i = 0; i < digits.size; i++) {
        unsigned digit = (unsigned)digits.data[i] - '0';
        if (digit > 9 || number > (max - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret_number = number;
    return true;
}

/* Takes what stands before the next colon. */
static bool take_part(struct slice *text, struct slice *ret_part) {
    const uint8_t *colon = text->size > 0 ? memchr(text->data, ':', text->size) : NULL;
    if (!colon)
        return false;
    *ret_part = slice_make(text->data, (size_t)(colon - text->data));
    *text = slice_skip(*text, ret_part->size + 1);
    return true;
}

int producer_sequence_parse(struct slice text, struct producer_sequence *ret_sequence) {
    struct slice id, epoch_text, rest = text;
    uint64_t epoch, sequence;
    if (!take_part(&rest, &id) || !take_part(&rest, &epoch_text) || !is_id(id) ||
        !parse_number(epoch_text, UINT32_MAX, &epoch) ||
        !parse_number(rest, UINT64_MAX, &sequence) || sequence == 0)
        return DG_ERR_SEQUENCE;
    *ret_sequence = (struct producer_sequence){
        .text = text, .producer = id, .epoch = (uint32_t)epoch, .sequence = sequence};
    return 0;
}

/* ---- what is stored ---- */

static window_t shifted(window_t window, uint64_t by) {
    return by < WINDOW ? window << by : 0;
}

/* The union; of two epochs the higher one. */
static void state_add(struct state *state, const struct state *other) {
    if (other->epoch != state->epoch) {
        if (other->epoch > state->epoch)
            *state = *other;
        return;
    }
    uint64_t highest = other->highest > state->highest ? other->highest : state->highest;
    state->window = shifted(state->window, highest - state->highest) |
                    shifted(other->window, highest - other->highest);
    state->highest = highest;
}

static struct state state_of(uint32_t epoch, uint64_t sequence) {
    return (struct state){.window = 1, .highest = sequence, .epoch = epoch};
}

/* ---- the list ---- */

static struct producer *find(const struct producer *list, struct slice id) {
    for (; list; list = list->next)
        if (slice_equals(slice_make(list->id, list->id_size), id))
            break;
    return (struct producer *)(uintptr_t)list; /* not const: the caller's list decides */
}

static struct producer *find_number(struct producer *list, unsigned number) {
    while (list && list->number != number)
        list = list->next;
    return list;
}

/* NULL: no memory, or no number left. */
static struct producer *add(struct producer **list, struct slice id) {
    unsigned number = 0;
    while (number < NUMBERS && find_number(*list, number))
        number++;
    struct producer *producer = number < NUMBERS ? calloc(1, sizeof(*producer) + id.size) : NULL;
    if (!producer)
        return NULL;
    producer->next = *list;
    producer->number = (uint8_t)number;
    producer->id_size = (uint8_t)id.size;
    memcpy(producer->id, id.data, id.size);
    *list = producer;
    return producer;
}

static void remove_at(struct producer **at) {
    struct producer *producer = *at;
    *at = producer->next;
    free(producer->pending);
    free(producer);
}

static struct producer **find_leaving(struct producer **list) {
    while (*list && !(*list)->is_leaving)
        list = &(*list)->next;
    return list;
}

void producers_free(struct producer *list) {
    while (list)
        remove_at(&list);
}

static unsigned count_of(const struct producer *list) {
    unsigned count = 0;
    for (; list; list = list->next)
        count++;
    return count;
}

/* The least recently used of those with nothing on the way that were not used for idle_ms; NULL. */
static struct producer *find_idle(const struct producer *list, int64_t wall_ms, int64_t idle_ms) {
    const struct producer *found = NULL;
    for (; list; list = list->next)
        if (list->busy == 0 && wall_ms - list->used_ms >= idle_ms &&
            (!found || list->used_ms < found->used_ms))
            found = list;
    return (struct producer *)(uintptr_t)found;
}

/* ---- judging ---- */

static bool is_pending(const struct producer *producer, const struct producer_sequence *sequence) {
    for (uint32_t left = producer->busy; left != 0; left &= left - 1) {
        const struct pending *pending = &producer->pending[__builtin_ctz(left)];
        if (pending->sequence == sequence->sequence && pending->epoch == sequence->epoch)
            return true;
    }
    return false;
}

static int judge_newcomer(const struct producer *list, int64_t wall_ms) {
    struct producer *first = (struct producer *)(uintptr_t)list;
    if (*find_leaving(&first))
        return PRODUCERS_WAIT;
    if (count_of(list) < LIMIT_PRODUCERS_PER_DEVICE ||
        find_idle(list, wall_ms, LIMIT_PRODUCER_YIELD_MS))
        return PRODUCERS_NEW;
    return DG_ERR_PRODUCERS;
}

int producers_judge(const struct producer *list, const struct producer_sequence *sequence,
                    int64_t wall_ms) {
    const struct producer *producer = find(list, sequence->producer);
    if (!producer)
        return judge_newcomer(list, wall_ms);
    const struct state *durable = &producer->durable;
    if (sequence->epoch < durable->epoch)
        return DG_ERR_PRODUCER_EPOCH;
    if (sequence->epoch == durable->epoch && sequence->sequence <= durable->highest) {
        uint64_t below = durable->highest - sequence->sequence;
        if (below >= WINDOW)
            return DG_ERR_SEQUENCE_WINDOW;
        if (durable->window >> below & 1)
            return PRODUCERS_STORED;
    }
    if (producer->is_leaving || producer->busy == UINT32_MAX || is_pending(producer, sequence))
        return PRODUCERS_WAIT;
    return PRODUCERS_NEW;
}

/* ---- on the disk ---- */

static struct slice write_key(const struct producer *producer, unsigned slot, int64_t device_key,
                              uint8_t key[PRODUCER_KEY_BYTES]) {
    struct writer w = writer_make(key, PRODUCER_KEY_BYTES);
    writer_u64(&w, (uint64_t)device_key);
    writer_u8(&w, (uint8_t)slot);
    writer_bytes(&w, producer->id, producer->id_size);
    dg_assert(!w.failed);
    return slice_make(key, writer_size(&w));
}

static struct slice write_value(const struct state *state, const struct producers_context *context,
                                uint8_t value[PRODUCER_VALUE_BYTES]) {
    struct writer w = writer_make(value, PRODUCER_VALUE_BYTES);
    writer_u8(&w, LAYOUT);
    writer_u32(&w, (uint32_t)context->stream_epoch);
    writer_u32(&w, state->epoch);
    writer_u64(&w, state->highest);
    writer_u64(&w, (uint64_t)(state->window >> 64));
    writer_u64(&w, (uint64_t)state->window);
    writer_u64(&w, (uint64_t)context->wall_ms);
    dg_assert(!w.failed && writer_size(&w) == PRODUCER_VALUE_BYTES);
    return slice_make(value, PRODUCER_VALUE_BYTES);
}

static void put(struct producers_change *change, const struct producer *producer, unsigned slot,
                int64_t device_key, const struct slice *value) {
    unsigned at = change->count++;
    change->mutations[at] =
        (struct stream_mutation){.name_space = STREAM_STATE_PRODUCER,
                                 .is_delete = !value,
                                 .key = write_key(producer, slot, device_key, change->keys[at]),
                                 .value = value ? *value : slice_make(NULL, 0)};
}

static void put_deletions(struct producers_change *change, const struct producer *producer,
                          int64_t device_key) {
    for (unsigned slot = 0; slot < producer->slot_count; slot++)
        put(change, producer, slot, device_key, NULL);
}

/* ---- storing ---- */

static int reserve_pending(struct producer *producer) {
    if (!producer->pending)
        producer->pending = malloc(LIMIT_PRODUCER_SLOTS * sizeof(*producer->pending));
    return producer->pending ? 0 : DG_ERR_NO_MEMORY;
}

int producers_prepare(struct producer **list, const struct producer_sequence *sequence,
                      const struct producers_context *context, struct producers_change *change) {
    struct producer *producer = find(*list, sequence->producer);
    change->replaced = NULL;
    if (!producer) {
        if (count_of(*list) >= LIMIT_PRODUCERS_PER_DEVICE)
            change->replaced = find_idle(*list, context->wall_ms, LIMIT_PRODUCER_YIELD_MS);
        producer = add(list, sequence->producer);
    }
    if (!producer || reserve_pending(producer) < 0) {
        producers_cancel(list);
        return DG_ERR_NO_MEMORY;
    }
    change->producer = producer;
    unsigned slot = (unsigned)__builtin_ctz(~producer->busy);
    change->ticket = (uint16_t)(producer->number << SLOT_BITS | slot);
    change->count = 0;
    struct state state = producer->durable, added = state_of(sequence->epoch, sequence->sequence);
    state_add(&state, &added);
    struct slice value = write_value(&state, context, change->value);
    put(change, producer, slot, context->device_key, &value);
    if (change->replaced)
        put_deletions(change, change->replaced, context->device_key);
    return 0;
}

void producers_submit(const struct producers_change *change,
                      const struct producer_sequence *sequence, int64_t wall_ms) {
    struct producer *producer = change->producer;
    unsigned slot = change->ticket % LIMIT_PRODUCER_SLOTS;
    producer->pending[slot] = (struct pending){.sequence = sequence->sequence,
                                               .epoch = sequence->epoch,
                                               .replaces = change->replaced != NULL};
    producer->busy |= 1u << slot;
    producer->used_ms = wall_ms;
    if (slot >= producer->slot_count)
        producer->slot_count = (uint8_t)(slot + 1);
    if (change->replaced)
        change->replaced->is_leaving = true;
}

/* Frees what nothing needs: of a producer that has nothing stored there is nothing to know. */
static void tidy(struct producer **at) {
    struct producer *producer = *at;
    if (producer->busy != 0)
        return;
    free(producer->pending);
    producer->pending = NULL;
    if (producer->durable.highest == 0)
        remove_at(at);
}

void producers_cancel(struct producer **list) {
    for (struct producer **at = list, *producer; (producer = *at);) {
        tidy(at);
        if (*at == producer)
            at = &producer->next;
    }
}

void producers_settle(struct producer **list, unsigned ticket, int err) {
    struct producer *producer = find_number(*list, ticket >> SLOT_BITS);
    unsigned slot = ticket % LIMIT_PRODUCER_SLOTS;
    dg_assert(producer && producer->busy >> slot & 1);
    struct pending pending = producer->pending[slot];
    producer->busy &= ~(1u << slot);
    if (err == 0) {
        struct state added = state_of(pending.epoch, pending.sequence);
        state_add(&producer->durable, &added);
    }
    if (pending.replaces)
        producers_forgotten(list, err);
    producers_cancel(list);
}

/* ---- forgetting ---- */

static struct producer *find_forgotten(const struct producer *list, int64_t wall_ms) {
    bool surplus = count_of(list) > LIMIT_PRODUCERS_PER_DEVICE;
    return find_idle(list, wall_ms, surplus ? INT64_MIN : LIMIT_PRODUCER_IDLE_MS);
}

bool producers_has_forgotten(const struct producer *list, int64_t wall_ms) {
    return list && find_forgotten(list, wall_ms);
}

void producers_forget(struct producer *list, const struct producers_context *context,
                      struct producers_change *change) {
    struct producer *producer = find_forgotten(list, context->wall_ms);
    dg_assert(producer && producer->slot_count > 0);
    producer->is_leaving = true;
    change->count = 0;
    put_deletions(change, producer, context->device_key);
}

void producers_forgotten(struct producer **list, int err) {
    struct producer **at = find_leaving(list);
    dg_assert(*at);
    if (err == 0)
        remove_at(at);
    else
        (*at)->is_leaving = false;
}

/* ---- after a start ---- */

int producers_key_device(struct slice key, int64_t *ret_device_key) {
    struct reader r = reader_make(key.data, key.size);
    int64_t device_key = (int64_t)reader_u64(&r);
    uint8_t slot = reader_u8(&r);
    if (r.failed || device_key == 0 || slot >= LIMIT_PRODUCER_SLOTS ||
        !is_id(slice_make(r.at, reader_left(&r))))
        return DG_ERR_MALFORMED;
    *ret_device_key = device_key;
    return 0;
}

struct entry {
    struct state state;
    int64_t used_ms;
    int32_t stream_epoch;
};

static int read_value(struct slice value, struct entry *ret_entry) {
    struct reader r = reader_make(value.data, value.size);
    uint8_t layout = reader_u8(&r);
    struct entry entry = {.stream_epoch = (int32_t)reader_u32(&r)};
    entry.state.epoch = reader_u32(&r);
    entry.state.highest = reader_u64(&r);
    uint64_t high = reader_u64(&r);
    entry.state.window = (window_t)high << 64 | reader_u64(&r);
    entry.used_ms = (int64_t)reader_u64(&r);
    if (r.failed || reader_left(&r) > 0 || layout != LAYOUT || entry.state.highest == 0)
        return DG_ERR_MALFORMED;
    *ret_entry = entry;
    return 0;
}

int producers_restore(struct producer **list, struct slice key, struct slice value,
                      int32_t stream_epoch) {
    int64_t device_key;
    struct entry entry;
    if (producers_key_device(key, &device_key) < 0 || read_value(value, &entry) < 0)
        return DG_ERR_MALFORMED;
    struct slice id = slice_skip(key, PRODUCER_KEY_BYTES - LIMIT_PRODUCER_ID_BYTES);
    uint8_t slot = key.data[sizeof(device_key)];
    struct producer *producer = find(*list, id);
    if (!producer && count_of(*list) >= NUMBERS)
        return DG_ERR_LIMIT;
    if (!producer && !(producer = add(list, id)))
        return DG_ERR_NO_MEMORY;
    if (slot >= producer->slot_count)
        producer->slot_count = (uint8_t)(slot + 1);
    if (entry.stream_epoch != stream_epoch)
        return 0; /* not used since 1970: forgotten, unless it is used before */
    state_add(&producer->durable, &entry.state);
    if (entry.used_ms > producer->used_ms)
        producer->used_ms = entry.used_ms;
    return 0;
}
