/* What is said of a command, in the stream and to PostgreSQL. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>

#include "gateway/command/command_event.h"
#include "leaks.h"

TestSuite(command_event, .fini = check_leaks);

Test(command_event, ids) {
    static const struct {
        const char *text;
        int64_t key;
    } cases[] = {{"c1", 1},
                 {"c999999999999999", 999999999999999},
                 {"c0", 0},
                 {"c01", 0},
                 {"c", 0},
                 {"", 0},
                 {"1", 0},
                 {"C1", 0},
                 {"c1x", 0},
                 {"c-1", 0},
                 {"c+1", 0},
                 {"c 1", 0},
                 {"c1234567890123456", 0},
                 {"c99999999999999999999999999", 0},
                 {"0123456789abcdef", 0}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[COMMAND_ID_SIZE];
        cr_assert_eq(command_parse_id(slice_from_string(cases[i].text)), cases[i].key, "%s",
                     cases[i].text);
        if (cases[i].key == 0)
            continue;
        command_format_id(cases[i].key, text);
        cr_assert_str_eq(text, cases[i].text);
    }
    cr_assert_eq(command_parse_id(slice_make("c\0001", 3)), 0);
}

Test(command_event, states) {
    for (unsigned state = 0; state < COMMAND_STATE_COUNT; state++) {
        struct slice name = slice_from_string(command_states[state].name);
        cr_assert_eq(command_state_find(name), state);
        cr_assert_eq(command_states[state].is_final, command_states[state].rank == 3);
    }
    cr_assert_eq(command_state_find(slice_from_string("dead-lettered")), COMMAND_STATE_COUNT);
    cr_assert_eq(command_state_find(slice_make(NULL, 0)), COMMAND_STATE_COUNT);
}

static struct command_facts replied(struct slice reply) {
    return (struct command_facts){.key = 12,
                                  .state = COMMAND_COMPLETED,
                                  .name = "re\"boot",
                                  .delivery_count = 2,
                                  .created_ms = 1000,
                                  .expires_ms = 2000,
                                  .sent_ms = 1100,
                                  .delivered_ms = 1200,
                                  .finished_ms = 1300,
                                  .reply_status = 200,
                                  .reply_type = slice_from_string("a/\"b\""),
                                  .reply = reply};
}

/* A reply that is JSON stands as it was written; else in base64. The event is JSON in any case. */
Test(command_event, reply) {
    static const struct {
        const char *reply, *member;
    } cases[] = {{"{\"t\": 0.1}", "\"reply\":{\"t\": 0.1}}"},
                 {" 12345678901234567890 ", "\"reply\": 12345678901234567890 }"},
                 {"\"\\u00e9\"", "\"reply\":\"\\u00e9\"}"},
                 {"null", "\"reply\":null}"},
                 {"1e400", "\"reply_base64\":\"MWU0MDA=\""},
                 {"{\"a\":1,\"a\":2}", "\"reply_base64\":"},
                 {"\"\\u0000\"", "\"reply_base64\":"},
                 {"1}", "\"reply_base64\":"},
                 {"1,\"state\":2", "\"reply_base64\":"},
                 {"\xff", "\"reply_base64\":\"/w==\""}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct command_facts facts = replied(slice_from_string(cases[i].reply));
        char *event = command_write_event(&facts);
        cr_assert_not_null(strstr(event, cases[i].member), "%s", event);
        json_t *read = json_loads(event, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
        cr_assert_not_null(read, "%s", event);
        cr_assert_str_eq(json_string_value(json_object_get(read, "name")), "re\"boot");
        cr_assert_str_eq(json_string_value(json_object_get(read, "state")), "completed");
        json_decref(read);
        free(event);
    }
    struct command_facts facts = replied(slice_make(NULL, 0));
    char *event = command_write_event(&facts);
    cr_assert_null(strstr(event, "\"reply\":"));
    cr_assert_null(strstr(event, "reply_base64"));
    free(event);
}

Test(command_event, row) {
    struct command_facts facts = replied(slice_from_string("\xff\"1"));
    char *row = command_write_row(&facts);
    cr_assert_str_eq(row,
                     "{\"k\":12,\"s\":\"completed\",\"f\":true,\"n\":2,\"st\":1100,\"dt\":1200,"
                     "\"ft\":1300,\"rs\":200,\"rt\":\"a/\\\"b\\\"\",\"rp\":\"/yIx\"}");
    free(row);
    facts = (struct command_facts){.key = 1, .state = COMMAND_SENT, .name = "", .sent_ms = 5};
    row = command_write_row(&facts);
    cr_assert_str_eq(
        row, "{\"k\":1,\"s\":\"sent\",\"f\":false,\"n\":0,\"st\":5,\"dt\":null,\"ft\":null}");
    free(row);
}

/* The longest reply that is taken fits into what a transition may carry (transitions.h). */
Test(command_event, longest_row) {
    static char type[LIMIT_CALL_CONTENT_TYPE_BYTES], payload[LIMIT_COMMAND_REPLY_BYTES];
    memset(type, 1, sizeof(type));
    struct command_facts facts = replied(slice_make(payload, sizeof(payload)));
    facts.reply_type = slice_make(type, sizeof(type));
    facts.reason = "delivered too often without an acknowledgement";
    char *row = command_write_row(&facts);
    cr_assert_leq(strlen(row), 60 * 1024);
    free(row);
}
