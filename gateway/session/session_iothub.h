/*
 * What is different for a session of IoT Hub's dialect (dialect/iothub.h): who it is, what it may,
 * what its publishes become. Asked by the files of the session where session_is_iothub(); its
 * worker's thread.
 */
#pragma once

#include "gateway/dialect/iothub.h"
#include "gateway/session/authorize.h"
#include "gateway/session/session.h"
#include "gateway/session/will.h"

/* CONNECT: SESSION_IOTHUB when the user name is one of the dialect. On failure ret_text says more.
 * DG_ERR_NOT_AUTHORIZED: no such host; DG_ERR_UNSUPPORTED_VERSION, DG_ERR_CLIENT_ID. */
DG_NODISCARD int session_iothub_take(struct session *session, const struct mqtt_connect *connect,
                                     const char **ret_text);

/* Behind the client id in session->names: 's' (a token) or 'x' (a certificate), then the model id.
 * DG_ERR_NO_MEMORY. */
DG_NODISCARD int session_iothub_note(struct session *session, const struct mqtt_connect *connect);

/* Who a user name of the dialect says it is; false: it is none. Points into user_name and config.
 */
bool session_iothub_names(const struct config *config, const struct mqtt_connect *connect,
                          struct session_login *ret_login);

/* As session_may(), of which it is a part. */
DG_NODISCARD int session_iothub_may(const struct session *session, enum session_action action,
                                    struct slice name, struct session_permit *ret_permit);

/* Translates the properties of a permitted publish into the permit's headers and content type.
 * DG_ERR_MALFORMED, DG_ERR_TOO_LARGE. */
DG_NODISCARD int session_iothub_translate(const struct session *session,
                                          const struct mqtt_publish *publish,
                                          struct session_permit *permit,
                                          uint8_t room[IOTHUB_HEADER_BYTES]);
/* ... of a will, which is kept as it will be stored. DG_ERR_QOS_NOT_SUPPORTED besides. */
DG_NODISCARD int session_iothub_own_will(const struct session *session,
                                         const struct session_permit *permit,
                                         struct will_content *content,
                                         uint8_t room[IOTHUB_HEADER_BYTES]);

/* A request about the twin; as session_publish(). */
bool session_iothub_twin(struct session *session, const struct mqtt_publish *publish,
                         const struct session_permit *permit);
/* As session_twin_answered(). */
void session_iothub_twin_answered(struct session *session, const struct twin_answer *answer);

/* Whether the device has subscribed to this one. */
bool session_iothub_has(const struct session *session, enum iothub_filter filter);
/* Where it goes, as choose_topic() of session_deliver.c: what wants a reply is a direct method,
 * anything else a message from the cloud; NULL: the device has not subscribed. An empty topic: none
 * has room for its properties, or it has no name here, as what came with the session of a native
 * connection may have none. */
struct session_subscription *session_iothub_choose(const struct session *session,
                                                   const struct outbox_message *message,
                                                   struct slice *ret_topic,
                                                   uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES]);
/* Whether some command may come to the device. */
bool session_iothub_receives(const struct session *session);
