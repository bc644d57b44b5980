/* NULL for every pointer of every function. The harness counts: a function with three pointers has three rows here at least. */
#include "test.h"

static void complained(const char *call) {
    if (bruit_last_error()[0] == '\0')
        FAIL("%s failed without a text", call);
}

/* Fails with that code. */
#define ROW(call, code) \
    do { \
        EQ(call, code); \
        complained(#call); \
    } while (0)
/* Answers NULL or 0, and says why. */
#define NONE(call) \
    do { \
        CHECK(!(call)); \
        complained(#call); \
    } while (0)

static void null_message(const bruit_message *message, void *user) {
    (void)message;
    (void)user;
}

static void null_stream(bruit_stream *stream, void *user) {
    (void)user;
    bruit_stream_close(stream);
}

static int null_validate(const bruit_message *message, void *user) {
    (void)message;
    (void)user;
    return 1;
}

static void null_reply(int status, const bruit_message *reply, const char *text, void *user) {
    (void)status;
    (void)reply;
    (void)text;
    (void)user;
}

static void null_answer(const bruit_answer *answer, void *user) {
    (void)answer;
    (void)user;
}

static void on_event(const bruit_event *event, void *user) {
    (void)event;
    (void)user;
}

void test_null_pointers(void) {
    char buf[64];
    size_t len;
    uint64_t number;
    bruit_stats stats;
    const void *value;
    const char *key;
    const bruit_member *members_out[1];
    const char *address = "127.0.0.1:1";
    const char *no_address = NULL;
    bruit_kv change = {sizeof change, "role", "db", 2}, no_key = {sizeof no_key, NULL, "db", 2};
    bruit_kv no_value = {sizeof no_value, "gone", NULL, 2};

    bruit_config *config = test_config("null", "manual");
    bruit_node *node = NULL;
    OK(bruit_config_set_meta(config, "role", "db", 2));
    OK(bruit_config_set_meta(config, "gone", "x", 1));
    OK(bruit_node_new(config, &node));
    OK(bruit_node_start(node));
    bruit_members *members = NULL;
    OK(bruit_node_members(node, &members));
    const bruit_member *local = bruit_members_local(members);
    CHECK(local != NULL);

    /* errors, tables */
    NONE(bruit_err_descs(NULL));
    NONE(bruit_option_descs(NULL));
    NONE(bruit_stat_descs(NULL));

    /* config */
    ROW(bruit_config_new(NULL), BRUIT_E_INVALID);
    ROW(bruit_config_free(NULL), BRUIT_E_HANDLE);
    ROW(bruit_config_dup(NULL, &config), BRUIT_E_HANDLE);
    ROW(bruit_config_dup(config, NULL), BRUIT_E_INVALID);
    ROW(bruit_config_set(NULL, "name", "a"), BRUIT_E_HANDLE);
    ROW(bruit_config_set(config, NULL, "a"), BRUIT_E_INVALID);
    ROW(bruit_config_set(config, "name", NULL), BRUIT_E_INVALID);
    ROW(bruit_config_load(NULL, "/dev/null"), BRUIT_E_HANDLE);
    ROW(bruit_config_load(config, NULL), BRUIT_E_INVALID);
    ROW(bruit_config_get(NULL, "name", buf, sizeof buf, &len), BRUIT_E_HANDLE);
    ROW(bruit_config_get(config, NULL, buf, sizeof buf, &len), BRUIT_E_INVALID);
    ROW(bruit_config_get(config, "name", NULL, sizeof buf, &len), BRUIT_E_INVALID);
    OK(bruit_config_get(config, "name", buf, sizeof buf, NULL));
    ROW(bruit_config_add_seed(NULL, address), BRUIT_E_HANDLE);
    ROW(bruit_config_add_seed(config, NULL), BRUIT_E_INVALID);
    ROW(bruit_config_add_key(NULL, buf, BRUIT_KEY_LEN), BRUIT_E_HANDLE);
    ROW(bruit_config_add_key(config, NULL, BRUIT_KEY_LEN), BRUIT_E_INVALID);
    ROW(bruit_config_add_key(config, NULL, 0), BRUIT_E_INVALID);
    ROW(bruit_config_set_meta(NULL, "role", "db", 2), BRUIT_E_HANDLE);
    ROW(bruit_config_set_meta(config, NULL, "db", 2), BRUIT_E_INVALID);
    OK(bruit_config_set_meta(config, "role", NULL, 2)); /* deletes, whatever the length */
    ROW(bruit_config_adopt_sockets(NULL, -1, -1), BRUIT_E_HANDLE);
    ROW(bruit_config_set_runtime(NULL, NULL), BRUIT_E_HANDLE);
    ROW(bruit_config_set_runtime(config, NULL), BRUIT_E_HANDLE);
    ROW(bruit_config_on_log(NULL, 6, NULL, NULL, NULL), BRUIT_E_HANDLE);
    OK(bruit_config_on_log(config, 6, NULL, NULL, NULL));

    /* runtime */
    ROW(bruit_runtime_new(NULL), BRUIT_E_INVALID);
    ROW(bruit_runtime_free(NULL), BRUIT_E_HANDLE);

    /* node */
    ROW(bruit_node_new(NULL, &node), BRUIT_E_HANDLE);
    ROW(bruit_node_new(config, NULL), BRUIT_E_INVALID);
    ROW(bruit_node_start(NULL), BRUIT_E_HANDLE);
    ROW(bruit_node_join(NULL, &address, 1, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_join(node, NULL, 1, 0), BRUIT_E_INVALID);
    ROW(bruit_node_join(node, &no_address, 1, 0), BRUIT_E_INVALID);
    ROW(bruit_node_join(node, NULL, 0, 0), BRUIT_E_INVALID);
    ROW(bruit_node_leave(NULL, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_stop(NULL, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_free(NULL), BRUIT_E_HANDLE);
    ROW(bruit_node_release(NULL), BRUIT_E_HANDLE);
    ROW(bruit_node_state(NULL), BRUIT_E_HANDLE);
    ROW(bruit_node_name(NULL, buf, sizeof buf, &len), BRUIT_E_HANDLE);
    ROW(bruit_node_name(node, NULL, sizeof buf, &len), BRUIT_E_INVALID);
    OK(bruit_node_name(node, buf, sizeof buf, NULL));
    ROW(bruit_node_address(NULL, buf, sizeof buf, &len), BRUIT_E_HANDLE);
    ROW(bruit_node_address(node, NULL, sizeof buf, &len), BRUIT_E_INVALID);
    OK(bruit_node_address(node, buf, sizeof buf, NULL));
    ROW(bruit_node_set(NULL, "gossip_fanout", "3"), BRUIT_E_HANDLE);
    ROW(bruit_node_set(node, NULL, "3"), BRUIT_E_INVALID);
    ROW(bruit_node_set(node, "gossip_fanout", NULL), BRUIT_E_INVALID);
    ROW(bruit_node_set_meta(NULL, &change, 1), BRUIT_E_HANDLE);
    ROW(bruit_node_set_meta(node, NULL, 1), BRUIT_E_INVALID);
    ROW(bruit_node_set_meta(node, NULL, 0), BRUIT_E_INVALID);
    ROW(bruit_node_set_meta(node, &no_key, 1), BRUIT_E_INVALID);
    OK(bruit_node_set_meta(node, &no_value, 1)); /* deletes */

    /* events */
    ROW(bruit_node_on_event(NULL, BRUIT_EVENT_ALL, on_event, NULL, NULL, &number), BRUIT_E_HANDLE);
    ROW(bruit_node_on_event(node, BRUIT_EVENT_ALL, NULL, NULL, NULL, &number), BRUIT_E_INVALID);
    OK(bruit_node_on_event(node, BRUIT_EVENT_ALL, on_event, NULL, NULL, NULL));
    ROW(bruit_node_unsubscribe(NULL, 1), BRUIT_E_HANDLE);
    ROW(bruit_node_event_fd(NULL), BRUIT_E_HANDLE);
    ROW(bruit_node_dispatch(NULL, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_wait(NULL, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_wakeup(NULL), BRUIT_E_HANDLE);
    const bruit_event *event = NULL;
    ROW(bruit_node_next_event(NULL, &event), BRUIT_E_HANDLE);
    ROW(bruit_node_next_event(node, NULL), BRUIT_E_INVALID);
    bruit_event_free(NULL);

    /* byte streams */
    bruit_stream *stream = NULL;
    size_t stream_len;
    char stream_text[80];
    ROW(bruit_node_open_stream(NULL, "null", "t", 0, &stream), BRUIT_E_HANDLE);
    ROW(bruit_node_open_stream(node, NULL, "t", 0, &stream), BRUIT_E_INVALID);
    ROW(bruit_node_open_stream(node, "null", "t", 0, NULL), BRUIT_E_INVALID);
    ROW(bruit_node_open_stream(node, "nobody", NULL, 0, &stream), BRUIT_E_NOT_FOUND);
    ROW(bruit_node_on_stream(NULL, "t", null_stream, NULL, NULL, &number), BRUIT_E_HANDLE);
    OK(bruit_node_on_stream(node, NULL, null_stream, NULL, NULL, NULL));
    ROW(bruit_node_on_stream(node, "t", NULL, NULL, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_stream_read(NULL, stream_text, 1, 0), BRUIT_E_HANDLE);
    ROW(bruit_stream_write(NULL, "x", 1, 0), BRUIT_E_HANDLE);
    ROW(bruit_stream_fd(NULL, BRUIT_STREAM_READ), BRUIT_E_HANDLE);
    ROW(bruit_stream_peer(NULL, stream_text, sizeof stream_text, &stream_len), BRUIT_E_HANDLE);
    ROW(bruit_stream_topic(NULL, stream_text, sizeof stream_text, &stream_len), BRUIT_E_HANDLE);
    ROW(bruit_stream_shutdown(NULL), BRUIT_E_HANDLE);
    ROW(bruit_stream_close(NULL), BRUIT_E_HANDLE);
    ROW(bruit_stream_fail(NULL, BRUIT_E_REMOTE, "x"), BRUIT_E_HANDLE);
    OK(bruit_node_open_stream(node, "null", NULL, 0, &stream));
    ROW(bruit_stream_read(stream, NULL, 1, 0), BRUIT_E_INVALID);
    ROW(bruit_stream_write(stream, NULL, 1, 0), BRUIT_E_INVALID);
    ROW(bruit_stream_peer(stream, NULL, 1, &stream_len), BRUIT_E_INVALID);
    OK(bruit_stream_peer(stream, stream_text, sizeof stream_text, NULL));
    ROW(bruit_stream_topic(stream, NULL, 1, &stream_len), BRUIT_E_INVALID);
    OK(bruit_stream_topic(stream, stream_text, sizeof stream_text, NULL));
    OK(bruit_stream_fail(stream, BRUIT_E_REMOTE, NULL));
    OK(bruit_stream_close(stream));

    /* messages */
    bruit_out parcel;
    bruit_message *reply = NULL, *got[1];
    memset(&parcel, 0, sizeof parcel);
    parcel.size = sizeof parcel;
    ROW(bruit_node_broadcast(NULL, "t", "x", 1, 0), BRUIT_E_HANDLE);
    OK(bruit_node_broadcast(node, NULL, "x", 1, 0));
    ROW(bruit_node_broadcast(node, "t", NULL, 1, 0), BRUIT_E_INVALID);
    ROW(bruit_node_send(NULL, "null", "t", "x", 1, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_send(node, NULL, "t", "x", 1, 0), BRUIT_E_INVALID);
    OK(bruit_node_send(node, "null", NULL, "x", 1, 0));
    ROW(bruit_node_send(node, "null", "t", NULL, 1, 0), BRUIT_E_INVALID);
    ROW(bruit_node_submit(NULL, &parcel, 1), BRUIT_E_HANDLE);
    ROW(bruit_node_submit(node, NULL, 1), BRUIT_E_INVALID);
    ROW(bruit_node_request(NULL, "null", "t", "x", 1, 10, &reply), BRUIT_E_HANDLE);
    ROW(bruit_node_request(node, NULL, "t", "x", 1, 10, &reply), BRUIT_E_INVALID);
    ROW(bruit_node_request(node, "null", NULL, "x", 1, 10, &reply), BRUIT_E_NO_HANDLER);
    ROW(bruit_node_request(node, "null", "t", NULL, 1, 10, &reply), BRUIT_E_INVALID);
    ROW(bruit_node_request(node, "null", "t", "x", 1, 10, NULL), BRUIT_E_NO_HANDLER);
    ROW(bruit_node_request_start(NULL, &parcel, null_reply, NULL, NULL, &number), BRUIT_E_HANDLE);
    ROW(bruit_node_request_start(node, NULL, null_reply, NULL, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_node_request_start(node, &parcel, NULL, NULL, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_node_request_start(node, &parcel, null_reply, NULL, NULL, NULL), BRUIT_E_INVALID);
    bruit_query question;
    memset(&question, 0, sizeof question);
    question.size = sizeof question;
    ROW(bruit_node_query_start(NULL, &question, null_answer, NULL, NULL, &number), BRUIT_E_HANDLE);
    ROW(bruit_node_query_start(node, NULL, null_answer, NULL, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_node_query_start(node, &question, NULL, NULL, NULL, &number), BRUIT_E_INVALID);
    OK(bruit_node_query_start(node, &question, null_answer, NULL, NULL, NULL));
    ROW(bruit_node_cancel(NULL, 1), BRUIT_E_HANDLE);
    ROW(bruit_node_on_message(NULL, "t", null_message, NULL, NULL, &number), BRUIT_E_HANDLE);
    OK(bruit_node_on_message(node, NULL, null_message, NULL, NULL, NULL));
    ROW(bruit_node_on_message(node, "t", NULL, NULL, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_node_on_validate(NULL, "t", null_validate, NULL, NULL, &number), BRUIT_E_HANDLE);
    OK(bruit_node_on_validate(node, NULL, null_validate, NULL, NULL, NULL));
    ROW(bruit_node_on_validate(node, "t", NULL, NULL, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_node_recv(NULL, got, 1, 0), BRUIT_E_HANDLE);
    ROW(bruit_node_recv(node, NULL, 1, 0), BRUIT_E_INVALID);
    bruit_message_ref(NULL);
    bruit_message_unref(NULL);
    ROW(bruit_message_reply(NULL, "x", 1), BRUIT_E_INVALID);
    ROW(bruit_message_reply(NULL, NULL, 1), BRUIT_E_INVALID);
    ROW(bruit_message_fail(NULL, BRUIT_E_REMOTE, "x"), BRUIT_E_INVALID);
    ROW(bruit_message_fail(NULL, BRUIT_E_REMOTE, NULL), BRUIT_E_INVALID);
    CHECK(reply == NULL);

    /* members */
    bruit_members *other = NULL;
    ROW(bruit_node_members(NULL, &other), BRUIT_E_HANDLE);
    ROW(bruit_node_members(node, NULL), BRUIT_E_INVALID);
    NONE(bruit_node_view(NULL));
    NONE(bruit_members_len(NULL));
    NONE(bruit_members_view(NULL));
    NONE(bruit_members_local(NULL));
    NONE(bruit_members_at(NULL, 0));
    NONE(bruit_members_find(NULL, "null"));
    NONE(bruit_members_find(members, NULL));
    NONE(bruit_members_with(NULL, "role", members_out, 1));
    NONE(bruit_members_with(members, NULL, members_out, 1));
    NONE(bruit_members_with(members, "role", NULL, 1));
    EQ(bruit_members_with(members, "role", NULL, 0), 1);
    ROW(bruit_member_meta(NULL, "role", &value, &len), BRUIT_E_INVALID);
    ROW(bruit_member_meta(local, NULL, &value, &len), BRUIT_E_INVALID);
    OK(bruit_member_meta(local, "role", NULL, &len));
    OK(bruit_member_meta(local, "role", &value, NULL));
    NONE(bruit_member_meta_len(NULL));
    ROW(bruit_member_meta_at(NULL, 0, &key, &value, &len), BRUIT_E_INVALID);
    OK(bruit_member_meta_at(local, 0, NULL, &value, &len));
    OK(bruit_member_meta_at(local, 0, &key, NULL, &len));
    OK(bruit_member_meta_at(local, 0, &key, &value, NULL));
    bruit_members_free(NULL);

    /* stats */
    stats.size = sizeof stats;
    ROW(bruit_node_stats(NULL, &stats), BRUIT_E_HANDLE);
    ROW(bruit_node_stats(node, NULL), BRUIT_E_INVALID);
    ROW(bruit_node_stat(NULL, "acks", &number), BRUIT_E_HANDLE);
    ROW(bruit_node_stat(node, NULL, &number), BRUIT_E_INVALID);
    ROW(bruit_node_stat(node, "acks", NULL), BRUIT_E_INVALID);

    CHECK(other == NULL && event == NULL);
    bruit_members_free(members);
    OK(bruit_node_members(node, &members));
    EQ(bruit_member_meta(bruit_members_local(members), "gone", NULL, NULL), BRUIT_E_NOT_FOUND);
    bruit_members_free(members);
    OK(bruit_node_free(node));
    OK(bruit_config_free(config));
}
